//! What tests this machine's smbtorture has.

use anyhow::{Context, Result, ensure};
use glob::Pattern;
use std::process::Command;

/// Tests of one suite, in smbtorture's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) name: String,
    pub(super) tests: Vec<String>,
}

/// Every suite.
pub(super) fn all() -> Result<Vec<Suite>> {
    let names = list("--list-suites")?;
    let tests = list("--list")?;
    Ok(grouped(&names, &tests))
}

/// Suites that a pattern names, whole or with those of their tests that it names.
pub(super) fn matching(suites: &[Suite], patterns: &[&str]) -> Result<Vec<Suite>> {
    let patterns = patterns
        .iter()
        .map(|text| Pattern::new(text).with_context(|| format!("--suites {text:?} is no pattern")))
        .collect::<Result<Vec<_>>>()?;
    let fits = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
    let chosen = suites.iter().filter_map(|suite| {
        if fits(&suite.name) {
            return Some(suite.clone());
        }
        let tests: Vec<_> = suite.tests.iter().filter(|test| fits(test)).cloned().collect();
        (!tests.is_empty()).then(|| Suite {
            name: suite.name.clone(),
            tests,
        })
    });
    Ok(chosen.collect())
}

/// A test belongs to the suite with the longest name that its own begins with.
fn grouped(names: &[String], tests: &[String]) -> Vec<Suite> {
    let mut suites: Vec<_> = names
        .iter()
        .map(|name| Suite {
            name: name.clone(),
            tests: Vec::new(),
        })
        .collect();
    for test in tests {
        let owner = suites
            .iter_mut()
            .filter(|suite| {
                test.strip_prefix(&suite.name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
            .max_by_key(|suite| suite.name.len());
        if let Some(suite) = owner {
            suite.tests.push(test.clone());
        }
    }
    suites.retain(|suite| !suite.tests.is_empty());
    suites
}

fn list(option: &str) -> Result<Vec<String>> {
    let output = Command::new("smbtorture")
        .arg(option)
        .output()
        .context("run smbtorture (package samba-testsuite)")?;
    ensure!(
        output.status.success(),
        "smbtorture {option}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn tests_find_their_suite_though_names_begin_alike() {
        let suites = grouped(
            &words("smb2.durable-open smb2.durable-open-disconnect smb2.ioctl raw.ioctl"),
            &words(
                "Version smb2.durable-open.open smb2.durable-open-disconnect smb2.ioctl.copy-chunk smb2.ioctl.sparse.x",
            ),
        );
        let counts: Vec<_> = suites
            .iter()
            .map(|suite| (suite.name.as_str(), suite.tests.len()))
            .collect();
        assert_eq!(
            counts,
            [
                ("smb2.durable-open", 1),
                ("smb2.durable-open-disconnect", 1),
                ("smb2.ioctl", 2)
            ]
        );
        let names = |patterns: &[&str]| {
            let chosen = matching(&suites, patterns).expect("patterns");
            chosen
                .into_iter()
                .flat_map(|suite| suite.tests)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&["smb2.durable-*"]).len(), 2);
        assert_eq!(names(&["*.sparse.*"]), ["smb2.ioctl.sparse.x"]);
        assert_eq!(names(&["smb3.*"]), [""; 0]);
    }
}
