//! Shares with very many files.

use crate::{MARGIN, alone, beside_others, memory, number};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use vfsx_tests::lab::{BUCKET, give_to_user};
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::SmbClient;
use vfsx_tests::testlab::{TestLab, with_lab};

/// On the wire, for the rename of a directory with any number of files.
const RENAME_BYTES: u64 = 1024;
/// In the journal: the begin of the client's session, the rename, the end of the session.
const RENAME_RECORDS: u64 = 3;
/// One in so many files has content.
const FULL: u64 = 100;

/// A directory with that many files, brought over before a client renames it.
fn directory_of_many_files(files: u64, limit: Duration, then: impl FnOnce(&TestLab) -> Result<()>) {
    let _machine = beside_others();
    with_lab(
        |options| options.vfsxd = false,
        |lab| {
            let big = lab.share("data")?.join("big");
            make_files(&big, files)?;
            let start = Instant::now();
            lab.vfsxd.start()?;
            lab.settle_within(limit)?;
            println!("{files} files at the site after {:?}", start.elapsed());

            // The trees are compared once when all is there, which is not the rename's.
            lab.wait_for_state("site1", "in-sync", limit)?;
            let before = (lab.wire_bytes("site1")?, records(lab)?);
            let start = Instant::now();
            SmbClient::new(lab, "data").run(&["rename big renamed"])?;
            lab.settle_within(limit)?;
            let (wire, records) = (lab.wire_bytes("site1")? - before.0, records(lab)? - before.1);
            println!(
                "renamed at the site after {:?}: {wire} bytes on the wire, {records} records",
                start.elapsed()
            );
            ensure!(wire < RENAME_BYTES, "{wire} bytes on the wire");
            ensure!(records == RENAME_RECORDS, "{records} records in the journal");
            then(lab)
        },
    );
}

/// The last file is where it belongs, and nowhere else.
fn check_last_file(lab: &TestLab, files: u64) -> Result<()> {
    let mut rpc = Rpc::connect(lab.site("site1")?)?;
    let mut stat = |directory: &str| {
        let path = format!("/{directory}/file {}", files - 1);
        rpc.call(
            "object.stat",
            json!({ "bucket": BUCKET, "object": { "path": path } }),
        )
    };
    ensure!(
        stat("renamed")?.is_ok() && stat("big")?.is_err(),
        "the file is not where it belongs"
    );
    Ok(())
}

fn make_files(dir: &Path, files: u64) -> Result<()> {
    fs::create_dir(dir)?;
    for number in 0..files {
        let file = File::create(dir.join(format!("file {number}")))?;
        if number.is_multiple_of(FULL) {
            file.write_all_at(&number.to_le_bytes(), 0)?;
        }
    }
    give_to_user(dir)
}

/// In vfsxd's journal.
fn records(lab: &TestLab) -> Result<u64> {
    let status = lab.status()?;
    let head = status.pointer("/journal/head").and_then(Value::as_u64);
    head.with_context(|| format!("status without journal: {status}"))
}

#[test]
fn the_rename_of_a_directory_with_20000_files_is_one_record() {
    directory_of_many_files(20_000, Duration::from_secs(120), |lab| {
        check_last_file(lab, 20_000)
    });
}

#[test]
#[ignore = "minutes, and a million inodes: cargo xtask test --long"]
fn the_rename_of_a_directory_with_a_million_files_is_one_record() {
    directory_of_many_files(1_000_000, Duration::from_secs(3600), |lab| {
        let start = Instant::now();
        lab.check_replica("site1")?;
        println!("restored and compared in {:?}", start.elapsed());
        Ok(())
    });
}

/// What a share with many names may take.
struct Many {
    directories: u64,
    /// In each.
    files: u64,
    /// To bring it over.
    sync: Duration,
    /// A reconcile that finds nothing, and a verify that does.
    look: Duration,
    /// Of vfsxd, at any time.
    memory: u64,
}

fn many_files(many: &Many) {
    let _machine = alone();
    with_lab(
        |options| options.vfsxd = false,
        |lab| {
            let share = lab.share("data")?;
            for number in 0..many.directories {
                make_files(&share.join(format!("directory {number}")), many.files)?;
            }
            let begun = Instant::now();
            lab.vfsxd.start()?;
            lab.settle_within(many.sync)?;
            lab.wait_for_state("site1", "in-sync", many.sync)?;
            println!(
                "{} names at the site after {:?}",
                many.directories * many.files,
                begun.elapsed()
            );

            let (wire, before) = (lab.wire_bytes("site1")?, scans(lab)?);
            for what in ["reconcile", "verify"] {
                let begun = Instant::now();
                lab.vfsxctl(&[what])?;
                let took = begun.elapsed();
                println!("{what} in {took:?}");
                ensure!(
                    took <= many.look,
                    "{what} took {took:?}, not at most {:?}",
                    many.look
                );
            }
            let (sent, most) = (lab.wire_bytes("site1")? - wire, memory(lab, "VmHWM")?);
            println!("{sent} bytes on the wire, vfsxd had at most {} KiB", most >> 10);
            let seen = number(&lab.status()?, "/scan/directories")?;
            ensure!(
                scans(lab)? == before + 1 && seen > many.directories,
                "the share was not looked through: {seen} directories"
            );
            ensure!(sent < MARGIN, "{sent} bytes on the wire for nothing");
            ensure!(
                most <= many.memory,
                "vfsxd had {most} bytes, not at most {}",
                many.memory
            );
            Ok(())
        },
    );
}

/// That vfsxd has begun.
fn scans(lab: &TestLab) -> Result<usize> {
    let said = fs::read_to_string(&lab.description.vfsxd.log)?;
    Ok(said.matches("scan begins").count())
}

/// Seconds. What is promised is judged with the optimized programs: `cargo xtask test --long --release`.
const MILLION_LIMIT: u64 = if cfg!(debug_assertions) { 60 } else { 10 };

#[test]
fn a_share_with_20000_files_is_looked_through_at_once() {
    many_files(&Many {
        directories: 20,
        files: 1000,
        sync: Duration::from_secs(120),
        look: Duration::from_secs(2),
        memory: 128 << 20,
    });
}

#[test]
#[ignore = "minutes, and a million inodes: cargo xtask test --long"]
fn a_share_with_a_million_files_is_looked_through_in_seconds() {
    many_files(&Many {
        directories: 1000,
        files: 1000,
        sync: Duration::from_secs(3600),
        look: Duration::from_secs(MILLION_LIMIT),
        memory: 256 << 20,
    });
}
