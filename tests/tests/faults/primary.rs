//! The file server: the disk of vfsxd's journal is full.

use super::{NOTICED_WITHIN, close_gap, put_files};
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
fn with_state_on_a_disk(test: impl FnOnce(&TestLab, &LoopFs) -> Result<()>) {
    let disk = LoopFs::make(FileSystem::Ext4).expect("a file system");
    let data = disk.path().join("data");
    fs::create_dir(&data).expect("a directory");
    let options = |options: &mut LabOptions| {
        options.vfsxd_place = Place {
            data: Some(data.clone()),
            ..Place::default()
        };
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
    with_state_on_a_disk(|lab, disk| {
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
        ensure!(
            lab.site_status("site1")?.get("state").and_then(Value::as_str) != Some("in-sync"),
            "in sync with a gap"
        );

        disk.free()?;
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
        close_gap(lab, "journal")?;
        lab.settle()?;
        let sent = lab.wire_bytes("site1")? - wire;
        ensure!(
            sent < (FILES + 5) * FILE * 3 / 2,
            "{sent} bytes on the wire: more than what the site lacked"
        );
        lab.check_replica("site1")
    });
}
