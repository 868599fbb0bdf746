//! What a collection of blocks gives back in what time, and what is left meanwhile for clients that write.

use super::process::output;
use super::site::{BUCKET, Site};
use crate::build::Profile;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use vfsx_tests::wait;

/// Written at first; three quarters of it are garbage then.
const MIB: u64 = 1024;
const QUICK_MIB: u64 = 192;
const ROUNDS: usize = 3;
const QUICK_ROUNDS: usize = 1;
/// How long writes are measured without a collection.
const ALONE: Duration = Duration::from_secs(6);
const QUICK_ALONE: Duration = Duration::from_secs(3);
/// How long a purge may take to remove what only the old points needed.
const PURGED_WITHIN: Duration = Duration::from_secs(300);
/// What a collection may read and copy in a second.
const RATES: [(&str, Option<&str>); 2] = [
    ("as configured: 32 MiB/s", None),
    // More than any disk.
    ("as fast as it goes", Some("1000G")),
];

#[derive(Serialize)]
pub(super) struct Report {
    /// Of the store before a collection.
    stored_mib: u64,
    rounds: usize,
    rows: Vec<Row>,
}

/// Medians of the rounds.
#[derive(Serialize)]
struct Row {
    rate: &'static str,
    /// Given back.
    freed_mib: f64,
    copied_mib: f64,
    /// Given back per second, while clients write.
    freed_mib_per_second: f64,
    /// Written without a collection, and beside it, in the same store one after the other.
    alone_mib_per_second: f64,
    beside_mib_per_second: f64,
    beside_to_alone: f64,
}

pub(super) fn run(quick: bool, profile: Profile) -> Result<Report> {
    let (mib, rounds, alone) = match quick {
        true => (QUICK_MIB, QUICK_ROUNDS, QUICK_ALONE),
        false => (MIB, ROUNDS, ALONE),
    };
    let mut rows = Vec::new();
    for (name, rate) in RATES {
        let measured = (0..rounds).map(|_| measure(profile, name, rate, mib, alone));
        rows.push(median(&measured.collect::<Result<Vec<_>>>()?)?);
    }
    let report = Report {
        stored_mib: mib + mib / 4 * 3,
        rounds,
        rows,
    };
    print(&report);
    Ok(report)
}

fn print(report: &Report) {
    println!(
        "\nrestfs gc of {} MiB, of which three in seven are garbage, beside 4 clients that write requests of 1 MiB; medians of {} rounds",
        report.stored_mib, report.rounds
    );
    println!(
        "{:<26} {:>11} {:>12} {:>17} {:>21} {:>20} {:>7}",
        "rate of the collection",
        "freed MiB",
        "copied MiB",
        "freed MiB/s",
        "written MiB/s alone",
        "MiB/s beside it",
        "ratio"
    );
    for row in &report.rows {
        println!(
            "{:<26} {:>11.0} {:>12.0} {:>17.1} {:>21.1} {:>20.1} {:>6.2}x",
            row.rate,
            row.freed_mib,
            row.copied_mib,
            row.freed_mib_per_second,
            row.alone_mib_per_second,
            row.beside_mib_per_second,
            row.beside_to_alone
        );
    }
}

fn median(rows: &[Row]) -> Result<Row> {
    let of = |figure: fn(&Row) -> f64| {
        let mut figures: Vec<f64> = rows.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().context("no round")
    };
    Ok(Row {
        rate: rows.first().context("no round")?.rate,
        freed_mib: of(|row| row.freed_mib)?,
        copied_mib: of(|row| row.copied_mib)?,
        freed_mib_per_second: of(|row| row.freed_mib_per_second)?,
        alone_mib_per_second: of(|row| row.alone_mib_per_second)?,
        beside_mib_per_second: of(|row| row.beside_mib_per_second)?,
        beside_to_alone: of(|row| row.beside_to_alone)?,
    })
}

/// In a new store.
fn measure(profile: Profile, rate: &'static str, at: Option<&str>, mib: u64, alone: Duration) -> Result<Row> {
    // Not in /tmp, which may be memory.
    let scratch = tempfile::tempdir_in("/var/tmp").context("scratch directory")?;
    let site = Site::start(scratch.path(), profile)?;
    let old = ["--name", "old", "--mib", &mib.to_string()].map(str::to_owned);
    output(site.load("writes").args(&old))?;
    output(site.load("writes").args(&old).arg("--three-of-four"))?;
    site.admin(&["purge", BUCKET, "--before", "latest"])?;
    let purged = || {
        let info = site.admin(&["bucket", "info", BUCKET]).ok()?;
        (info["purging"] == false).then_some(())
    };
    wait::until("the purge", PURGED_WITHIN, purged, String::new)?;

    let load = Load::start(&site, "alone")?;
    std::thread::sleep(alone);
    let without = load.stop()?;
    let load = Load::start(&site, "beside")?;
    let begun = Instant::now();
    let status = site.admin(
        &[
            &["gc", "--grace", "0"][..],
            &at.map_or(vec![], |at| vec!["--rate", at]),
        ]
        .concat(),
    )?;
    let seconds = begun.elapsed().as_secs_f64();
    let beside = load.stop()?;
    let mib_of = |key: &str| {
        let bytes = status["last"][key].as_u64();
        Ok::<_, anyhow::Error>(
            bytes.with_context(|| format!("no {key} in {status}"))? as f64 / f64::from(1 << 20),
        )
    };
    let freed_mib = mib_of("freed_bytes")?;
    Ok(Row {
        rate,
        freed_mib,
        copied_mib: mib_of("copied_bytes")?,
        freed_mib_per_second: freed_mib / seconds,
        alone_mib_per_second: without,
        beside_mib_per_second: beside,
        beside_to_alone: beside / without,
    })
}

/// Clients that write until they are told to stop.
struct Load(Child);

impl Load {
    fn start(site: &Site, name: &str) -> Result<Self> {
        let mut command = site.load("writes");
        let child = command
            .args(["--name", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        child.map(Self).context("run restfs-bench")
    }

    /// MiB per second.
    fn stop(mut self) -> Result<f64> {
        drop(self.0.stdin.take());
        let mut out = self.0.stdout.take().context("is piped")?;
        let figures: Value = serde_json::from_reader(&mut out).context("figures of restfs-bench")?;
        self.0.wait()?;
        let figure = |key: &str| figures[key].as_f64().context("figures of restfs-bench");
        Ok(figure("bytes")? / figure("seconds")? / f64::from(1 << 20))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
