//! What is shown at the end.

use super::SuiteResult;
use super::judge::{Case, Verdict};
use super::outcome::Outcome;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One suite in one line.
pub(super) fn line(result: &SuiteResult) -> String {
    let count = |verdict| {
        result
            .cases
            .iter()
            .filter(|case| case.verdict() == verdict)
            .count()
    };
    let (same, flaky, different) = (
        count(Verdict::Same),
        count(Verdict::Flaky),
        count(Verdict::Different),
    );
    let mut text = format!("{}: {same} the same", result.name);
    if flaky > 0 {
        text += &format!(", {flaky} flaky");
    }
    if different > 0 {
        text += &format!(", {different} DIFFERENT");
    }
    if result.replica.is_some() {
        text += ", REPLICA NOT IDENTICAL";
    }
    text + &format!(" ({:.1} s)", result.seconds)
}

pub(super) fn print(results: &[SuiteResult]) {
    let cases = || results.iter().flat_map(|result| &result.cases);
    let with = |verdict| cases().filter(move |case| case.verdict() == verdict);
    for case in with(Verdict::Flaky) {
        println!("\nflaky: {}", case.test);
        runs("without", &case.plain);
    }
    for case in with(Verdict::Different) {
        println!("\nDIFFERENT: {}", case.test);
        runs("without", &case.plain);
        runs("with", &case.vfsx);
    }
    for (name, replica) in results
        .iter()
        .filter_map(|result| Some((&result.name, result.replica.as_ref()?)))
    {
        println!("\nREPLICA NOT IDENTICAL after {name}:\n{replica}");
    }
    println!(
        "\n{:<10} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "tests", "success", "failure", "error", "skip"
    );
    for (name, verdict) in [
        ("same", Verdict::Same),
        ("flaky", Verdict::Flaky),
        ("different", Verdict::Different),
    ] {
        let count = |word: &str| with(verdict).filter(|case| word_of(case) == word).count();
        println!(
            "{name:<10} {:>8} {:>8} {:>8} {:>8} {:>8}",
            with(verdict).count(),
            count("success"),
            count("failure"),
            count("error"),
            count("skip")
        );
    }
    println!("(results of the first run without the module)");
}

pub(super) fn json(results: &[SuiteResult]) -> Result<Value> {
    let suites: Vec<_> = results
        .iter()
        .map(|result| {
            let tests = result.cases.iter().map(|case| {
                json!({ "test": case.test, "verdict": case.verdict(), "without": case.plain, "with": case.vfsx })
            });
            json!({
                "suite": result.name, "seconds": result.seconds, "replica_identical": result.replica.is_none(),
                "replica_differences": result.replica, "tests": tests.collect::<Vec<_>>()
            })
        })
        .collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::from([("same", 0), ("flaky", 0), ("different", 0)]);
    for case in results.iter().flat_map(|result| &result.cases) {
        let name = match case.verdict() {
            Verdict::Same => "same",
            Verdict::Flaky => "flaky",
            Verdict::Different => "different",
        };
        *counts.entry(name).or_default() += 1;
    }
    Ok(json!({ "counts": counts, "suites": suites }))
}

fn word_of(case: &Case) -> &'static str {
    case.plain.first().map_or("", Outcome::word)
}

/// Equal outcomes in one line, with their number.
fn runs(name: &str, outcomes: &[Outcome]) {
    let mut counted: Vec<(&Outcome, usize)> = Vec::new();
    for outcome in outcomes {
        match counted.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, count)) => *count += 1,
            None => counted.push((outcome, 1)),
        }
    }
    for (outcome, count) in counted {
        println!("  {name:<8} {count} x {} {}", outcome.word(), outcome.text());
    }
}
