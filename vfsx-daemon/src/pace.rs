//! How often something may be done: a few times at once, and in the long run not more often than every so often.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Pace {
    rest: Duration,
    /// What may be done ahead of its time.
    ahead: Duration,
    /// When the next is due in the long run.
    due: Instant,
}

impl Pace {
    pub(crate) fn new(rest: Duration, at_once: u32) -> Self {
        Self {
            rest,
            ahead: rest.saturating_mul(at_once),
            due: Instant::now(),
        }
    }

    /// When the next may be done; perhaps long ago.
    pub(crate) fn next(&self) -> Instant {
        self.due.checked_sub(self.ahead).unwrap_or(self.due)
    }

    pub(crate) fn done(&mut self) {
        self.done_at(Instant::now());
    }

    /// What was done ahead of its time, without asking, is not made up for: the next may be done a rest later.
    fn done_at(&mut self, now: Instant) {
        self.due = self.due.max(now).min(now + self.ahead) + self.rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_once_then_one_for_each_rest_and_a_quiet_time_is_not_saved_up() {
        let rest = Duration::from_millis(10);
        let mut pace = Pace::new(rest, 4);
        let mut now = pace.due;
        let mut run = |duration: Duration, now: &mut Instant| {
            let (mut count, end) = (0, *now + duration);
            loop {
                *now = pace.next().max(*now);
                if *now >= end {
                    return count;
                }
                pace.done_at(*now);
                count += 1;
            }
        };
        let busy = run(Duration::from_secs(1), &mut now);
        assert!((100..=105).contains(&busy), "{busy}");
        now += Duration::from_secs(60);
        let after_a_rest = run(rest, &mut now);
        assert!((4..=6).contains(&after_a_rest), "{after_a_rest}");
    }

    #[test]
    fn what_is_done_without_asking_is_not_made_up_for() {
        let rest = Duration::from_millis(10);
        let mut pace = Pace::new(rest, 4);
        let now = pace.due;
        for _ in 0..100_000 {
            pace.done_at(now);
        }
        assert_eq!(pace.next(), now + rest);
    }
}
