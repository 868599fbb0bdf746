//! The recovery site: gone for long, full, killed.

use super::{NOTICED_WITHIN, number, put_files, relay, state};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use vfsx_tests::lab::{BUCKET, Place};
use vfsx_tests::loopfs::{FileSystem, LoopFs};
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;
use vfsx_tests::work::Lag;

/// Least that vfsxd takes.
const CHANGES: u64 = 10_000;
/// What both sites have before one of them is gone: random bytes.
const BEFORE: u64 = 24;
const FILE: u64 = 1 << 20;
/// Each makes at least four changes.
const SMALL: u64 = 3_000;

/// Row "site unreachable".
#[test]
fn site_unreachable_beyond_the_bound_is_brought_over_by_difference_and_delays_no_other() {
    with_lab(
        |options| {
            options.sites = 2;
            options.changes_max = Some(CHANGES);
            options.vfsxd = false;
        },
        |lab| {
            let wire = relay(lab, "site2")?;
            lab.vfsxd.start()?;
            let mut session = Session::connect(lab, "data")?;
            put_files(&mut session, "before", 0, BEFORE, FILE)?;
            lab.settle()?;
            lab.wait_for_state("site2", "in-sync", NOTICED_WITHIN)?;
            let first = wire.bytes();
            ensure!(first > BEFORE * FILE, "the relay saw only {first} bytes");

            let gone = lab.site("site2")?;
            gone.service.kill9()?;
            let begun = number(&lab.status()?, "/catalog/changes")?;
            let mut from = 0;
            while number(&lab.status()?, "/catalog/changes")? < begun + CHANGES + CHANGES / 2 {
                ensure!(from < 20 * SMALL, "files make no changes");
                put_files(&mut session, "small", from, SMALL / 10, 100)?;
                from += SMALL / 10;
            }
            let handle = session.create("before 0", "open")?;
            session.random_writes(handle, 10, 4096, FILE, 99)?;
            session.close(handle)?;
            lab.settle_site("site1")?;
            lab.check_replica("site1")?;
            let lag = Lag::measure(lab, lab.site("site1")?, "lag", 20)?;
            ensure!(
                lag.quantile_ms(0.5) < 1000.0,
                "site1 lags by {}",
                lag.quantile_ms(0.5)
            );
            ensure!(state(lab, "site2")? == "unreachable", "{}", lab.status()?);

            gone.service.start()?;
            lab.wait_for_state("site2", "in-sync", 2 * NOTICED_WITHIN)?;
            let sent = wire.bytes() - first;
            println!("{from} small files, {sent} bytes on the wire, {first} at first");
            let said = fs::read_to_string(&lab.description.vfsxd.log)?;
            ensure!(
                said.contains("the difference is shipped"),
                "no word of a difference in vfsxd's log"
            );
            ensure!(
                sent < BEFORE * FILE / 2,
                "{sent} bytes: what was there was sent again"
            );
            lab.check_captured(1)?;
            lab.check_replica("site2")
        },
    );
}

/// Row "recovery site full".
#[test]
fn recovery_site_full_says_so_loses_nothing_and_resumes_by_itself() {
    says_so_and_resumes(FileSystem::Ext4, |disk| disk.fill(0), LoopFs::free);
}

/// The same row. btrfs counts for root, too.
#[test]
fn recovery_site_without_quota_says_so_loses_nothing_and_resumes_by_itself() {
    says_so_and_resumes(
        FileSystem::Btrfs,
        |disk| disk.limit(DATA, Some(disk.taken(DATA)?)),
        |disk| disk.limit(DATA, None),
    );
}

const DATA: &str = "data";

