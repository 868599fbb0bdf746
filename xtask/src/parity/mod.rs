//! `cargo xtask parity`: Samba's own tests of its server, on a share with the module and on one without.

mod arena;
mod judge;
mod outcome;
mod report;
mod suites;
mod torture;

use crate::build::{self, Profile};
use crate::mode::{self, Mode};
use crate::report::Report;
use crate::{packages, rights};
use anyhow::{Context, Result, bail, ensure};
use arena::Arena;
use judge::{Case, Verdict};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc;
use suites::Suite;
use vfsx_tests::lab::{self, LabOptions};

/// Suites that touch what the module hooks, and take seconds.
const QUICK: &[&str] = &[
    "smb2.acls",
    "smb2.create",
    "smb2.dosmode",
    "smb2.ea",
    "smb2.mkdir",
    "smb2.rename",
    "smb2.rw",
    "smb2.setinfo",
    "smb2.streams",
    "smb2.timestamps",
    "smb2.winattr",
];
/// How often a suite that shows a difference is run again: whether the difference stays, and whether the plain share stays
/// with its result.
const SECOND_LOOKS: usize = 2;

#[derive(clap::Args)]
pub struct Arguments {
    /// Suites or tests of smbtorture, by pattern.
    #[arg(long, value_name = "GLOB", default_value = "smb2.*", conflicts_with = "quick")]
    suites: String,
    /// Some suites of a few seconds each.
    #[arg(long)]
    quick: bool,
    /// How the module tells writes; else as VFSX_TEST_MODE says, else map.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Suites at a time, each in a lab of its own.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    jobs: u16,
    /// Also write the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The programs are built already.
    #[arg(long, hide = true)]
    built: bool,
}

impl Arguments {
    fn mode(&self) -> lab::Mode {
        mode::chosen(self.mode)
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.built {
        packages::ensure(&["samba-testsuite"])?;
        build::prepare()?;
        build::everything(Profile::Dev)?;
    }
    rights::go_on_as_root("--built")?;
    let patterns = if arguments.quick {
        QUICK.to_vec()
    } else {
        vec![arguments.suites.as_str()]
    };
    let suites = suites::matching(&suites::all()?, &patterns)?;
    ensure!(
        !suites.is_empty(),
        "smbtorture has no suite {:?}: `smbtorture --list-suites` shows them",
        arguments.suites
    );
    // All suites see the same programs, whatever is built meanwhile.
    let programs = tempfile::tempdir().context("scratch directory")?;
    let binaries = build::binaries(Profile::Dev)?.copied_to(programs.path())?;
    let progress = Report::new();
    let tests: usize = suites.iter().map(|suite| suite.tests.len()).sum();
    progress.section(&format!(
        "{} suites, {tests} tests, each on a share with vfsx and on two without",
        suites.len()
    ));

    let options = arena::options(binaries, arguments.mode());
    let mut results = run_all(&suites, &options, usize::from(arguments.jobs), &progress)?;
    results.sort_by_key(|result| suites.iter().position(|suite| suite.name == result.name));
    report::print(&results);
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report::json(&results)?)? + "\n";
        fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    }
    let differences = results
        .iter()
        .flat_map(|result| &result.cases)
        .filter(|case| case.verdict() == Verdict::Different)
        .count();
    let lost = results.iter().filter(|result| result.replica.is_some()).count();
    if differences + lost > 0 {
        bail!("{differences} tests differ, {lost} replicas are not what the share is; the report is above");
    }
    Ok(())
}

/// A suite that has been run.
pub(crate) struct SuiteResult {
    name: String,
    cases: Vec<Case>,
    seconds: f32,
    /// What is wrong with the replica, if anything.
    replica: Option<String>,
}

/// Takes suites from a queue with so many threads as there may be labs.
fn run_all(
    suites: &[Suite],
    options: &LabOptions,
    jobs: usize,
    progress: &Report,
) -> Result<Vec<SuiteResult>> {
    let queue = Mutex::new(suites.iter());
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (queue, send) = (&queue, send.clone());
            scope.spawn(move || {
                loop {
                    let next = queue.lock().map(|mut queue| queue.next()).unwrap_or_default();
                    let Some(suite) = next else { return };
                    let result = run_suite(suite, options).with_context(|| suite.name.clone());
                    if send.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut results = Vec::new();
        for result in receive {
            let result = result?;
            progress.line(format!(
                "{:3} of {}  {}",
                results.len() + 1,
                suites.len(),
                report::line(&result)
            ));
            results.push(result);
        }
        Ok(results)
    })
}

/// Runs a suite; when it shows differences, again, since a test may fail once in a while on any share.
fn run_suite(suite: &Suite, options: &LabOptions) -> Result<SuiteResult> {
    let start = std::time::Instant::now();
    let mut cases: Vec<_> = suite.tests.iter().map(Case::new).collect();
    let mut replica = None;
    for _ in 0..=SECOND_LOOKS {
        let arena = Arena::open(options)?;
        for case in &mut cases {
            case.add(arena.run(&case.test)?);
        }
        replica = replica.or_else(|| arena.fault_of_replica());
        if cases.iter().all(|case| case.verdict() != Verdict::Different) {
            break;
        }
    }
    Ok(SuiteResult {
        name: suite.name.clone(),
        cases,
        seconds: start.elapsed().as_secs_f32(),
        replica,
    })
}
