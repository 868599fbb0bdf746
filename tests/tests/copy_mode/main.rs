//! Mode `copy`: written data comes with the records, and a recovery point that is marked as exact is a state that the share
//! had, while clients work on.

mod bank;
mod points;

use anyhow::{Context, Result, anyhow, ensure};
use bank::Bank;
use nix::sys::signal::{Signal, kill};
use points::Point;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vfsx_tests::lab::{LabOptions, Mode};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

/// How long a change of the mode may take; after a start of vfsxd or a kill all sessions have to be heard of, or the share to be
/// compared.
const MODE_LIMIT: Duration = Duration::from_secs(40);
const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(300);
/// Of the points of a time in which nothing fails. Some may not be: a machine may stand still for longer than sites wait, and
/// the share's mode is map then.
const EXACT_PERCENT: usize = 80;

fn copy_with(objects: &str) -> impl FnOnce(&mut LabOptions) {
    move |options| {
        options.samba.vfs_objects = objects.to_owned();
        options.samba.mode = Mode::Copy;
    }
}

/// Points begin to be exact some seconds after the start of vfsxd, when all sessions must have been heard of.
fn wait_for_exact_points(lab: &TestLab) -> Result<()> {
    lab.wait_for_mode(Mode::Copy)?;
    let before = exact_states(lab)?;
    let mut session = Session::connect(lab, "data")?;
    let mut knocks = 0;
    // More than once: what was told before the catalog had turned to exact states is not in one until something follows.
    let more = || {
        knocks += 1;
        session
            .create_write_close(&format!("knock{knocks}"), b"is it exact?")
            .ok()?;
        exact_states(lab).is_ok_and(|now| now > before).then_some(())
    };
    wait::until("an exact state", MODE_LIMIT, more, || {
        format!("{:?}", lab.status())
    })
}

fn exact_states(lab: &TestLab) -> Result<u64> {
    let status = lab.status()?;
    status
        .pointer("/points/exact")
        .and_then(Value::as_u64)
        .context("status without points")
}

/// Clients that disturb: random changes of all kinds beside the bank.
fn storm(lab: &TestLab, over: &AtomicBool) -> Result<u64> {
    let mut session = Session::connect(lab, "data")?;
    let (mut done, mut seed) = (0, 1);
    while !over.load(Ordering::Relaxed) {
        done += session.storm(seed, 20, 8)?;
        seed += 1;
    }
    Ok(done)
}

/// Counts for a while, from number `from` on, with `disturbing` clients beside. The last number.
fn count_for(lab: &TestLab, bank: &mut Bank, from: u64, time: Duration, disturbing: usize) -> Result<u64> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storms: Vec<_> = (0..disturbing)
            .map(|_| scope.spawn(|| storm(lab, &over)))
            .collect();
        let counted = (|| {
            let (until, mut n) = (Instant::now() + time, from);
            while Instant::now() < until {
                n += 1;
                bank.count(n)?;
            }
            Ok(n)
        })();
        over.store(true, Ordering::Relaxed);
        for storm in storms {
            storm.join().map_err(|_| anyhow!("a storm panicked"))??;
        }
        counted
    })
}

/// How often the mode has changed since the start.
fn mode_changes(lab: &TestLab) -> Result<usize> {
    let said = std::fs::read_to_string(&lab.description.vfsxd.log)?;
    Ok(said.matches("how changes are captured has changed").count())
}

/// No point is fuzzy while the mode is copy: `changes` is how often that has changed before the first of them.
fn check_mode(lab: &TestLab, changes: usize, points: &[Point]) -> Result<()> {
    let fuzzy = points.iter().filter(|point| !point.exact).count();
    let changes = mode_changes(lab)? - changes;
    println!(
        "{fuzzy} of {} points are fuzzy, the mode changed {changes} times",
        points.len()
    );
    ensure!(fuzzy == 0 || changes > 0, "fuzzy points in mode copy: {points:?}");
    Ok(())
}

fn head(lab: &TestLab) -> Result<u64> {
    lab.site("site1")?.head()
}

/// All is at the site, nothing was scanned, and what is marked as exact is.
fn check_all(lab: &TestLab, last: u64, points: &[Point]) -> Result<usize> {
    lab.settle()?;
    lab.check_replica("site1")?;
    let (exact, newest) = points::check(lab, points)?;
    ensure!(newest.iter().all(|n| *n <= last), "{newest:?} after {last}");
    Ok(exact)
}

