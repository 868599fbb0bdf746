//! What FLUSH and CLOSE of a client promise when a share asks for more than `noted`.

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use vfsx_tests::lab::{LabOptions, Service};
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::{Session, SmbClient};
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

/// Of the share. Long enough that what is in time here is in time on a loaded machine.
const LIMIT: Duration = Duration::from_secs(2);
/// How long a call is watched that must not return yet.
const WATCHED: Duration = Duration::from_millis(400);
/// What a call may take beside its wait.
const LITTLE: Duration = Duration::from_secs(3);
/// For calls that each would take the limit if they waited, together.
const QUICK: Duration = LIMIT.saturating_mul(2);
/// Modules tell vfsxd of their waits within a second.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

fn with_level(level: &'static str, test: impl FnOnce(&TestLab) -> Result<()>) {
    let options = |options: &mut LabOptions| {
        options.samba.vfs_objects = "streams_xattr acl_xattr vfsx".to_owned();
        options.samba.share = vec![
            format!("vfsx:durability = {level}"),
            format!("vfsx:wait limit = {}", LIMIT.as_millis()),
        ];
    };
    with_lab(options, |lab| {
        lab.settle()?;
        test(lab)
    });
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    Ok((work()?, start.elapsed()))
}

/// Does what a client does while `server` stands still: it must not come to its end before the server goes on.
fn held_up_by(server: &Service, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let frozen = server.freeze()?;
    std::thread::scope(|scope| {
        let client = scope.spawn(work);
        std::thread::sleep(WATCHED);
        let waits = !client.is_finished();
        drop(frozen);
        client.join().map_err(|_| anyhow!("the client panicked"))??;
        ensure!(
            waits,
            "the client was told of success while {} stood still",
            server.name
        );
        Ok(())
    })
}

fn put_held_up_by(server: &Service, lab: &TestLab, name: &str) -> Result<()> {
    let local = lab.dir().join(name);
    std::fs::write(&local, name)?;
    held_up_by(server, || SmbClient::new(lab, "data").put(&local, name))
}

/// (waits, fallbacks) of the status, once there are as many of both.
fn told(lab: &TestLab, least: (u64, u64)) -> Result<(u64, u64)> {
    let look = || {
        let status = lab.status().ok()?;
        let number = |name: &str| status.pointer(name).and_then(Value::as_u64);
        let (waits, fallbacks) = (number("/durability/waits")?, number("/durability/fallbacks")?);
        (waits >= least.0 && fallbacks >= least.1).then_some((waits, fallbacks))
    };
    wait::until("the waits in the status", TOLD_WITHIN, look, || {
        format!("{:?}", lab.status())
    })
}

/// With `server` not answering: one call takes the limit, succeeds and is counted, and the next ones take no time.
fn check_limit(lab: &TestLab, server: &Service, count: u64) -> Result<()> {
    let (before, given_up) = told(lab, (0, 0))?;
    let mut session = Session::connect(lab, "data")?;
    let frozen = server.freeze()?;
    let (_, first) = timed(|| session.put("held-up-0", b"content"))?;
    let (_, rest) = timed(|| (1..count).try_for_each(|n| session.put(&format!("held-up-{n}"), b"content")))?;
    drop(frozen);
    ensure!(
        first >= LIMIT && first < LIMIT + LITTLE,
        "the first took {first:?}"
    );
    ensure!(rest < QUICK, "the other {} took {rest:?}", count - 1);
    let (waits, fallbacks) = told(lab, (before + count, given_up + count))?;
    ensure!(
        fallbacks == given_up + count && waits == before + count,
        "{} of {} waits were given up, of {count}",
        fallbacks - given_up,
        waits - before
    );
    let text = lab.vfsxctl(&["status"])?;
    ensure!(text.contains(&format!("{fallbacks} of them given up")), "{text}");
    Ok(())
}

#[test]
fn what_a_client_was_told_is_written_survives_a_kill_of_everything_at_once() {
    with_level("journal", |lab| {
        put_held_up_by(&lab.vfsxd, lab, "kept")?;
        // vfsxd first: what smbd has not told it by now is gone with smbd.
        lab.vfsxd.kill9()?;
        lab.smbd.kill9()?;
        lab.vfsxd.start()?;
        lab.start_smbd()?;
        lab.settle()?;
        lab.check_captured(1)?;
        lab.check_replica("site1")
    });
}

#[test]
fn a_vfsxd_that_hangs_costs_a_client_the_limit_once() {
    with_level("journal", |lab| {
        check_limit(lab, &lab.vfsxd, 8)?;
        // It is waited for again when it has caught up.
        put_held_up_by(&lab.vfsxd, lab, "again")?;
        let (_, given_up) = told(lab, (9, 8))?;
        ensure!(given_up == 8, "its answer did not end the wait, but the limit");
        lab.vfsxd.stop()?;
        let mut session = Session::connect(lab, "data")?;
        let (_, without) =
            timed(|| (0..8).try_for_each(|n| session.put(&format!("without-{n}"), b"content")))?;
        ensure!(without < QUICK, "without vfsxd: {without:?}");
        lab.vfsxd.start()?;
        told(lab, (8, 8))?;
        drop(session);
        lab.settle()?;
        lab.check_replica("site1")
    });
}

