//! A site that is gone for long.

use crate::{LIMIT, MARGIN, alone, memory, number};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vfsx_tests::smb::{Open, Session};
use vfsx_tests::testlab::{TestLab, with_lab};

/// Least that vfsxd takes: the bound is reached soon.
const CHANGES_KEPT: u64 = 10_000;
/// Between two looks at a vfsxd whose site is gone.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What vfsxd's memory may grow by while the site is gone, once the bound is reached, and what it may be off by at any time.
const MEMORY_NOISE: u64 = 24 << 20;
/// Of the files in a usual second with the site there, before or after, whichever had less: what else the machine does changes, too.
/// Usual is the median, so that what others do for some seconds counts for nothing; the more seconds, the less it does.
const SLOWEST: f64 = 0.8;
const SLOWEST_LONG: f64 = 0.9;
const LONG: Duration = Duration::from_secs(300);
/// How long the site is gone in the long form, in seconds.
const GONE_VARIABLE: &str = "VFSX_GONE_SECONDS";
const GONE: u64 = 3600;
/// At the site before it is gone.
const KEPT_FILES: u64 = 64;
const KEPT_FILE: u64 = 1 << 20;

/// What was seen at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    since_gone: Duration,
    rpo: Duration,
    pending: u64,
    memory: u64,
}

fn site_gone_for(time: Duration) {
    let _machine = alone();
    with_lab(
        |options| {
            options.vfsxd = false;
            options.changes_max = Some(CHANGES_KEPT);
        },
        |lab| {
            let metrics = configure_metrics(lab)?;
            lab.vfsxd.start()?;
            let mut session = Session::connect(lab, "data")?;
            for number in 0..KEPT_FILES {
                let handle = session.create(&format!("kept {number}"), "create")?;
                session.fill(handle, 0, KEPT_FILE, number)?;
                session.close(handle)?;
            }
            lab.settle()?;
            let beside = (time / 5).max(Duration::from_secs(20));
            let before = files_for(&mut session, "before", beside, &AtomicU64::new(0))?;
            lab.settle()?;
            lab.wait_for_state("site1", "in-sync", RETRIED_WITHIN)?;

            let site = &lab.site("site1")?.service;
            let wire = lab.wire_bytes("site1")?;
            site.kill9()?;
            let (gone, over, done) = (Instant::now(), AtomicBool::new(false), AtomicU64::new(0));
            let (without, looks) = std::thread::scope(|scope| {
                let watch = scope.spawn(|| watch_gone(lab, metrics, gone, &over, &done));
                let without = files_for(&mut session, "without", time, &done)
                    .and_then(|usual| reach_the_bound(lab, &mut session, &done).map(|()| usual));
                over.store(true, Ordering::Relaxed);
                let looks = watch
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("the watch panicked")))?;
                Ok::<_, anyhow::Error>((without?, looks))
            })?;
            let log = number(&lab.status()?, "/catalog/changes")?;
            check_memory(&looks)?;

            site.start()?;
            let back = Instant::now();
            lab.settle_within(Duration::from_secs(600))?;
            lab.wait_for_state("site1", "in-sync", RETRIED_WITHIN)?;
            let sent = lab.wire_bytes("site1")? - wire;
            let files = Names(done.load(Ordering::Relaxed)).living();
            let live = files * SMALL_FILE;
            println!(
                "caught up in {:?}: {sent} bytes on the wire, for {live} in {files} files that are new or changed, {} were there",
                back.elapsed(),
                KEPT_FILES * KEPT_FILE
            );
            let said = fs::read_to_string(&lab.description.vfsxd.log)?;
            ensure!(
                said.contains("the difference is shipped"),
                "the bound was not reached: {log} changes"
            );
            let (most, all) = (live + files * ROW + MARGIN, live + KEPT_FILES * KEPT_FILE);
            ensure!(
                sent >= live && sent < most && most < all,
                "{sent} bytes, not at most {most}: all that is there would have been {all}"
            );

            let after = files_for(&mut session, "after", beside, &AtomicU64::new(0))?;
            println!(
                "files in a usual second: {before} with the site, {without} without, {after} when it is back"
            );
            let least = if time < LONG { SLOWEST } else { SLOWEST_LONG };
            ensure!(
                without as f64 >= before.min(after) as f64 * least,
                "clients are slower while the site is gone: {without} files a second, not {before}, nor {after}"
            );
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

const SMALL_FILE: u64 = 2000;
/// On the wire beside its content, with the comparison of the trees; some 1,700 were seen.
const ROW: u64 = 2500;
/// A site that is back is tried again within 30 s, and compared within 15 s.
const RETRIED_WITHIN: Duration = Duration::from_secs(90);

/// The names of so many files, one after another: most are over one that is there, as a share has it, and one in fifty is a new one.
struct Names(u64);

impl Names {
    const OLD: u64 = 500;
    const NEW: u64 = 50;
    /// smbd looks through a directory for each new name.
    const IN_DIRECTORY: u64 = 500;

    fn name(prefix: &str, number: u64) -> String {
        match number.is_multiple_of(Self::NEW) {
            true => {
                let new = number / Self::NEW;
                format!("{prefix} {}/new {new}", new / Self::IN_DIRECTORY)
            }
            false => format!("{prefix} old {}", number % Self::OLD),
        }
    }

    /// Different ones.
    fn living(&self) -> u64 {
        let new = self.0.div_ceil(Self::NEW);
        new + (self.0 - new).min(Self::OLD - Self::OLD / Self::NEW)
    }
}

/// One file after the other. How many in a usual second: the median; `done` counts them, and says where to go on.
fn files_for(session: &mut Session, prefix: &str, time: Duration, done: &AtomicU64) -> Result<u64> {
    let begun = Instant::now();
    let mut seconds = vec![0_u64; time.as_secs() as usize];
    while let Some(count) = seconds.get_mut(begun.elapsed().as_secs() as usize) {
        let number = done.load(Ordering::Relaxed);
        let name = Names::name(prefix, number);
        if let Some((directory, _)) = name
            .split_once('/')
            .filter(|_| number.is_multiple_of(Names::NEW * Names::IN_DIRECTORY))
        {
            let make = Open {
                disposition: "create",
                directory: Some(true),
                ..Open::default()
            };
            let made = session.open(directory, &make)?;
            session.close(made)?;
        }
        let handle = session.create(&name, "overwrite_if")?;
        session.fill(handle, 0, SMALL_FILE, number)?;
        session.close(handle)?;
        *count += 1;
        done.fetch_add(1, Ordering::Relaxed);
    }
    seconds.sort_unstable();
    let usual = seconds.get(seconds.len() / 2).copied();
    usual.context("no time")
}

/// A slow machine needs more time than it was given.
fn reach_the_bound(lab: &TestLab, session: &mut Session, done: &AtomicU64) -> Result<()> {
    for _ in 0..30 {
        if number(&lab.site_status("site1")?, "/pending_ops")? > CHANGES_KEPT * 11 / 10 {
            break;
        }
        files_for(session, "without", LOOK_EVERY * 2, done)?;
    }
    Ok(())
}

/// Status and metrics have to say what is so: the site lacks everything since it is gone, which is as many changes as files at least.
fn watch_gone(
    lab: &TestLab,
    metrics: u16,
    gone: Instant,
    over: &AtomicBool,
    done: &AtomicU64,
) -> Result<Vec<Look>> {
    let mut looks = Vec::new();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_EVERY);
        let (least, files) = (gone.elapsed(), done.load(Ordering::Relaxed));
        let site = lab.site_status("site1")?;
        let most = gone.elapsed();
        if least < LIMIT {
            continue;
        }
        let rpo = Duration::from_millis(number(&site, "/rpo_ms")?);
        let pending = number(&site, "/pending_ops")?;
        ensure!(
            rpo + LIMIT >= least && rpo <= most + LIMIT,
            "the site is gone for {least:?}, the status says that it is {rpo:?} behind"
        );
        // Each file is a change at least; the newest ones are on their way.
        ensure!(
            pending * 2 >= files,
            "{files} files since the site is gone, {pending} changes wait"
        );
        ensure!(
            site.get("state").and_then(Value::as_str) == Some("unreachable"),
            "{site}"
        );
        let told = metric(metrics, "vfsx_site_rpo_seconds")?;
        ensure!(
            told + LIMIT.as_secs_f64() >= least.as_secs_f64()
                && told <= (gone.elapsed() + LIMIT).as_secs_f64(),
            "the site is gone for {least:?}, the metrics say that it is {told} s behind"
        );
        looks.push(Look {
            since_gone: least,
            rpo,
            pending,
            memory: memory(lab, "VmRSS")?,
        });
    }
    Ok(looks)
}

