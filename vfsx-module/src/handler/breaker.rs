//! Circuit breaker: a handler that does not answer is left alone for a while, so that not every call waits for it.

use super::Failure;
use std::time::{Duration, Instant};

/// Pause while nobody listens: an attempt costs microseconds.
const ABSENT_PAUSE: Duration = Duration::from_secs(1);
/// First pause after a failure that cost time, in time-outs: it slows a client down by at most a tenth.
const PAUSE_IN_TIMEOUTS: u32 = 10;
/// Longest pause, unless the time-outs are long.
const MAX_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Breaker {
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    again: Instant,
    /// Of the last failure that cost time.
    pause: Option<Duration>,
    /// Operations since the first failure that nobody was asked about, or about which nobody answered.
    missed: u64,
}

impl Breaker {
    /// Whether to try; `false` during a pause, which counts as an operation missed.
    pub(super) fn may_ask(&mut self, now: Instant) -> bool {
        match &mut self.failing {
            Some(failing) if now < failing.again => {
                failing.missed += 1;
                false
            }
            _ => true,
        }
    }

    /// A question had no answer. `true` when it is the first of a row.
    pub(super) fn failed(&mut self, failure: &Failure, timeout: Duration, now: Instant) -> bool {
        let before = self.failing.take();
        let is_first = before.is_none();
        let (missed, last) = before.map_or((0, None), |failing| (failing.missed, failing.pause));
        let first = timeout * PAUSE_IN_TIMEOUTS;
        let (wait, pause) = match failure {
            Failure::Absent(_) => (ABSENT_PAUSE, last),
            Failure::Gone | Failure::Slow | Failure::Nonsense(_) => {
                let pause = last.map_or(first, |last| (last * 2).min(MAX_PAUSE.max(first)));
                (pause, Some(pause))
            }
        };
        self.failing = Some(Failing {
            again: now + wait,
            pause,
            missed: missed + 1,
        });
        is_first
    }

    /// An answer came. Gives how many operations went without, when there was a failure before.
    pub(super) fn answered(&mut self) -> Option<u64> {
        self.failing.take().map(|failing| failing.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn absent() -> Failure {
        Failure::Absent(std::io::ErrorKind::NotFound.into())
    }

    #[test]
    fn pauses_after_time_outs_grow_to_their_limit_and_start_again_after_an_answer() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for (round, seconds) in [10, 20, 40, 60, 60].into_iter().enumerate() {
            assert!(breaker.may_ask(now));
            assert_eq!(breaker.failed(&Failure::Slow, TIMEOUT, now), round == 0);
            now += Duration::from_secs(seconds);
            assert!(!breaker.may_ask(now - Duration::from_millis(1)), "round {round}");
        }
        assert!(breaker.may_ask(now));
        assert_eq!(breaker.answered(), Some(10), "five time-outs, five in pauses");
        assert_eq!(breaker.answered(), None);
        assert!(breaker.failed(&Failure::Gone, TIMEOUT, now), "news again");
        assert!(breaker.may_ask(now + Duration::from_secs(10)));
    }

    #[test]
    fn an_absent_handler_is_looked_for_every_second() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..10 {
            breaker.failed(&absent(), TIMEOUT, now);
            now += ABSENT_PAUSE;
            assert!(breaker.may_ask(now));
        }
    }

    #[test]
    fn a_long_time_out_never_takes_more_than_a_tenth_of_the_time() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let timeout = Duration::from_secs(60);
        for _ in 0..3 {
            breaker.failed(&Failure::Slow, timeout, now);
            assert!(!breaker.may_ask(now + timeout * 10 - Duration::from_millis(1)));
        }
        assert!(breaker.may_ask(now + timeout * 10));
    }
}
