//! Whether a test tells the shares apart.

use super::outcome::Outcome;
use serde::Serialize;

/// One test with the outcomes of its runs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Case {
    pub(super) test: String,
    /// On shares without the module, two a round.
    pub(super) plain: Vec<Outcome>,
    /// On the share with it, one a round.
    pub(super) vfsx: Vec<Outcome>,
}

/// Outcomes of the three shares.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) plain: [Outcome; 2],
    pub(super) vfsx: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Same,
    /// The plain share has no one result that another could be held against.
    Flaky,
    Different,
}

impl Case {
    pub(super) fn new(test: impl Into<String>) -> Self {
        Self {
            test: test.into(),
            plain: Vec::new(),
            vfsx: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, round: Round) {
        self.plain.extend(round.plain);
        self.vfsx.push(round.vfsx);
    }

    /// Only the plain share's runs excuse: a test that fails now and then with the module, and never without, is different.
    /// Texts count as far as they are the same in all plain runs.
    pub(super) fn verdict(&self) -> Verdict {
        let Some((first, rest)) = self.plain.split_first() else {
            return Verdict::Same;
        };
        if rest.iter().any(|outcome| !outcome.same_result(first)) {
            return Verdict::Flaky;
        }
        let text_is_stable = rest.iter().all(|outcome| outcome == first);
        let fits = |outcome: &Outcome| outcome.same_result(first) && (!text_is_stable || outcome == first);
        if self.vfsx.iter().all(fits) {
            Verdict::Same
        } else {
            Verdict::Different
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` is success, `?` no result, any other letter a failure with that text.
    fn outcomes(letters: &str) -> Vec<Outcome> {
        let outcome = |letter| match letter {
            '+' => Outcome::Success,
            '?' => Outcome::Error("no result".into()),
            other => Outcome::Failure(other.into()),
        };
        letters.chars().map(outcome).collect()
    }

    fn verdict(plain: &str, vfsx: &str) -> Verdict {
        let case = Case {
            test: "t".into(),
            plain: outcomes(plain),
            vfsx: outcomes(vfsx),
        };
        case.verdict()
    }

    #[test]
    fn a_difference_is_seen_unless_the_plain_share_differs_from_itself() {
        assert_eq!(verdict("++", "+"), Verdict::Same);
        assert_eq!(verdict("++", "a"), Verdict::Different);
        assert_eq!(verdict("aa", "+"), Verdict::Different, "better is different");
        assert_eq!(verdict("+a", "a"), Verdict::Flaky);
        assert_eq!(verdict("++", "?"), Verdict::Different);
    }

    #[test]
    fn a_fault_that_comes_and_goes_with_the_module_only_is_no_excuse() {
        assert_eq!(verdict("++++", "a+"), Verdict::Different);
    }

    #[test]
    fn texts_count_when_the_plain_share_always_gives_the_same() {
        assert_eq!(verdict("aa", "b"), Verdict::Different);
        assert_eq!(verdict("ab", "c"), Verdict::Same);
    }
}
