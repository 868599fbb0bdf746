//! When there is no use in written data: for a while sessions are to tell ranges only, which costs them less, and the share
//! works as in mode map.

use crate::catalog::status::Cuts as Counts;
use std::time::{Duration, Instant};

/// Until it is tried again, and at most, since each time in vain doubles it.
const REST: Duration = Duration::from_secs(15);
const REST_MAX: Duration = Duration::from_secs(300);
/// It was in vain when it ends so soon,
const SOON: Duration = Duration::from_secs(10);
/// unless there were so many exact states in between.
const EXACT_ENOUGH: u64 = 10;

#[derive(Default)]
pub(super) struct Rest {
    /// Of the last one.
    length: Duration,
    /// States that had been exact when it began.
    exact_before: u64,
}

impl Rest {
    /// Begins one, longer when the last was in vain.
    pub(super) fn begin(&mut self, counts: &mut Counts) {
        let now = Instant::now();
        let soon = |until| now < until + SOON + self.length;
        let in_vain = counts.exact < self.exact_before + EXACT_ENOUGH;
        self.length = match counts.rests_until.is_some_and(soon) && in_vain {
            true => (self.length * 2).min(REST_MAX),
            false => REST,
        };
        counts.rests_until = Some(now + self.length);
        self.exact_before = counts.exact;
        let why = counts.last_failure.as_deref().unwrap_or_default();
        tracing::warn!(why, rest = ?self.length, "exact states cannot be had: written data is of no use for a while");
    }
}

/// Clients have paused: whatever kept states from being exact has its end.
pub(super) fn end(counts: &mut Counts) {
    counts.rests_until = Some(Instant::now());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(rest: &mut Rest, counts: &mut Counts) -> Duration {
        rest.begin(counts);
        assert!(counts.rests());
        rest.length
    }

    /// The time passes.
    fn pass(counts: &mut Counts, time: Duration) {
        counts.rests_until = counts.rests_until.map(|until| until - time);
    }

    #[test]
    fn each_rest_in_vain_makes_the_next_one_longer() {
        let (mut rest, mut counts) = (Rest::default(), Counts::default());
        for expected in [REST, REST * 2, REST * 4, REST * 8, REST * 16, REST_MAX, REST_MAX] {
            assert_eq!(begin(&mut rest, &mut counts), expected);
            pass(&mut counts, expected);
            assert!(!counts.rests());
            counts.exact += 1;
        }
        pass(&mut counts, REST_MAX + SOON);
        assert_eq!(begin(&mut rest, &mut counts), REST, "it was good for long");
        pass(&mut counts, REST);
        assert_eq!(begin(&mut rest, &mut counts), REST * 2);
        pass(&mut counts, REST * 2);
        counts.exact += EXACT_ENOUGH;
        assert_eq!(begin(&mut rest, &mut counts), REST, "it was not in vain");
        end(&mut counts);
        assert!(!counts.rests());
    }
}
