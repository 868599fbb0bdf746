//! The file server: the disk of vfsxd's journal is full, or hangs.

use super::{NOTICED_WITHIN, put_files};
use anyhow::{Result, ensure};
use restfs_lib::kv::{KvError, KvWrite, SqliteKv, SqliteOptions, Synchronous, transact};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};
use vfsx_tests::lab::{LabOptions, Mode, Place};
use vfsx_tests::loopfs::{FileSystem, LoopFs};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

const FILES: u64 = 100;
const FILE: u64 = 20_000;
/// Timing of a busy machine differs by itself.
const NOISE: Duration = Duration::from_secs(5);

/// The directory of vfsxd's state.
const STATE: &str = "data";

/// vfsxd's state is on a file system of its own.
fn with_state_on_a_disk(
    kind: FileSystem,
    change: impl FnOnce(&mut LabOptions),
    test: impl FnOnce(&TestLab, &LoopFs) -> Result<()>,
) {
    let disk = LoopFs::make(kind).expect("a file system");
    let data = disk.path().join(STATE);
    disk.make_directory(STATE).expect("a directory");
    let options = |options: &mut LabOptions| {
        options.vfsxd_place = Place {
            data: Some(data.clone()),
            ..Place::default()
        };
        change(options);
    };
    with_lab(options, |lab| test(lab, &disk));
    disk.unmount().expect("nothing uses it any more");
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

/// Row "journal disk full".
#[test]
fn journal_disk_full_clients_go_on_a_gap_says_so_and_the_difference_closes_it() {
    with_state_on_a_disk(FileSystem::Ext4, heal_gaps_soon, |lab, disk| {
        goes_on_while(lab, || disk.fill(0), || disk.free())
    });
}

/// The same row. btrfs counts for root, too.
#[test]
fn journal_quota_used_up_is_a_full_disk() {
    with_state_on_a_disk(FileSystem::Btrfs, heal_gaps_soon, |lab, disk| {
        goes_on_while(lab, || disk.limit(STATE, Some(0)), || disk.limit(STATE, None))
    });
}

/// The databases' part in it (vfsxd's catalog, a site's metadata): SQLite calls it an I/O error.
#[test]
fn a_database_that_meets_a_quota_is_full_and_goes_on() {
    let disk = LoopFs::make(FileSystem::Btrfs).expect("a file system");
    disk.make_directory(STATE).expect("a directory");
    let kv = SqliteKv::open(SqliteOptions {
        path: disk.path().join(STATE).join("kv.db"),
        synchronous: Synchronous::Full,
        cache_bytes: 1 << 20,
    })
    .expect("a new database");
    let fill = |txn: &mut dyn KvWrite| (0..200u8).try_for_each(|n| txn.put(&[n], &[n; 4000]));
    transact(&kv, |txn: &mut dyn KvWrite| txn.put(b"before", b"")).expect("there is room");
    disk.limit(STATE, Some(0)).expect("a limit");
    let refused = transact(&kv, fill);
    assert!(matches!(refused, Err(KvError::Full(_))), "{refused:?}");
    disk.limit(STATE, None).expect("no limit");
    transact(&kv, fill).expect("there is room");
    drop(kv);
    disk.unmount().expect("nothing uses it any more");
}

fn heal_gaps_soon(options: &mut LabOptions) {
    options.reconcile = Some("after_gap = \"1s\"".into());
}

/// Clients, while vfsxd's state has no room and after that.
fn goes_on_while(
    lab: &TestLab,
    fill: impl FnOnce() -> Result<()>,
    free: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    let before = timed(|| put_files(&mut session, "before", 0, FILES, FILE))?;
    lab.settle()?;
    let wire = lab.wire_bytes("site1")?;

    fill()?;
    let full = timed(|| put_files(&mut session, "full", 0, FILES, FILE))?;
    println!("{FILES} files before: {before:?}, with the disk full: {full:?}");
    ensure!(
        full < before * 3 + NOISE,
        "clients wait: {full:?} instead of {before:?}"
    );
    let gap = || {
        let status = lab.status().ok()?;
        status.get("gap").filter(|gap| gap.is_object()).map(drop)
    };
    wait::until("a gap", NOTICED_WITHIN, gap, || format!("{:?}", lab.status()))?;
    stays_full(lab)?;

    free()?;
    wait::until(
        "a site that is not full",
        NOTICED_WITHIN,
        || not_full(lab),
        || format!("{:?}", lab.status()),
    )?;
    let applied = || {
        let status = lab.status().ok()?;
        status
            .pointer("/catalog/last_error")
            .is_some_and(Value::is_null)
            .then_some(())
    };
    wait::until("a catalog that works", NOTICED_WITHIN, applied, || {
        format!("{:?}", lab.status())
    })?;
    put_files(&mut session, "after", 0, 5, FILE)?;
    let closed = || {
        let status = lab.status().ok().filter(|_| lab.check_no_gap().is_ok())?;
        let reason = status.pointer("/reconcile/last_gap/reason")?.as_str()?;
        reason.contains("journal").then_some(())
    };
    wait::until("a gap that has closed itself", NOTICED_WITHIN, closed, || {
        format!("{:?}", lab.status())
    })?;
    lab.settle()?;
    let sent = lab.wire_bytes("site1")? - wire;
    ensure!(
        sent < (FILES + 5) * FILE * 3 / 2,
        "{sent} bytes on the wire: more than what the site lacked"
    );
    lab.wait_for_state("site1", "in-sync", NOTICED_WITHIN)?;
    lab.check_replica("site1")
}

/// For a while, with clients at work: that is not looked at in a good moment only.
fn stays_full(lab: &TestLab) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    lab.wait_for_state("site1", "full", NOTICED_WITHIN)?;
    for number in 0..30 {
        put_files(&mut session, "more", number, 1, 100)?;
        std::thread::sleep(Duration::from_millis(100));
        let status = lab.site_status("site1")?;
        let text = |key| status.get(key).and_then(Value::as_str).unwrap_or_default();
        ensure!(text("state") == "full", "{status}");
        let error = text("last_error");
        let names_it = error.contains("the disk of the") && error.contains("/vfsxd/shares/data");
        ensure!(names_it, "which disk does this mean: {error}");
    }
    Ok(())
}

