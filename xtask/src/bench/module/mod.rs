//! What the module costs a share: the same loads on shares with it, without it, and with other modules, side by side.

mod client;
mod column;
mod cores;
mod load;
mod operations;
mod table;

pub(super) use table::Report;

use crate::build::{self, Profile};
use crate::report::Report as Progress;
use anyhow::{Context, Result, bail};
use client::Client;
use column::{COLUMNS, Stand};
use cores::Halves;
use load::{Load, Run};
use operations::Counted;
use std::path::Path;
use table::Row;

pub(super) const PACKAGES: &[&str] = &[
    "dbench",
    "libsmbclient-dev",
    "pkg-config",
    "samba-testsuite",
    "strace",
    "valgrind",
];
/// Runs of every load on every share. The median of five is not moved by two that something else disturbed.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 3;
const DBENCH_LOAD: &str = "dbench load, 4 clients";
const RANDOM_WRITES: &str = "4 KiB random writes";
const SMALL_FILES: &str = "small files";
const RENAMES: &str = "renames";

/// What is measured.
pub(super) struct Choice {
    /// By the clock.
    loads: Vec<Load>,
    /// By what smbd does for one operation more.
    operations: Vec<Counted>,
}

/// What is measured by the clock.
fn loads(quick: bool) -> Vec<Load> {
    let part = if quick { 10 } else { 1 };
    let client = |name, unit, kind, count: u64, size, span| Load::Client {
        name,
        unit,
        kind,
        count: count / part,
        size,
        span,
    };
    vec![
        Load::Nbench {
            name: DBENCH_LOAD,
            seconds: 40 / part,
        },
        client("1 MiB sequential writes", "MiB/s", "sequential", 1000, 1 << 20, 0),
        client(RANDOM_WRITES, "writes/s", "random", 50_000, 4096, 256 << 20),
        client(SMALL_FILES, "files/s", "files", 10_000, 4096, 0),
        client(RENAMES, "renames/s", "renames", 10_000, 0, 0),
    ]
}

impl Choice {
    /// `of`: parts of the names of the loads that are measured; none: all are, and the operations that they are made of are counted.
    /// `operations`: these are counted only.
    pub(super) fn new(quick: bool, of: &[String], operations: bool) -> Result<Self> {
        let mut choice = Self {
            loads: loads(quick),
            operations: operations::all(),
        };
        if operations {
            choice.loads.clear();
            choice.operations = chosen(choice.operations, |operation| operation.load, of)?;
        } else if !of.is_empty() {
            choice.operations.clear();
            choice.loads = chosen(choice.loads, Load::name, of)?;
        }
        Ok(choice)
    }
}

fn chosen<T>(mut all: Vec<T>, load: impl Fn(&T) -> &'static str, of: &[String]) -> Result<Vec<T>> {
    if let Some(part) = of
        .iter()
        .find(|part| !all.iter().any(|one| load(one).contains(*part)))
    {
        let names: Vec<_> = all.iter().map(load).collect();
        bail!("no load has {part:?} in its name: {}", names.join("; "));
    }
    all.retain(|one| of.is_empty() || of.iter().any(|part| load(one).contains(part)));
    Ok(all)
}

pub(super) fn run(quick: bool, choice: &Choice, profile: Profile) -> Result<Report> {
    let scratch = tempfile::tempdir().context("scratch directory")?;
    let client = Client::build(scratch.path())?;
    let binaries = build::binaries(profile)?;
    let cores = Halves::new()?;
    let stands = COLUMNS
        .iter()
        .map(|column| Stand::start(column, &binaries, &cores))
        .collect::<Result<Vec<_>>>()?;
    cores.keep_clients()?;
    stands.iter().try_for_each(|stand| be_first(stand, &client))?;
    let rounds = if quick { QUICK_ROUNDS } else { ROUNDS };
    let progress = Progress::new();
    if !choice.loads.is_empty() {
        progress.section(&format!("shares side by side, {rounds} rounds of every load"));
    }
    let mut rows = Vec::new();
    for load in &choice.loads {
        let runs = measure(load, &stands, &client, rounds, &progress)?;
        let row = Row::new(load, &runs);
        progress.line(row.line());
        rows.push(row);
    }
    let counted = &choice.operations;
    if !counted.is_empty() {
        progress.section("instructions and system calls of smbd for one operation more");
    }
    let mut tell = |text: &str| progress.line(text);
    let report = Report {
        rounds,
        rows,
        operations: operations::measure(counted, &stands, &client, scratch.path(), &mut tell)?,
    };
    report.print();
    Ok(report)
}

/// A share gets into mode copy with its first client.
fn be_first(stand: &Stand, client: &Client) -> Result<()> {
    const DIR: &str = "first";
    client.run(stand, DIR, "files", 1, 4096, 0)?;
    stand.settle()?;
    remove(&stand.dir()?.join(DIR))
}

/// Runs of one load: for each column its rounds. Columns take turns, each round beginning with another, so that what changes
/// with time changes for all.
fn measure(
    load: &Load,
    stands: &[Stand],
    client: &Client,
    rounds: usize,
    progress: &Progress,
) -> Result<Vec<Vec<Run>>> {
    let mut runs = vec![Vec::new(); stands.len()];
    for round in 0..rounds {
        for turn in 0..stands.len() {
            let column = (round + turn) % stands.len();
            if let (Some(stand), Some(runs)) = (stands.get(column), runs.get_mut(column)) {
                let run = load
                    .run(stand, client)
                    .with_context(|| format!("{} on {}", load.name(), stand.name()))?;
                if let Some(why) = &run.in_mode_map {
                    let (load, share) = (load.name(), stand.name());
                    progress.line(format!(
                        "{load}, {share}, round {}: it worked in mode map: {why}",
                        round + 1
                    ));
                }
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// A directory of its own for each run, so that none finds what another left.
fn remove(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str], operations: bool) -> Result<Vec<&'static str>> {
        let of: Vec<_> = of.iter().map(|part| (*part).to_owned()).collect();
        let choice = Choice::new(true, &of, operations)?;
        let loads = choice.loads.iter().map(Load::name);
        let counted = choice.operations.iter().map(|operation| operation.load);
        Ok(loads.chain(counted).collect())
    }

    #[test]
    fn loads_are_chosen_by_a_part_of_their_names_and_an_unknown_one_is_an_error() {
        assert_eq!(names(&[], false).expect("all").len(), 5 + 4);
        let some = names(&["renames", "1 MiB"], false).expect("two");
        assert_eq!(some, ["1 MiB sequential writes", RENAMES]);
        let error = names(&["renames", "rename it"], false).expect_err("unknown");
        assert!(error.to_string().contains(SMALL_FILES), "{error}");
    }

    #[test]
    fn operations_are_counted_by_themselves_and_chosen_by_their_loads() {
        assert_eq!(names(&[], true).expect("all").len(), 4);
        assert_eq!(names(&["dbench"], true).expect("one"), [DBENCH_LOAD]);
        assert!(names(&["1 MiB"], true).is_err(), "it is not counted");
    }
}
