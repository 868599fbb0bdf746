//! The same through smbd: what clients have flushed or closed, while another one goes on writing.

use crate::MIB;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use vfsx_tests::lab::Mode;
use vfsx_tests::loopfs::FileSystem;
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab_on};

/// Which one request writes.
const LENGTH: usize = MIB;
/// Different contents that the site has to have had.
const STATES: usize = 12;

/// All of the file with one number, in one call, and then a flush; over and over, with other numbers.
fn write_and_flush(lab: &TestLab, over: &AtomicBool) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    let handle = session.create("file", "open")?;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number = number % 127 + 1;
        session.write(handle, 0, &[number; LENGTH])?;
        session.flush(handle)?;
    }
    session.close(handle)
}

/// Another client, with other numbers, which opens and closes it each time.
fn write_and_close(lab: &TestLab, over: &AtomicBool) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number = number % 127 + 1;
        let handle = session.create("file", "open")?;
        session.write(handle, 0, &[128 + number; LENGTH])?;
        session.close(handle)?;
    }
    Ok(())
}

/// Each point after `at` has one number, and only one. Adds it to `seen`; returns the newest point.
fn check_points(lab: &TestLab, rpc: &mut Rpc, at: u64, seen: &mut BTreeSet<u8>) -> Result<u64> {
    let head = lab.site("site1")?.head()?;
    for point in at + 1..=head {
        let content = rpc.read_point(point, "file", LENGTH)?;
        let content = content.with_context(|| format!("no file at point {point}"))?;
        ensure!(
            content.len() == LENGTH,
            "{} bytes at point {point}",
            content.len()
        );
        let mut numbers = content;
        numbers.dedup();
        ensure!(
            numbers.len() == 1,
            "at point {point} the file's parts are of {numbers:?}"
        );
        seen.extend(numbers);
    }
    Ok(head)
}

fn is_never_torn(lab: &TestLab) -> Result<()> {
    let mut first = Session::connect(lab, "data")?;
    first.put("file", &[0; LENGTH])?;
    lab.settle()?;
    let mut at = lab.site("site1")?.head()?;
    let mut rpc = Rpc::connect(lab.site("site1")?)?;
    let over = AtomicBool::new(false);
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| {
        let clients = [write_and_flush, write_and_close].map(|work| {
            let over = &over;
            scope.spawn(move || work(lab, over))
        });
        let until = Instant::now() + crate::LIMIT;
        let mut look = || {
            while seen.len() < STATES {
                ensure!(Instant::now() < until, "the site had {seen:?} only");
                at = check_points(lab, &mut rpc, at, &mut seen)?;
            }
            Ok(())
        };
        let looked = look();
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        looked
    })?;
    lab.settle()?;
    check_points(lab, &mut rpc, at, &mut seen)?;
    lab.check_captured(1)?;
    lab.check_replica("site1")
}

#[test]
fn what_one_client_has_closed_or_flushed_is_never_torn_by_another_that_writes() {
    for kind in [FileSystem::Xfs, FileSystem::Btrfs] {
        with_lab_on(kind, |options| options.samba.mode = Mode::Map, is_never_torn);
    }
}
