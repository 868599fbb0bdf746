//! Clients that fight over few names, while daemon and site are killed and started: whatever order the events of
//! different smbd processes arrive in, the replica is what is on the disk.

use anyhow::{Result, anyhow, ensure};
use vfsx_tests::lab::Mode;
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};

const CLIENTS: u64 = 4;
/// Names are so few that most changes meet another client's.
const NAMES: u64 = 6;
const ROUNDS: u64 = 4;
const CHANGES: u64 = 250;
/// Another seed is another storm: set VFSX_STORM_SEED to replay one.
const SEED: u64 = 1;

fn seed() -> u64 {
    std::env::var("VFSX_STORM_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SEED)
}

/// All clients at once, each with changes of its own; `meanwhile` happens beside them.
fn storm(lab: &TestLab, seed: u64, meanwhile: impl FnOnce() -> Result<()>) -> Result<u64> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || Session::connect(lab, "data")?.storm(seed * 100 + client, CHANGES, NAMES))
            })
            .collect();
        meanwhile()?;
        let counts = clients.into_iter().map(|client| {
            client
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a client panicked")))
        });
        counts.sum()
    })
}

fn check(lab: &TestLab, round: u64) -> Result<()> {
    lab.settle()?;
    lab.check_no_gap()?;
    lab.check_replica("site1")
        .map_err(|error| anyhow!("seed {}, round {round}: {error:#}", seed()))
}

/// Clients tell what they do the way the test is about: while one is connected, vfsxd knows how.
fn wait_for(lab: &TestLab, mode: Mode) -> Result<()> {
    let _client = Session::connect(lab, "data")?;
    lab.wait_for_mode(mode)
}

fn fight(mode: Mode) {
    with_lab(
        |options| options.samba.mode = mode,
        |lab| {
            for round in 0..ROUNDS {
                wait_for(lab, mode)?;
                let done = storm(lab, seed() + round, || Ok(()))?;
                ensure!(done > CHANGES, "hardly anything was changed: {done}");
                check(lab, round)?;
            }
            Ok(())
        },
    );
}

fn fight_with_kills(mode: Mode) {
    with_lab(
        |options| options.samba.mode = mode,
        |lab| {
            lab.settle()?;
            let site = &lab.site("site1")?.service;
            for round in 0..ROUNDS {
                wait_for(lab, mode)?;
                let service = if round % 2 == 0 { &lab.vfsxd } else { site };
                storm(lab, seed() + 1000 + round, || {
                    service.kill9()?;
                    service.start()
                })?;
                check(lab, round)?;
            }
            Ok(())
        },
    );
}

#[test]
fn clients_that_fight_over_names_leave_an_identical_replica() {
    fight(Mode::Map);
}

#[test]
fn clients_that_fight_over_names_leave_an_identical_replica_in_mode_copy() {
    fight(Mode::Copy);
}

#[test]
fn kills_of_daemon_and_site_among_fighting_clients_lose_nothing() {
    fight_with_kills(Mode::Map);
}

#[test]
fn kills_of_daemon_and_site_among_fighting_clients_lose_nothing_in_mode_copy() {
    fight_with_kills(Mode::Copy);
}
