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
            name: "dbench load, 4 clients",
            seconds: 40 / part,
        },
        client("1 MiB sequential writes", "MiB/s", "sequential", 1000, 1 << 20, 0),
        client(
            "4 KiB random writes",
            "writes/s",
            "random",
            50_000,
            4096,
            256 << 20,
        ),
        client("small files", "files/s", "files", 10_000, 4096, 0),
        client("renames", "renames/s", "renames", 10_000, 0, 0),
    ]
}

/// Whether [`run`] knows loads with these parts in their names.
pub(super) fn check(of: &[String]) -> Result<()> {
    chosen(loads(false), of).map(drop)
}

/// `of`: parts of the names of those that are measured; none: all are.
fn chosen(mut loads: Vec<Load>, of: &[String]) -> Result<Vec<Load>> {
    if let Some(part) = of
        .iter()
        .find(|part| !loads.iter().any(|load| load.name().contains(*part)))
    {
        let names: Vec<_> = loads.iter().map(Load::name).collect();
        bail!("no load has {part:?} in its name: {}", names.join("; "));
    }
    loads.retain(|load| of.is_empty() || of.iter().any(|part| load.name().contains(part)));
    Ok(loads)
}

pub(super) fn run(quick: bool, of: &[String], profile: Profile) -> Result<Report> {
    let loads = chosen(loads(quick), of)?;
    let scratch = tempfile::tempdir().context("scratch directory")?;
    let client = Client::build(scratch.path())?;
    let binaries = build::binaries(profile)?;
    let cores = Halves::new()?;
    let stands = COLUMNS
        .iter()
        .map(|column| Stand::start(column, &binaries, &cores))
        .collect::<Result<Vec<_>>>()?;
    cores.keep_clients()?;
    let rounds = if quick { QUICK_ROUNDS } else { ROUNDS };
    let progress = Progress::new();
    progress.section(&format!("shares side by side, {rounds} rounds of every load"));
    let mut rows = Vec::new();
    for load in loads {
        let runs = measure(&load, &stands, &client, rounds)?;
        let row = Row::new(&load, &runs);
        progress.line(row.line());
        rows.push(row);
    }
    let operations = if of.is_empty() {
        progress.section("instructions and system calls of smbd for one operation more");
        operations::measure(&stands, &client, scratch.path(), &mut |text| progress.line(text))?
    } else {
        Vec::new()
    };
    let report = Report {
        rounds,
        rows,
        operations,
    };
    report.print();
    Ok(report)
}

/// Runs of one load: for each column its rounds. Columns take turns, each round beginning with another, so that what changes
/// with time changes for all.
fn measure(load: &Load, stands: &[Stand], client: &Client, rounds: usize) -> Result<Vec<Vec<Run>>> {
    let mut runs = vec![Vec::new(); stands.len()];
    for round in 0..rounds {
        for turn in 0..stands.len() {
            let column = (round + turn) % stands.len();
            if let (Some(stand), Some(runs)) = (stands.get(column), runs.get_mut(column)) {
                let run = load
                    .run(stand, client)
                    .with_context(|| format!("{} on {}", load.name(), stand.name()))?;
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

    #[test]
    fn loads_are_chosen_by_a_part_of_their_names_and_an_unknown_one_is_an_error() {
        let names = |of: &[&str]| -> Result<Vec<_>> {
            let of: Vec<_> = of.iter().map(|part| (*part).to_owned()).collect();
            Ok(chosen(loads(true), &of)?.iter().map(Load::name).collect())
        };
        assert_eq!(names(&[]).expect("all").len(), 5);
        let some = names(&["renames", "1 MiB"]).expect("two");
        assert_eq!(some, ["1 MiB sequential writes", "renames"]);
        let error = names(&["renames", "rename it"]).expect_err("unknown");
        assert!(error.to_string().contains("small files"), "{error}");
    }
}