fn banks(objects: &str, clients: usize, disturbing: usize, time: Duration) {
    with_lab(copy_with(objects), |lab| {
        let mut bank = Bank::open(lab, clients)?;
        lab.settle()?;
        wait_for_exact_points(lab)?;
        lab.settle()?;
        let (before, changes) = (head(lab)?, mode_changes(lab)?);
        let last = count_for(lab, &mut bank, 0, time, disturbing)?;
        let while_counting = points::points(lab, before)?;
        check_mode(lab, changes, &while_counting)?;
        let settling = Instant::now();
        lab.settle()?;
        let settled = settling.elapsed();
        let exact = check_all(lab, last, &while_counting)?;
        println!(
            "{objects}, {clients} clients: {last} rounds of {} changes, {} points, {exact} of them exact; settled in {settled:?}; {}",
            bank::NUMBERS,
            while_counting.len(),
            lab.status()?.get("points").unwrap_or(&Value::Null),
        );
        lab.check_captured(1)?;
        ensure!(while_counting.len() as u64 >= time.as_secs(), "too few points");
        ensure!(
            exact * 100 >= while_counting.len() * EXACT_PERCENT,
            "{exact} of {} points are exact",
            while_counting.len()
        );
        Ok(())
    });
}

#[test]
fn what_one_client_counts_up_is_in_order_at_every_exact_point() {
    banks("acl_xattr vfsx", 1, 1, SHORT);
}

#[test]
fn what_three_clients_count_up_in_turns_is_in_order_at_every_exact_point() {
    banks("fruit streams_xattr acl_xattr vfsx", 3, 1, SHORT);
}

#[test]
#[ignore = "5 minutes: cargo xtask test --long"]
fn what_three_clients_count_up_in_turns_for_5_minutes_is_in_order_at_every_exact_point() {
    banks("acl_xattr vfsx", 3, 2, LONG);
}

/// Least that vfsxd takes: half of it is for data.
const JOURNAL: u64 = 16 << 20;
const PART: u64 = 1 << 20;

#[test]
fn a_site_that_is_away_for_long_makes_the_share_map_and_coming_back_makes_it_copy_again() {
    let options = |options: &mut LabOptions| {
        copy_with("vfsx")(options);
        options.journal_max = Some(JOURNAL);
    };
    with_lab(options, |lab| {
        let mut session = Session::connect(lab, "data")?;
        let file = session.create("large", "create")?;
        lab.settle()?;
        wait_for_exact_points(lab)?;
        lab.vfsxctl(&["pause", "--site", "site1"])?;
        let mut part = 0;
        let full = Some("the journal has no room for data".to_owned());
        while lab.mode()? != ("map".to_owned(), full.clone()) {
            ensure!(part < 64, "64 MiB do not fill a journal of 16: {}", lab.status()?);
            session.fill(file, part * PART, PART, part)?;
            part += 1;
        }
        let journal = lab.status()?;
        let bytes = journal.pointer("/journal/bytes").and_then(Value::as_u64);
        ensure!(bytes.is_some_and(|bytes| bytes <= JOURNAL), "{journal}");
        // And clients go on.
        for more in part..part + 24 {
            session.fill(file, more * PART, PART, more)?;
        }
        ensure!(lab.mode()?.0 == "map", "no room was made meanwhile");
        let said = std::fs::read_to_string(&lab.description.vfsxd.log)?;
        ensure!(said.contains("no room for data"), "the log does not say so");
        let people = lab.vfsxctl(&["status"])?;
        ensure!(
            people.contains("map instead of copy: the journal has no room for data"),
            "{people}"
        );
        lab.vfsxctl(&["resume", "--site", "site1"])?;
        lab.wait_for_mode(Mode::Copy)?;
        session.close(file)?;
        wait_for_exact_points(lab)?;
        lab.settle()?;
        lab.check_captured(1)?;
        lab.check_replica("site1")
    });
}

/// Written as fast as it goes, by one client who never waits: between two exact states is more than a commit has usually.
const LARGE: u64 = 400;
const ATTEMPTS: u64 = 4;

#[test]
fn a_large_file_on_its_way_is_at_the_site_in_states_that_it_had() {
    let options = |options: &mut LabOptions| {
        copy_with("vfsx")(options);
        options.journal_max = Some(4 << 30);
    };
    with_lab(options, |lab| {
        let mut session = Session::connect(lab, "data")?;
        let mut copied = false;
        // A machine that is short of time may work in mode map for a while.
        for attempt in 0..ATTEMPTS {
            lab.settle()?;
            wait_for_exact_points(lab)?;
            lab.settle()?;
            let (before, changes) = (head(lab)?, mode_changes(lab)?);
            let file = session.create(&format!("large{attempt}"), "create")?;
            for part in 0..LARGE {
                session.fill(file, part * PART, PART, attempt * LARGE + part)?;
            }
            session.close(file)?;
            lab.settle()?;
            let points = points::points(lab, before)?;
            check_mode(lab, changes, &points)?;
            copied = mode_changes(lab)? == changes;
            ensure!(!points.is_empty(), "no points");
            if copied {
                break;
            }
        }
        ensure!(copied, "the mode changed each time: {}", lab.status()?);
        lab.check_captured(1)?;
        lab.check_replica("site1")
    });
}

