//! Calls of clients that are to return when the changes before them are durable: which of them wait, for what, and when
//! that ends. Pure: the caller gives the time, and what is known of the session's events.

use std::time::{Duration, Instant};
use vfsx_proto::Durability;

/// The wait of a call that cannot be left, of which there is one at most. Tickets of others are not 0.
pub const HERE: u64 = 0;
/// Longest time without a new try when one wait after the other has reached the limit.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What is known of the session's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Newest one.
    pub(super) last: u64,
    /// In vfsxd's journal up to here.
    pub(super) acknowledged: u64,
    /// At a site up to here. `committed <= acknowledged` but for the moment between two messages.
    pub(super) committed: u64,
    /// There is somebody who may answer.
    pub(super) connected: bool,
    /// Events were dropped: nothing is durable that is not known to be lost.
    pub(super) lost: bool,
}

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Journal,
    Site,
}

#[derive(Debug)]
struct Wait {
    ticket: u64,
    goal: Goal,
    sequence: u64,
    until: Instant,
    /// The call falls back whatever comes of this.
    counted: bool,
}

/// After a wait that has reached the limit there is none until what it waited for is there, so one that is away costs one
/// limit. When the next ends the same way, a rest of growing length comes on top.
#[derive(Debug, Default)]
struct Rest {
    failures: u32,
    behind: u64,
    until: Option<Instant>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Waits {
    level: Durability,
    limit: Duration,
    open: Vec<Wait>,
    /// Tickets whose waits have ended.
    ended: Vec<u64>,
    journal: Rest,
    site: Rest,
    /// Newest event that was waited for at a site.
    wanted: u64,
    pub(super) calls: u64,
    pub(super) fallbacks: u64,
}

impl Waits {
    pub(super) fn new(level: Durability, limit: Duration) -> Self {
        Self {
            level,
            limit,
            open: Vec::new(),
            ended: Vec::new(),
            journal: Rest::default(),
            site: Rest::default(),
            wanted: 0,
            calls: 0,
            fallbacks: 0,
        }
    }

    /// Whether calls wait at all.
    pub(super) fn is_on(&self) -> bool {
        self.level != Durability::Noted
    }

    /// A call is to return when everything noted is durable. `None`: at once, because it is, or because waiting is of no
    /// use. Else it waits at most so long.
    pub(super) fn begin(&mut self, ticket: u64, known: Known, now: Instant) -> Option<Duration> {
        let goal = match self.level {
            Durability::Noted => return None,
            Durability::Journal => Goal::Journal,
            Durability::Remote => Goal::Site,
        };
        self.calls += 1;
        if !known.lost && known.reached(goal) >= known.last {
            return None;
        }
        if known.lost || !known.connected {
            self.fallbacks += 1;
            return None;
        }
        if !self.rest(goal).holds(known.reached(goal), now) {
            return Some(self.open(ticket, goal, known, now, false));
        }
        self.fallbacks += 1;
        // That the site is away is no reason to do without the journal.
        let journal = known.acknowledged < known.last && !self.journal.holds(known.acknowledged, now);
        (goal == Goal::Site && journal).then(|| self.open(ticket, Goal::Journal, known, now, true))
    }

    fn open(&mut self, ticket: u64, goal: Goal, known: Known, now: Instant, counted: bool) -> Duration {
        if goal == Goal::Site {
            self.wanted = self.wanted.max(known.last);
        }
        self.open.push(Wait {
            ticket,
            goal,
            sequence: known.last,
            until: now + self.limit,
            counted,
        });
        self.limit
    }