#[test]
fn a_stream_and_an_attribute_are_waited_for_like_content() {
    with_level("journal", |lab| {
        let mut session = Session::connect(lab, "data")?;
        let handle = session.create("file", "create")?;
        // A module that vfsxd has not greeted yet waits for nothing.
        lab.settle()?;
        held_up_by(&lab.vfsxd, || {
            session.set_extended(handle, &[("KIND", "letter")])?;
            session.close(handle)
        })?;
        // Its handle is closed by the module that keeps streams in attributes.
        let stream = session.create("file:stream", "create")?;
        held_up_by(&lab.vfsxd, || {
            session.write(stream, 0, b"beside the content")?;
            session.close(stream)
        })?;
        // A handle that has done nothing has nothing to wait for.
        let handle = session.create("file", "open")?;
        let frozen = lab.vfsxd.freeze()?;
        let (_, without) = timed(|| session.close(handle))?;
        drop(frozen);
        ensure!(without < LIMIT, "a close after nothing took {without:?}");
        let found = told(lab, (2, 0))?;
        ensure!(found == (2, 0), "{found:?}");
        Ok(())
    });
}

#[test]
fn while_a_flush_waits_the_clients_other_requests_go_on() {
    with_level("journal", |lab| {
        let mut session = Session::connect(lab, "data")?;
        let handle = session.create("flushed", "create")?;
        session.write(handle, 0, b"content")?;
        let frozen = lab.vfsxd.freeze()?;
        session.begin_flush(handle)?;
        let (_, others) = timed(|| {
            let beside = session.create("beside", "create")?;
            (0..20).try_for_each(|n| session.write(beside, n, b"more"))
        })?;
        ensure!(others < LIMIT * 3 / 4, "requests beside a flush took {others:?}");
        drop(frozen);
        session.end_flush()?;
        session.write(handle, 0, b"CONTENT")?;
        held_up_by(&lab.vfsxd, || session.flush(handle))?;
        // Written through is a write and a flush in one.
        let frozen = lab.vfsxd.freeze()?;
        let (_, through) = timed(|| session.write_through(handle, 0, b"through"))?;
        drop(frozen);
        ensure!(
            through >= LIMIT && through < LIMIT + LITTLE,
            "a write through took {through:?}"
        );
        let found = told(lab, (3, 1))?;
        ensure!(found == (3, 1), "{found:?}");
        Ok(())
    });
}

#[test]
fn what_a_client_was_told_is_at_the_site_when_it_is_told() {
    with_level("remote", |lab| {
        let site = lab.site("site1")?;
        put_held_up_by(&site.service, lab, "first")?;
        let mut rpc = Rpc::connect(site)?;
        let mut at_site = |name: &str| rpc.read(name, 1 << 16);
        ensure!(
            at_site("first")?.as_deref() == Some(b"first"),
            "the file is not at the site"
        );

        // Another client's file, open and changed all the time, holds nothing up.
        let mut other = Session::connect(lab, "data")?;
        let open = other.create("open", "create")?;
        other.fill(open, 0, 1 << 20, 1)?;

        let mut session = Session::connect(lab, "data")?;
        for number in 0..20u64 {
            let (name, content) = (format!("file-{number}"), vec![number as u8; 3000]);
            other.random_writes(open, 4, 4096, 1 << 20, number)?;
            session.put(&name, &content)?;
            ensure!(at_site(&name)? == Some(content), "{name} is not at the site");
        }
        // Names have no call of their own that could wait: the close of the handle does.
        SmbClient::new(lab, "data").run(&["mkdir dir", "rename file-3 dir\\moved", "rm file-4"])?;
        ensure!(
            at_site("dir/moved")?.is_some(),
            "the renamed file is not at the site"
        );
        ensure!(
            at_site("file-3")?.is_none() && at_site("file-4")?.is_none(),
            "old names are at the site"
        );
        // A flush waits like a close.
        let handle = session.create("flushed", "create")?;
        session.write(handle, 0, b"flushed")?;
        session.flush(handle)?;
        ensure!(
            at_site("flushed")?.as_deref() == Some(b"flushed"),
            "the flushed file is not at the site"
        );

        let (waits, fallbacks) = told(lab, (21, 0))?;
        ensure!(fallbacks == 0, "{fallbacks} of {waits} waits were given up");
        Ok(())
    });
}

#[test]
fn a_site_that_hangs_or_is_gone_costs_a_client_the_limit_once() {
    with_level("remote", |lab| {
        let site = &lab.site("site1")?.service;
        check_limit(lab, site, 8)?;
        lab.settle()?;
        site.kill9()?;
        let mut session = Session::connect(lab, "data")?;
        let (_, first) = timed(|| session.put("gone-0", b"content"))?;
        let (_, rest) = timed(|| (1..8).try_for_each(|n| session.put(&format!("gone-{n}"), b"content")))?;
        ensure!(
            first >= LIMIT && first < LIMIT + LITTLE,
            "the first took {first:?}"
        );
        ensure!(rest < QUICK, "the others took {rest:?}");
        site.start()?;
        lab.settle()?;
        lab.check_replica("site1").context("after the site was gone")
    });
}
