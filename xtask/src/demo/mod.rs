//! `cargo xtask demo`: the whole way of the data on one machine, seen and compared.

mod big_file;
mod past;
mod result;

use crate::build::{self, Profile};
use crate::report::{Report, size};
use crate::rights;
use anyhow::{Context, Result, bail};
use result::Outcome;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vfsx_tests::compare;
use vfsx_tests::lab::{Lab, LabOptions, Site};
use vfsx_tests::work::{self, Lag, SourceTree, Wanted};

/// What is copied in.
const WANTED: Wanted = Wanted {
    files: 5_200,
    bytes: 320 << 20,
    parts: 4,
};
/// Files whose way to the site is timed one by one.
const LAG_FILES: usize = 1_000;
/// How long the site may take to have everything: gigabytes on a slow disk.
const SETTLE_LIMIT: Duration = Duration::from_secs(900);

#[derive(clap::Args)]
pub struct Arguments {
    /// Directory on a disk with free space (24 GB for the whole demo); what is made in it is removed after success.
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    scratch: PathBuf,
    /// The programs are built already.
    #[arg(long, hide = true)]
    built: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let report = Report::new();
    if !arguments.built {
        report.section("Packages, headers of Samba, build");
        build::prepare()?;
        build::everything(Profile::Release)?;
    }
    rights::go_on_as_root("--built")?;
    let scratch = tempfile::Builder::new()
        .prefix("vfsx-demo-")
        .tempdir_in(&arguments.scratch)?;
    let outcome = stage(&report, scratch.path());
    if !outcome.as_ref().is_ok_and(Outcome::identical) {
        report.line(format!("everything is kept in {}", scratch.keep().display()));
    }
    let outcome = outcome?;
    println!("{}", outcome.json());
    if !outcome.identical() {
        bail!("the replica is not identical: the differences are listed above");
    }
    Ok(())
}

/// Starts the lab, plays, ends the lab.
fn stage(report: &Report, scratch: &Path) -> Result<Outcome> {
    report.section("A share, its daemon and a recovery site on this machine");
    let lab = Lab::start(
        &scratch.join("lab"),
        &LabOptions::new(build::binaries(Profile::Release)?),
    )?;
    report.line(format!("lab in {}", lab.dir().display()));
    let played = play(report, &lab, scratch);
    let stopped = lab.stop();
    let outcome = played?;
    stopped?;
    Ok(outcome)
}

fn play(report: &Report, lab: &Lab, scratch: &Path) -> Result<Outcome> {
    let site = lab.sites.first().context("the lab has a site")?;

    report.section("A real tree, copied in by four clients at once");
    copy_in(report, lab, scratch)?;
    settle(report, lab)?;

    report.section("A first day of work");
    day(report, lab, 0)?;
    settle(report, lab)?;
    let then = past::remember(lab, site, scratch)?;
    report.line(format!("the share as it is now is recovery point {}", then.point));

    report.section("A second day of work");
    day(report, lab, 1)?;
    settle(report, lab)?;

    report.section("Restore and compare: content, owner, mode, times, links, attributes, ACLs");
    let now = restore_and_compare(report, site, None, lab.share("data")?, &scratch.join("now"))?;
    let past = restore_and_compare(report, site, Some(then.point), &then.copy, &scratch.join("then"))?;

    report.section("Time from a client's close until the file can be read at the site");
    let lag = Lag::measure(lab, site, "lag", LAG_FILES)?;
    report.line(format!(
        "{} files one by one: p50 {} ms, p99 {} ms, slowest {} ms",
        lag.files(),
        lag.quantile_ms(0.5),
        lag.quantile_ms(0.99),
        lag.quantile_ms(1.0)
    ));

    report.section("Small writes at random places of a big file");
    let big = big_file::play(report, lab, site)?;
    settle(report, lab)?;
    let end = restore_and_compare(report, site, None, lab.share("data")?, &scratch.join("end"))?;

    Ok(Outcome {
        now,
        past,
        end,
        lag,
        big,
    })
}

fn copy_in(report: &Report, lab: &Lab, scratch: &Path) -> Result<()> {
    let tree = SourceTree::make(&scratch.join("source"), WANTED)?;
    report.line(format!(
        "{} files, {} from /usr of this machine",
        tree.files,
        size(tree.bytes)
    ));
    let start = Instant::now();
    tree.copy_in(lab, "data")?;
    let rate = tree.bytes as f64 / start.elapsed().as_secs_f64();
    report.line(format!("copied in by smbclient at {}/s", size(rate as u64)));
    Ok(())
}

fn day(report: &Report, lab: &Lab, number: u64) -> Result<()> {
    let counts = work::work(lab, "data", number, &mut |what| report.line(what))?;
    report.line(format!(
        "{} operations, {} written",
        counts.operations,
        size(counts.bytes)
    ));
    Ok(())
}

fn settle(report: &Report, lab: &Lab) -> Result<()> {
    let start = Instant::now();
    lab.settle(None, SETTLE_LIMIT)?;
    report.line(format!(
        "in sync with the site {:.1} s later",
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

fn restore_and_compare(
    report: &Report,
    site: &Site,
    point: Option<u64>,
    expected: &Path,
    out: &Path,
) -> Result<compare::Report> {
    site.restore(point, out)?;
    let found = compare::compare(expected, out, &compare::Options::default())
        .with_context(|| format!("compare {} with {}", expected.display(), out.display()))?;
    let what = point.map_or("now".to_owned(), |point| format!("recovery point {point}"));
    for line in found.to_string().lines() {
        report.line(format!("{what}: {line}"));
    }
    std::fs::remove_dir_all(out)?;
    Ok(found)
}