/// Also killed then: it starts on its full disk, and says that it is full.
fn says_so_and_resumes(
    kind: FileSystem,
    fill: impl Fn(&LoopFs) -> Result<()>,
    free: impl Fn(&LoopFs) -> Result<()>,
) {
    let disk = LoopFs::make(kind).expect("a file system");
    let data = disk.path().join(DATA);
    disk.make_directory(DATA).expect("a directory");
    with_lab(
        |options| {
            options.site_places = vec![Place {
                data: Some(data.clone()),
                ..Place::default()
            }];
        },
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            put_files(&mut session, "before", 0, 8, FILE)?;
            lab.settle()?;
            fill(&disk)?;
            put_files(&mut session, "full", 0, 8, FILE)?;
            lab.wait_for_state("site1", "full", NOTICED_WITHIN)?;

            lab.site("site1")?.service.kill9()?;
            lab.wait_for_state("site1", "unreachable", NOTICED_WITHIN)?;
            lab.site("site1")?
                .service
                .start()
                .context("restfs does not start on a full disk")?;
            // What was kept for this start is given up; btrfs does not tell that a quota leaves no more than that, so there it is used.
            if kind == FileSystem::Btrfs {
                fill(&disk)?;
                put_files(&mut session, "again", 0, 8, FILE)?;
            }
            lab.wait_for_state("site1", "full", NOTICED_WITHIN)?;
            let kept = lab.site("site1")?.restfs(&["ls", "data:/"])?;
            ensure!(kept.contains("before 7"), "what it has cannot be read: {kept}");
            put_files(&mut session, "more", 0, 4, FILE)?;
            let status = lab.site_status("site1")?;
            ensure!(
                status
                    .get("rpo_ms")
                    .and_then(Value::as_u64)
                    .is_some_and(|rpo| rpo > 0),
                "a full site that is said to be up to date: {status}"
            );

            free(&disk)?;
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
    disk.unmount().expect("nothing uses it any more");
}

const KILLS: u64 = 12;

/// Row "restfs killed in a commit".
#[test]
fn restfs_killed_in_a_commit_has_applied_it_once() {
    with_lab(
        |_| {},
        |lab| {
            lab.settle()?;
            let site = &lab.site("site1")?.service;
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let client = scope.spawn(|| write_until(lab, &over));
                let killed = (0..KILLS).try_for_each(|round| {
                    let head = lab.site("site1")?.head()?;
                    let moved = || {
                        lab.site("site1")
                            .ok()?
                            .head()
                            .ok()
                            .filter(|now| *now > head + round % 4)
                    };
                    wait::until("commits", NOTICED_WITHIN, || moved().map(drop), String::new)?;
                    site.kill9()?;
                    wait::until(
                        "its port",
                        NOTICED_WITHIN,
                        || site.start().ok(),
                        || site.log_tail(),
                    )
                });
                over.store(true, Ordering::Relaxed);
                let worked = client
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("the client panicked")));
                killed.and(worked)
            })?;
            lab.settle()?;
            check_commits(lab)?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

fn write_until(lab: &TestLab, over: &AtomicBool) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        put_files(&mut session, "file", number, 1, 10_000)?;
        number += 1;
    }
    Ok(())
}

/// Each change is in one commit, and the commits follow each other.
fn check_commits(lab: &TestLab) -> Result<()> {
    let mut rpc = Rpc::connect(lab.site("site1")?)?;
    let (mut expected, mut before, mut seen) = (None, None, 0);
    loop {
        let mut params = json!({ "bucket": BUCKET, "limit": 100 });
        if let (Some(before), Some(params)) = (before, params.as_object_mut()) {
            params.insert("before".into(), json!(before));
        }
        let page = rpc
            .call("commit.list", params)?
            .map_err(|e| anyhow!("commit.list: {e}"))?;
        let commits = page
            .get("commits")
            .and_then(Value::as_array)
            .context("no commits")?;
        for commit in commits
            .iter()
            .filter(|commit| commit.get("resync") != Some(&Value::Bool(true)))
        {
            let (first, last) = (number(commit, "/first")?, number(commit, "/last")?);
            ensure!(
                expected.is_none_or(|expected| last + 1 == expected),
                "{commit} is not followed by change {expected:?}"
            );
            expected = Some(first);
            seen += 1;
        }
        before = match commits.last() {
            Some(oldest) => Some(number(oldest, "/point")?),
            None => break,
        };
    }
    ensure!(seen > KILLS, "only {seen} commits");
    Ok(())
}
