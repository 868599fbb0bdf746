//! The wall clock as it was lately. Files have their times from it, and somebody may set it at any moment.

use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::time::Duration;

/// A difference that is no drift.
const STEP: i64 = 1_000_000_000;

/// Nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Of the clock that nobody sets, which goes on in a suspended machine.
    pub(super) running: i64,
    pub(super) wall: i64,
}

impl Now {
    pub(super) fn look() -> Self {
        let ns = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(time.tv_nsec)
        };
        Self {
            running: ns(ClockId::Boottime),
            wall: ns(ClockId::Realtime),
        }
    }
}

/// How far the wall clock is ahead of the other, now and before it was set.
#[derive(Debug)]
pub(super) struct WallClock {
    ahead: i64,
    /// Until when, by the running clock, and how far it was ahead then.
    before: VecDeque<(i64, i64)>,
    lately: i64,
}

impl WallClock {
    /// Remembers for so long how it was. `earlier`: a time of which it is known only that it was not long ago.
    pub(super) fn new(lately: Duration, now: Now, earlier: Option<i64>) -> Self {
        let before = earlier.map(|earlier| (now.running, earlier - now.running));
        Self {
            ahead: now.wall - now.running,
            before: before.into_iter().collect(),
            lately: i64::try_from(lately.as_nanos()).unwrap_or(i64::MAX),
        }
    }

    /// Whether it was set since the last look.
    pub(super) fn was_set(&mut self, now: Now) -> bool {
        let ahead = now.wall - now.running;
        let before = std::mem::replace(&mut self.ahead, ahead);
        let set = (ahead - before).abs() > STEP;
        if set {
            self.before.push_back((now.running, before));
        }
        let since = now.running - self.lately;
        self.before.retain(|(until, _)| *until >= since);
        set
    }

    /// What happened lately has no time from before the time that this gives, less how long ago it was.
    pub(super) fn earliest(&self, now: Now) -> i64 {
        let all = self.before.iter().map(|(_, ahead)| *ahead).chain([self.ahead]);
        now.running + all.min().unwrap_or(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3600 * SECOND;
    const NOON: i64 = 1_700_000_000 * SECOND;

    fn at(running: i64, wall: i64) -> Now {
        Now {
            running: running * SECOND,
            wall,
        }
    }

    fn clock() -> WallClock {
        WallClock::new(Duration::from_secs(60), at(100, NOON), None)
    }

    #[test]
    fn a_clock_that_only_drifts_was_not_set() {
        let mut clock = clock();
        let mut wall = NOON;
        for second in 101..500 {
            wall += SECOND + SECOND / 1000;
            assert!(!clock.was_set(at(second, wall)));
            assert_eq!(clock.earliest(at(second, wall)), wall);
        }
    }

    #[test]
    fn set_back_it_counts_at_once() {
        let mut clock = clock();
        let now = at(101, NOON - HOUR);
        assert!(clock.was_set(now));
        assert_eq!(clock.earliest(now), NOON - HOUR);
        assert!(!clock.was_set(at(102, NOON - HOUR + SECOND)), "once");
    }

    #[test]
    fn set_forward_the_times_of_before_count_as_long_as_what_has_them_may_be_lost() {
        let mut clock = clock();
        assert!(clock.was_set(at(110, NOON + HOUR)));
        assert_eq!(clock.earliest(at(110, NOON + HOUR)), NOON + 10 * SECOND);
        let later = at(170, NOON + HOUR + 60 * SECOND);
        assert!(!clock.was_set(later));
        assert_eq!(clock.earliest(later), NOON + 70 * SECOND);
        let later = at(171, NOON + HOUR + 61 * SECOND);
        assert!(!clock.was_set(later));
        assert_eq!(clock.earliest(later), later.wall);
    }

    #[test]
    fn what_the_run_before_had_noted_counts_for_as_long() {
        let mut clock = WallClock::new(Duration::from_secs(60), at(100, NOON + HOUR), Some(NOON));
        assert_eq!(clock.earliest(at(100, NOON + HOUR)), NOON);
        let later = at(161, NOON + HOUR + 61 * SECOND);
        assert!(!clock.was_set(later));
        assert_eq!(clock.earliest(later), later.wall);
    }
}
