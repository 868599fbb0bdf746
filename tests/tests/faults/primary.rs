//! The file server: the disk of vfsxd's journal is full, or hangs.

use super::{NOTICED_WITHIN, put_files};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};
use vfsx_tests::lab::{LabOptions, Place};
use vfsx_tests::loopfs::{FileSystem, LoopFs};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

const FILES: u64 = 100;
const FILE: u64 = 20_000;
/// Timing of a busy machine differs by itself.
const NOISE: Duration = Duration::from_secs(5);

/// vfsxd's state is on a file system of its own.
fn with_state_on_a_disk(
    change: impl FnOnce(&mut LabOptions),
    test: impl FnOnce(&TestLab, &LoopFs) -> Result<()>,
) {
    let disk = LoopFs::make(FileSystem::Ext4).expect("a file system");
    let data = disk.path().join("data");
    fs::create_dir(&data).expect("a directory");
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
    let test = |lab: &TestLab, disk: &LoopFs| {
        let mut session = Session::connect(lab, "data")?;
        let before = timed(|| put_files(&mut session, "before", 0, FILES, FILE))?;
        lab.settle()?;
        let wire = lab.wire_bytes("site1")?;

        disk.fill(0)?;
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

        disk.free()?;
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
    };
    with_state_on_a_disk(
        |options| options.reconcile = Some("after_gap = \"1s\"".into()),
        test,
    );
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
    with_state_on_a_disk(|_| {}, test);
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
    with_state_on_a_disk(small, test);
}