/// Counts until the connection is gone; the last number that was counted to the end.
fn count_until_killed(mut bank: Bank, counted: &AtomicU64) {
    loop {
        let n = counted.load(Ordering::Relaxed) + 1;
        if bank.count(n).is_err() {
            return;
        }
        counted.store(n, Ordering::Relaxed);
    }
}

fn wait_for_count(counted: &AtomicU64, n: u64) -> Result<()> {
    let there = || (counted.load(Ordering::Relaxed) >= n).then_some(());
    wait::until("numbers", MODE_LIMIT, there, || format!("{counted:?}"))
}

#[test]
fn kills_of_vfsxd_and_of_smbd_leave_no_mark_that_lies() {
    with_lab(copy_with("acl_xattr vfsx"), |lab| {
        let bank = Bank::open(lab, 1)?;
        lab.settle()?;
        wait_for_exact_points(lab)?;
        let before = head(lab)?;
        let counted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| count_until_killed(bank, &counted));
            wait_for_count(&counted, 50)?;
            lab.vfsxd.kill9()?;
            wait_for_count(&counted, 100)?;
            lab.vfsxd.start()?;
            lab.wait_for_mode(Mode::Copy)?;
            wait_for_exact_states_after(lab, 0)?;
            for process in lab.smbd.children("smbd") {
                kill(process, Signal::SIGKILL)?;
            }
            client.join().map_err(|_| anyhow!("the client panicked"))
        })?;
        let last = counted.load(Ordering::Relaxed);
        let mut bank = Bank::again(lab, 1, last)?;
        let last = count_for(lab, &mut bank, last, Duration::from_secs(1), 0)?;
        lab.settle()?;
        wait_for_exact_points(lab)?;
        let last = count_for(lab, &mut bank, last, Duration::from_secs(1), 0)?;
        let points = points::points(lab, before)?;
        let exact = check_all(lab, last, &points)?;
        println!("{exact} of {} points are exact, counted to {last}", points.len());
        ensure!(lab.status()?.get("gap") == Some(&Value::Null), "a gap is left");
        Ok(())
    });
}

fn wait_for_exact_states_after(lab: &TestLab, before: u64) -> Result<()> {
    let more = || exact_states(lab).is_ok_and(|now| now > before).then_some(());
    wait::until("an exact state", MODE_LIMIT, more, || {
        format!("{:?}", lab.status())
    })
}

/// A session in mode `map`: smbd takes a moment to read its configuration again.
fn connect_in_map(lab: &TestLab) -> Result<Session> {
    let mut sessions = Vec::new();
    let connected = || {
        sessions = vec![Session::connect(lab, "data").ok()?];
        (lab.mode().ok()?.0 == "map").then_some(())
    };
    wait::until("a session in mode map", MODE_LIMIT, connected, || {
        format!("{:?}", lab.status())
    })?;
    sessions.pop().context("a session")
}

#[test]
fn a_session_that_tells_no_data_makes_the_share_map_while_it_is_there() {
    with_lab(copy_with("vfsx"), |lab| {
        let mut bank = Bank::open(lab, 1)?;
        lab.settle()?;
        wait_for_exact_points(lab)?;
        let before = head(lab)?;
        let last = count_for(lab, &mut bank, 0, Duration::from_secs(1), 0)?;
        let mut options = LabOptions::new(lab.binaries.clone()).samba;
        options.mode = Mode::Map;
        lab.reconfigure_samba(&options)?;
        let mut other = connect_in_map(lab)?;
        let why = lab.mode()?.1;
        ensure!(why.as_deref() == Some("a session tells no data"), "{why:?}");
        let file = other.create("of-the-other", "create")?;
        other.fill(file, 0, 1 << 20, 1)?;
        let last = count_for(lab, &mut bank, last, Duration::from_secs(1), 0)?;
        other.close(file)?;
        drop(other);
        lab.wait_for_mode(Mode::Copy)?;
        let exact_before = exact_states(lab)?;
        let last = count_for(lab, &mut bank, last, Duration::from_secs(1), 0)?;
        wait_for_exact_states_after(lab, exact_before)?;
        let points = points::points(lab, before)?;
        let exact = check_all(lab, last, &points)?;
        println!("{exact} of {} points are exact", points.len());
        lab.check_captured(1)
    });
}
