//! `treecompare A B [--json]`: prints how two directory trees differ. Exit 0: identical, 1: different, 2: usage or error.

use std::path::PathBuf;
use std::process::ExitCode;
use vfsx_tests::compare::{Options, Report, compare};

const USAGE: &str = "usage: treecompare A B [--json]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let mut json = false;
    let mut roots = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--json") => json = true,
            Some(option) if option.starts_with("--") => anyhow::bail!("unknown option {option}; {USAGE}"),
            _ => roots.push(PathBuf::from(argument)),
        }
    }
    let [a, b] = &roots[..] else { anyhow::bail!(USAGE) };
    let report: Report = compare(a, b, &Options::default())?;
    match json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => println!("{report}"),
    }
    Ok(report.identical)
}