/// And none of what it may be then is a failure.
fn not_full(lab: &TestLab) -> Option<()> {
    let state = super::state(lab, "site1").ok()?;
    assert_ne!(state, "failed", "{:?}", lab.status());
    (state != "full").then_some(())
}

/// In bytes, on a disk of 1 GiB.
const WARN: u64 = 200 << 20;
const RESERVE: u64 = 100 << 20;

/// Row "journal disk filling up".
#[test]
fn journal_disk_filling_up_is_warned_of_and_below_the_reserve_nothing_is_missed_but_exact_points() {
    let test = |lab: &TestLab, disk: &LoopFs| {
        let level = |wanted: &'static str| {
            let seen = || {
                let status: Value = serde_json::from_str(&lab.vfsxctl(&["status", "--json"]).ok()?).ok()?;
                (status.pointer("/space/level")?.as_str()? == wanted).then_some(())
            };
            wait::until("the level of the disk", NOTICED_WITHIN, seen, || {
                format!("{wanted}: {:?}", lab.status())
            })
        };
        let mut session = Session::connect(lab, "data")?;
        put_files(&mut session, "before", 0, 10, FILE)?;
        lab.settle()?;
        level("ok")?;
        lab.wait_for_mode(Mode::Copy)?;

        disk.leave((WARN + RESERVE) / 2)?;
        level("low")?;
        put_files(&mut session, "low", 0, 10, FILE)?;
        lab.settle()?;
        lab.wait_for_state("site1", "in-sync", NOTICED_WITHIN)?;
        let said = fs::read_to_string(&lab.vfsxd.log)?;
        ensure!(
            said.matches("bytes are free in state_dir").count() == 1,
            "not warned once: {said}"
        );

        disk.free()?;
        disk.leave(RESERVE / 2)?;
        level("full")?;
        lab.wait_for_state("site1", "full", NOTICED_WITHIN)?;
        lab.wait_for_mode(Mode::Map)?;
        put_files(&mut session, "full", 0, 10, FILE)?;
        lab.settle()?;
        lab.check_no_gap()?;
        lab.check_replica("site1")?;

        disk.free()?;
        level("ok")?;
        lab.wait_for_mode(Mode::Copy)?;
        put_files(&mut session, "after", 0, 10, FILE)?;
        lab.settle()?;
        lab.wait_for_state("site1", "in-sync", NOTICED_WITHIN)?;
        lab.check_no_gap()?;
        lab.check_replica("site1")
    };
    with_state_on_a_disk(
        FileSystem::Ext4,
        |options| {
            options.samba.mode = Mode::Copy;
            options.space = Some(format!("warn = {WARN}\nreserve = {RESERVE}"));
        },
        test,
    );
}

