//! smbd processes that are killed over and over.

use crate::{LIMIT, beside_others};
use anyhow::{Context, Result, anyhow, ensure};
use std::fs;
use vfsx_tests::lab::Mode;
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

const TORN: u64 = 4 << 20;

/// smbd processes that are killed while their clients write: whatever was written is found by comparing the file.
fn kills_in_writes(rounds: u64, mode: Mode) {
    let _machine = beside_others();
    with_lab(
        |options| options.samba.mode = mode,
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            let file = session.create("torn", "create")?;
            session.fill(file, 0, TORN, 1)?;
            drop(session);
            lab.settle()?;
            for round in 1..=rounds {
                kill_in_write(lab, round, mode).with_context(|| format!("round {round}"))?;
            }
            match mode {
                Mode::Map => lab.check_captured(1)?,
                // A kill within a call is seen, and is a gap until the share has been compared, which nobody asks for.
                Mode::Copy => {
                    let _client = Session::connect(lab, "data")?;
                    lab.wait_for_mode(mode)?;
                    lab.check_no_gap()?;
                }
            }
            lab.check_replica("site1")
        },
    );
}

fn kill_in_write(lab: &TestLab, round: u64, mode: Mode) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    let file = session.create("torn", "open")?;
    lab.wait_for_mode(mode)?;
    let before = (on_disk(lab)?, lab.share_bytes_read()?);
    // Again and again: it ends by the kill alone.
    let client = std::thread::spawn(move || {
        let mut seeds = (0..).map(|n| round << 32 | n);
        seeds.try_for_each(|seed| {
            session
                .random_writes(file, TORN / 4096, 4096, TORN, seed)
                .map(drop)
        })
    });
    // Some more writes each time, so that the kill meets different moments.
    let begun = || {
        let changed =
            on_disk(lab).is_ok_and(|now| blocks_that_differ(&before.0, &now) > (round % 20) as usize);
        changed.then_some(())
    };
    wait::until("writes on the disk", LIMIT, begun, String::new)?;
    for process in lab.smbd.children("smbd") {
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL)?;
    }
    let ended = client.join().map_err(|_| anyhow!("the client panicked"))?;
    ensure!(ended.is_err(), "the client goes on without a server");
    lab.settle()?;
    let read = lab.share_bytes_read()? - before.1;
    ensure!(read >= TORN, "the file was not compared whole: {read} bytes read");
    ensure!(at_site(lab)? == on_disk(lab)?, "the site has something else");
    Ok(())
}

fn on_disk(lab: &TestLab) -> Result<Vec<u8>> {
    Ok(fs::read(lab.share("data")?.join("torn"))?)
}

fn at_site(lab: &TestLab) -> Result<Vec<u8>> {
    Ok(lab.site("site1")?.restfs_output(&["cat", "data:/torn"])?.stdout)
}

fn blocks_that_differ(a: &[u8], b: &[u8]) -> usize {
    let pairs = a.chunks(4096).zip(b.chunks(4096));
    pairs.filter(|(a, b)| a != b).count()
}

#[test]
fn smbd_killed_6_times_in_writes_leaves_equal_files() {
    kills_in_writes(6, Mode::Map);
}

#[test]
fn smbd_killed_6_times_in_writes_leaves_equal_files_in_mode_copy() {
    kills_in_writes(6, Mode::Copy);
}

#[test]
#[ignore = "minutes: cargo xtask test --long"]
fn smbd_killed_200_times_in_writes_leaves_equal_files() {
    kills_in_writes(200, Mode::Map);
}