    /// Ends the waits that have come to an end. One that has reached the limit takes along all for the same goal: they wait
    /// for newer events.
    pub(super) fn update(&mut self, known: Known, now: Instant) {
        for goal in [Goal::Journal, Goal::Site] {
            let reached = known.reached(goal);
            if self.end(|wait| wait.goal == goal && wait.sequence <= reached) > 0 {
                *self.rest(goal) = Rest::default();
            }
            let late = self.open.iter().filter(|w| w.goal == goal && w.until <= now);
            if let Some(sequence) = late.map(|wait| wait.sequence).min() {
                let limit = self.limit;
                self.rest(goal).begin(sequence, limit, now);
                // It was the journal that the site has waited for.
                if goal == Goal::Site && known.acknowledged < sequence {
                    self.journal.begin(sequence, limit, now);
                }
                self.fall_back(|wait| wait.goal == goal);
            }
        }
        if !known.connected || known.lost {
            self.fall_back(|_| true);
        }
    }

    /// The limit of this wait is reached, by another clock than `now`.
    pub(super) fn expire(&mut self, ticket: u64, known: Known, now: Instant) {
        for wait in &mut self.open {
            if wait.ticket == ticket {
                wait.until = now;
            }
        }
        self.update(known, now);
    }

    /// Who waits is gone.
    pub(super) fn forget(&mut self, ticket: u64) {
        self.open.retain(|wait| wait.ticket != ticket);
        self.ended.retain(|ended| *ended != ticket);
    }

    /// Nobody will answer any more.
    pub(super) fn give_up(&mut self) {
        self.fall_back(|_| true);
    }

    pub(super) fn until(&self, ticket: u64) -> Option<Instant> {
        let wait = self.open.iter().find(|wait| wait.ticket == ticket);
        wait.map(|wait| wait.until)
    }

    /// The tickets of waits that have ended since the last call.
    pub(super) fn take_ended(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ended)
    }

    /// The newest event that somebody has waited for at a site, also when that has reached its limit: when it gets there,
    /// waiting is of use again.
    pub(super) fn wanted(&self) -> u64 {
        self.wanted
    }

    fn rest(&mut self, goal: Goal) -> &mut Rest {
        match goal {
            Goal::Journal => &mut self.journal,
            Goal::Site => &mut self.site,
        }
    }

    fn fall_back(&mut self, which: impl Fn(&Wait) -> bool) {
        let uncounted = |wait: &&Wait| which(wait) && !wait.counted;
        self.fallbacks += self.open.iter().filter(uncounted).count() as u64;
        self.end(which);
    }

    /// How many.
    fn end(&mut self, which: impl Fn(&Wait) -> bool) -> usize {
        let before = self.open.len();
        let ended = &mut self.ended;
        self.open.retain(|wait| {
            let ends = which(wait);
            if ends && wait.ticket != HERE {
                ended.push(wait.ticket);
            }
            !ends
        });
        before - self.open.len()
    }
}

impl Known {
    fn reached(&self, goal: Goal) -> u64 {
        match goal {
            Goal::Journal => self.acknowledged,
            Goal::Site => self.committed,
        }
    }
}

impl Rest {
    fn holds(&self, reached: u64, now: Instant) -> bool {
        self.failures > 0 && (reached < self.behind || self.until.is_some_and(|until| now < until))
    }