/// Row "more clients than vfsxd has places for".
#[test]
fn more_clients_than_places_lose_nothing_and_the_last_one_is_taken_when_one_goes() {
    with_lab(
        |options| options.sessions_max = Some(2),
        |lab| {
            let mut sessions = Vec::new();
            for number in 0..2 {
                let mut session = Session::connect(lab, "data")?;
                put_files(&mut session, &format!("of {number}"), 0, 5, FILE)?;
                sessions.push(session);
            }
            lab.settle()?;
            lab.wait_for_state("site1", "in-sync", NOTICED_WITHIN)?;
            let mut last = Session::connect(lab, "data")?;
            let taken = timed(|| put_files(&mut last, "of the last", 0, FILES, FILE))?;
            println!("{FILES} files without vfsxd: {taken:?}");
            let turned_away = || {
                let text = lab.vfsxctl(&["status", "--json"]).ok()?;
                let status: Value = serde_json::from_str(&text).ok()?;
                (status.pointer("/modules/turned_away")?.as_u64()? > 1).then_some(())
            };
            wait::until("it comes back", NOTICED_WITHIN, turned_away, || {
                format!("{:?}", lab.status())
            })?;
            let state = super::state(lab, "site1")?;
            ensure!(
                state == "catching-up",
                "{state}, though a client's changes are not known"
            );

            drop(sessions.pop());
            put_files(&mut last, "of the last", FILES, 5, FILE)?;
            lab.settle()?;
            lab.check_no_gap()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")?;
            lab.wait_for_state("site1", "in-sync", NOTICED_WITHIN)
        },
    );
}

const FREEZE: Duration = Duration::from_secs(10);
/// What a client takes for a fault begins far beyond it, and what the machine does besides takes less.
const NO_HANG: Duration = Duration::from_secs(2);

/// Files that a socket's buffer has room for.
const FEW: u64 = 20;

/// While the disk of vfsxd's state hangs one client works, one leaves, and maybe others come and go. The longest time that any of that took.
fn work_under_a_freeze(lab: &TestLab, disk: &LoopFs, with_visitors: bool) -> Result<Duration> {
    let mut working = Session::connect(lab, "data")?;
    let mut leaving = Some(Session::connect(lab, "data")?);
    put_files(&mut working, "before", 0, 10, FILE)?;
    if let Some(leaving) = &mut leaving {
        put_files(leaving, "of one that leaves", 0, 10, FILE)?;
    }
    lab.settle()?;
    disk.freeze()?;
    let (frozen, mut longest, mut number) = (Instant::now(), Duration::ZERO, 0);
    while frozen.elapsed() < FREEZE {
        longest = longest.max(timed(|| put_files(&mut working, "working", number, 1, 100))?);
        if let Some(session) = leaving.as_mut().filter(|_| number < FEW) {
            longest = longest.max(timed(|| put_files(session, "leaving", number, 1, 100))?);
        }
        if frozen.elapsed() > FREEZE / 4 {
            drop(leaving.take());
        }
        if with_visitors && number.is_multiple_of(100) {
            let visit = || put_files(&mut Session::connect(lab, "data")?, "visitor", number, 1, 100);
            longest = longest.max(timed(visit)?);
        }
        number += 1;
    }
    disk.thaw()?;
    println!("{number} files while the disk hung, no operation took longer than {longest:?}");
    Ok(longest)
}

/// Row "journal disk hangs".
#[test]
fn journal_disk_hangs_and_no_client_waits_nor_is_anything_missed() {
    let test = |lab: &TestLab, disk: &LoopFs| {
        let longest = work_under_a_freeze(lab, disk, false)?;
        ensure!(longest < NO_HANG, "a client waited for {longest:?}");
        lab.settle()?;
        lab.check_captured(1)?;
        lab.check_replica("site1")
    };
    with_state_on_a_disk(FileSystem::Ext4, |_| {}, test);
}

/// The same with more changes than memory holds, and clients that come and go before vfsxd has heard of them: what cannot be written in time is
/// a gap, and that heals.
#[test]
fn journal_disk_hangs_for_longer_than_memory_lasts_and_no_client_waits() {
    let test = |lab: &TestLab, disk: &LoopFs| {
        let longest = work_under_a_freeze(lab, disk, true)?;
        ensure!(longest < NO_HANG, "a client waited for {longest:?}");
        let equal = || (lab.settle().is_ok() && lab.check_no_gap().is_ok()).then_some(());
        wait::until("a gap that has healed", NOTICED_WITHIN, equal, || {
            format!("{:?}", lab.status())
        })?;
        lab.settle()?;
        lab.check_replica("site1")
    };
    let small = |options: &mut LabOptions| {
        options.samba.share.push("vfsx:ring size = 524288".into());
        options.reconcile = Some("after_gap = \"1s\"".into());
    };
    with_state_on_a_disk(FileSystem::Ext4, small, test);
}