fn check_memory(looks: &[Look]) -> Result<()> {
    let full: Vec<_> = looks.iter().filter(|look| look.pending > CHANGES_KEPT).collect();
    let first = full.first().context("the bound was not reached")?;
    let most = full.iter().map(|look| look.memory).max().unwrap_or_default();
    let last = full.last().map_or(*first, |last| last);
    println!(
        "bound reached after {:?}: vfsxd has {} KiB; at the end, after {:?}, {} KiB and {} changes, {:?} behind; at most {} KiB",
        first.since_gone,
        first.memory >> 10,
        last.since_gone,
        last.memory >> 10,
        last.pending,
        last.rpo,
        most >> 10
    );
    ensure!(
        most <= first.memory + MEMORY_NOISE,
        "vfsxd's memory grows: {} bytes, then {most}",
        first.memory
    );
    Ok(())
}

/// Gives the port.
fn configure_metrics(lab: &TestLab) -> Result<u16> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = &lab.description.vfsxd.config;
    let text = fs::read_to_string(config)?;
    fs::write(config, format!("metrics = \"127.0.0.1:{port}\"\n{text}"))?;
    Ok(port)
}

/// The first series of that name.
fn metric(port: u16, name: &str) -> Result<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let line = answer.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.with_context(|| format!("no {name} in:\n{answer}"))
}

#[test]
fn a_minute_with_the_site_gone_costs_clients_nothing() {
    site_gone_for(Duration::from_secs(60));
}

#[test]
#[ignore = "an hour, or VFSX_GONE_SECONDS: cargo xtask test --long"]
fn an_hour_with_the_site_gone_costs_clients_nothing() {
    let seconds = std::env::var(GONE_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok());
    site_gone_for(Duration::from_secs(seconds.unwrap_or(GONE)));
}