    fn begin(&mut self, sequence: u64, limit: Duration, now: Instant) {
        // The first is over as soon as what was waited for is there: a vfsxd that was restarted is waited for again at once.
        let doubled = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let rest = limit.saturating_mul(doubled).min(LONGEST_REST);
        self.until = (self.failures > 0).then(|| now + rest);
        self.failures = self.failures.saturating_add(1);
        self.behind = sequence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_millis(1000);

    fn known(last: u64, acknowledged: u64, committed: u64) -> Known {
        Known {
            last,
            acknowledged,
            committed,
            connected: true,
            lost: false,
        }
    }

    #[test]
    fn what_is_durable_already_is_not_waited_for() {
        let now = Instant::now();
        let mut waits = Waits::new(Durability::Journal, LIMIT);
        assert_eq!(waits.begin(1, known(5, 5, 0), now), None);
        assert_eq!((waits.calls, waits.fallbacks), (1, 0));
        let mut waits = Waits::new(Durability::Remote, LIMIT);
        assert_eq!(waits.begin(1, known(5, 5, 5), now), None);
        assert_eq!(
            waits.begin(2, known(5, 5, 4), now),
            Some(LIMIT),
            "acknowledged is not enough"
        );
        let mut waits = Waits::new(Durability::Noted, LIMIT);
        assert_eq!(waits.begin(1, known(5, 0, 0), now), None);
        assert_eq!((waits.calls, waits.fallbacks), (0, 0));
    }

    #[test]
    fn a_wait_ends_with_its_own_event_and_not_before() {
        let now = Instant::now();
        let mut waits = Waits::new(Durability::Journal, LIMIT);
        waits.begin(1, known(5, 0, 0), now);
        waits.begin(2, known(7, 0, 0), now);
        waits.update(known(9, 4, 9), now);
        assert_eq!(waits.take_ended(), []);
        waits.update(known(9, 5, 0), now);
        assert_eq!(waits.take_ended(), [1]);
        waits.update(known(9, 9, 0), now);
        assert_eq!(waits.take_ended(), [2]);
        assert_eq!((waits.calls, waits.fallbacks), (2, 0));
    }

    #[test]
    fn a_vfsxd_that_hangs_costs_one_limit_and_is_waited_for_again_when_it_has_caught_up() {
        let now = Instant::now();
        let mut waits = Waits::new(Durability::Journal, LIMIT);
        waits.begin(1, known(5, 0, 0), now);
        waits.begin(2, known(6, 0, 0), now + LIMIT / 2);
        waits.update(known(6, 0, 0), now + LIMIT);
        assert_eq!(
            waits.take_ended(),
            [1, 2],
            "the second waits for more than the first"
        );
        assert_eq!(waits.begin(3, known(7, 4, 0), now + LIMIT), None);
        assert_eq!((waits.calls, waits.fallbacks), (3, 3));
        assert!(waits.begin(4, known(8, 5, 0), now + LIMIT).is_some());
        waits.update(known(8, 8, 0), now + LIMIT);
        assert!(
            waits.begin(5, known(9, 8, 0), now + LIMIT).is_some(),
            "it was in time"
        );
    }

    #[test]
    fn a_vfsxd_that_is_always_late_is_tried_ever_more_rarely() {
        let mut now = Instant::now();
        let mut waits = Waits::new(Durability::Journal, LIMIT);
        let mut last = 0;
        let mut rests = Vec::new();
        for _ in 0..10 {
            last += 1;
            assert!(waits.begin(1, known(last, last - 1, 0), now).is_some());
            now += LIMIT;
            waits.update(known(last, last - 1, 0), now);
            // What was waited for comes a moment later.
            let mut rest = Duration::ZERO;
            while waits.journal.holds(last, now) {
                now += LIMIT;
                rest += LIMIT;
            }
            rests.push(rest.as_secs());
        }
        assert_eq!(rests, [0, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn without_a_connection_nothing_waits_and_all_is_counted() {
        let now = Instant::now();
        let mut waits = Waits::new(Durability::Remote, LIMIT);
        waits.begin(1, known(5, 0, 0), now);
        let away = Known {
            connected: false,
            ..known(6, 0, 0)
        };
        waits.update(away, now);
        assert_eq!(waits.take_ended(), [1]);
        assert_eq!(waits.begin(2, away, now), None);
        assert_eq!((waits.calls, waits.fallbacks), (2, 2));
    }

    #[test]
    fn after_dropped_events_nothing_is_taken_for_durable() {
        let now = Instant::now();
        let mut waits = Waits::new(Durability::Journal, LIMIT);
        let lost = Known {
            lost: true,
            ..known(5, 5, 5)
        };
        assert_eq!(waits.begin(1, lost, now), None);
        assert_eq!(waits.fallbacks, 1);
    }

    #[test]
    fn while_the_site_is_away_the_journal_is_still_waited_for() {
        let now = Instant::now();
        let mut waits = Waits::new(Durability::Remote, LIMIT);
        waits.begin(1, known(5, 0, 0), now);
        waits.update(known(5, 5, 0), now + LIMIT);
        assert_eq!(waits.take_ended(), [1]);
        assert!(waits.begin(2, known(6, 5, 0), now + LIMIT).is_some());
        waits.update(known(6, 6, 0), now + LIMIT);
        assert_eq!(waits.take_ended(), [2]);
        assert_eq!((waits.calls, waits.fallbacks), (2, 2));
        assert_eq!(
            waits.wanted(),
            5,
            "no more is asked of the site until it has that"
        );
    }

    #[test]
    fn a_vfsxd_that_hangs_is_not_waited_for_twice_because_a_site_was_asked_for() {
        let now = Instant::now();
        let mut waits = Waits::new(Durability::Remote, LIMIT);
        waits.begin(1, known(5, 0, 0), now);
        waits.expire(1, known(5, 4, 0), now + LIMIT);
        assert_eq!(waits.begin(2, known(6, 4, 0), now + LIMIT), None);
        assert_eq!((waits.calls, waits.fallbacks), (2, 2));
    }

    #[test]
    fn a_request_that_is_gone_is_never_ended() {
        let now = Instant::now();
        let mut waits = Waits::new(Durability::Journal, LIMIT);
        waits.begin(1, known(5, 0, 0), now);
        waits.forget(1);
        waits.begin(2, known(5, 0, 0), now);
        waits.update(known(5, 5, 0), now);
        waits.forget(2);
        assert_eq!(waits.take_ended(), []);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Note,
        Call,
        Acknowledge(u64),
        Commit(u64),
        Pass(u64),
        Connect(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Note),
            4 => Just(Step::Call),
            3 => (0u64..6).prop_map(Step::Acknowledge),
            3 => (0u64..6).prop_map(Step::Commit),
            3 => (0u64..1500).prop_map(Step::Pass),
            1 => any::<bool>().prop_map(Step::Connect),
        ]
    }

    proptest! {
        /// No call waits longer than the limit, each ends once, and each that was not counted as a fallback has what it
        /// waited for.
        #[test]
        fn every_call_ends_in_time_and_is_counted_right(steps in prop::collection::vec(step(), 0..120), remote: bool) {
            let level = if remote { Durability::Remote } else { Durability::Journal };
            let mut waits = Waits::new(level, LIMIT);
            let mut now = Instant::now();
            let mut at = known(0, 0, 0);
            let mut open = std::collections::BTreeMap::new();
            let (mut calls, mut kept) = (0u64, 0u64);
            for step in steps {
                match step {
                    Step::Note => at.last += 1,
                    Step::Call => {
                        calls += 1;
                        if waits.begin(calls, at, now).is_some() {
                            open.insert(calls, (at.last, now + LIMIT));
                        } else if remote && at.committed >= at.last || !remote && at.acknowledged >= at.last {
                            kept += 1;
                        }
                    }
                    Step::Acknowledge(behind) => at.acknowledged = at.acknowledged.max(at.last.saturating_sub(behind)),
                    Step::Commit(behind) => at.committed = at.committed.max(at.acknowledged.saturating_sub(behind)),
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                    Step::Connect(connected) => at.connected = connected,
                }
                waits.update(at, now);
                for ticket in waits.take_ended() {
                    let (sequence, _) = open.remove(&ticket).expect("ends once");
                    let reached = if remote { at.committed } else { at.acknowledged };
                    kept += u64::from(reached >= sequence);
                }
                prop_assert!(open.values().all(|(_, until)| *until > now), "longer than the limit");
                prop_assert!(at.connected || open.is_empty());
            }
            waits.give_up();
            for ticket in waits.take_ended() {
                prop_assert!(open.remove(&ticket).is_some());
            }
            prop_assert!(open.is_empty());
            prop_assert_eq!(waits.calls, calls);
            prop_assert!(waits.fallbacks <= calls);
            prop_assert!(calls - waits.fallbacks <= kept, "{} of {calls} fell back, {kept} are durable", waits.fallbacks);
        }
    }
}
