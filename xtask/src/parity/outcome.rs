//! What smbtorture says of a test, made comparable between shares.

use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase", tag = "result", content = "text")]
pub(super) enum Outcome {
    Success,
    Skip(String),
    Failure(String),
    /// No result: smbtorture ended without one, or did not end.
    Error(String),
}

impl Outcome {
    /// Of a test in smbtorture's output in the format `subunit`. `share` is its share's name.
    pub(super) fn read(output: &str, share: &str) -> Self {
        let mut worst = None;
        let mut lines = output.lines();
        while let Some(line) = lines.next() {
            let Some((word, rest)) = line.split_once(": ") else {
                continue;
            };
            let mut text = || match rest.ends_with('[') {
                true => normal(
                    &lines
                        .by_ref()
                        .take_while(|line| *line != "]")
                        .collect::<Vec<_>>()
                        .join(" "),
                    share,
                ),
                false => String::new(),
            };
            let outcome = match word {
                "success" => Self::Success,
                "skip" => Self::Skip(text()),
                "failure" => Self::Failure(text()),
                "error" => Self::Error(text()),
                _ => continue,
            };
            // A name may stand for several tests.
            worst = worst.max(Some(outcome));
        }
        worst.unwrap_or_else(|| Self::Error("no result".to_owned()))
    }

    pub(super) fn same_result(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Skip(_) => "skip",
            Self::Failure(_) => "failure",
            Self::Error(_) => "error",
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Success => "",
            Self::Skip(text) | Self::Failure(text) | Self::Error(text) => text,
        }
    }
}

/// Digits from which on a number is an address, a time, a process or an identity rather than a count.
const LONG_NUMBER: usize = 5;

/// The text without what differs from run to run: long numbers and the share's name.
fn normal(text: &str, share: &str) -> String {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let mut normal = String::new();
        for part in parts(word) {
            let digits = part.strip_prefix("0x").unwrap_or(part);
            let is_number = digits.len() >= LONG_NUMBER
                && digits.bytes().any(|b| b.is_ascii_digit())
                && digits.bytes().all(|b| b.is_ascii_hexdigit());
            normal.push_str(match part {
                _ if part == share => "SHARE",
                _ if is_number => "N",
                _ => part,
            });
        }
        words.push(normal);
    }
    words.join(" ")
}

/// Runs of letters and digits, and what is between them.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.is_alphanumeric();
        let end = rest
            .find(|c: char| c.is_alphanumeric() != first)
            .unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        rest = tail;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_their_texts_are_found_between_what_tests_print() {
        let output = "smbtorture 4.17\nUsing seed 1795399873\ntime: 2026-11-23 02:11:09.29\ntest: smb2.rename.x\nfailure: none of these\n\
                      failure: smb2.rename.x [\n(a.c:803) Incorrect status\nin 1795399873 of data, pid 42\n]\n";
        let Outcome::Failure(text) = Outcome::read(output, "data") else {
            panic!("no failure")
        };
        assert_eq!(text, "(a.c:803) Incorrect status in N of SHARE, pid 42");
        assert_eq!(Outcome::read("test: a\nsuccess: a\n", "data"), Outcome::Success);
        assert!(
            matches!(Outcome::read("skip: a [\nno snapshot\n]\n", "data"), Outcome::Skip(text) if text == "no snapshot")
        );
    }

    #[test]
    fn a_test_without_a_result_is_an_error() {
        assert!(matches!(
            Outcome::read("smbtorture 4.17\ntest: a\n", "data"),
            Outcome::Error(_)
        ));
    }

    #[test]
    fn the_worst_result_of_several_counts() {
        let output = "success: a\nfailure: b [\nx\n]\nskip: c [\ny\n]\n";
        assert_eq!(Outcome::read(output, "data"), Outcome::Failure("x".into()));
    }

    #[test]
    fn what_tells_two_runs_apart_is_taken_out_and_the_rest_is_kept() {
        assert_eq!(
            normal(
                "0x7f3a2b10 at plain2/plain: got 0x1f want 3,\n 1795399873.123456",
                "plain"
            ),
            "N at plain2/SHARE: got 0x1f want 3, N.N"
        );
    }
}
