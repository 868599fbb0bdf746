//! Reconciles a share without being asked: when a gap has been open for a while, and on a schedule. The scan is that of
//! `vfsxctl reconcile`.

use super::share::ShareEngine;
use crate::catalog::ScanState;
use crate::config;
use crate::intake::{Barriers, now_ns};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is asked whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Gaps that come again and again are closed ever more rarely, up to this (or `after_gap`, when that is longer). A share that was
/// without one for as long is one that has healed.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Gap,
    Schedule,
}

impl Why {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Schedule => "schedule",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: Instant,
    pub why: Why,
}

/// What is due next, for `status`.
#[derive(Default)]
pub(super) struct Next(Mutex<Option<Due>>);

impl Next {
    pub(super) fn get(&self) -> Option<Due> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, due: Option<Due>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }
}

/// Runs until it is dropped.
pub(super) async fn by_itself(share: Arc<ShareEngine>) {
    let options = share.reconcile();
    if options.after_gap.is_none() && options.every.is_none() {
        return;
    }
    let mut plan = Plan::new(options);
    loop {
        let facts = Facts::of(&share);
        let now = Instant::now();
        plan.watch(facts.gap, now);
        let next = plan.next(&facts, now);
        share.next_reconcile().set(next);
        let Some(due) = next.filter(|due| due.at <= now && facts.allow(due.why)) else {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        };
        tracing::info!(
            share = share.name(),
            why = due.why.as_str(),
            "the share is compared with the catalog"
        );
        match share.sync(|_| ()).await {
            Ok(_) => plan.done(due.why, Instant::now()),
            Err(error) => {
                tracing::warn!(
                    share = share.name(),
                    "a reconcile that is due has to wait: {error}"
                );
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

struct Facts {
    /// One that the catalog has: while the journal cannot take it, no scan would close it.
    gap: bool,
    scanning: bool,
    /// Modules that were connected before a start of vfsxd have said what they had to say, or are not waited for any more.
    heard: bool,
    /// Since the last scan began; `None`: it began in the future, so the clock was set back.
    since_scan: Option<Duration>,
}

impl Facts {
    fn of(share: &ShareEngine) -> Self {
        let status = share.catalog().status();
        let (_, awaited) = share.intake().sessions();
        let since_ns = now_ns().saturating_sub(status.scan.started_ns);
        Self {
            gap: status.gap.is_some(),
            scanning: status.scan.state != ScanState::Done,
            heard: awaited == 0 && share.barriers().is_some_and(Barriers::all_connected),
            since_scan: u64::try_from(since_ns).ok().map(Duration::from_nanos),
        }
    }

    /// A scan that runs may close the gap, and is one of the schedule.
    fn allow(&self, why: Why) -> bool {
        !self.scanning && (self.heard || why == Why::Schedule)
    }
}

/// Decides what is due when.
struct Plan {
    options: config::Reconcile,
    /// A gap is open: when it was seen first, or when a scan had not closed it.
    open: Option<Instant>,
    /// When the last one was closed.
    closed: Option<Instant>,
    /// Scans for gaps since there was none for long.
    tries: u32,
}

impl Plan {
    fn new(options: config::Reconcile) -> Self {
        Self {
            options,
            open: None,
            closed: None,
            tries: 0,
        }
    }

    fn watch(&mut self, gap: bool, now: Instant) {
        match (gap, self.open) {
            (true, None) => {
                let healed = |closed| now.saturating_duration_since(closed) >= self.longest();
                if self.closed.is_none_or(healed) {
                    self.tries = 0;
                }
                self.open = Some(now);
            }
            (false, Some(_)) => {
                self.open = None;
                self.closed = Some(now);
            }
            _ => {}
        }
    }

    fn next(&self, facts: &Facts, now: Instant) -> Option<Due> {
        let of = |why, at: Option<Instant>| at.map(|at| Due { at, why });
        let gap = self.open.zip(self.pause()).map(|(open, pause)| open + pause);
        let schedule = self.options.every.map(|every| {
            let left = facts.since_scan.map(|passed| every.saturating_sub(passed));
            now + left.unwrap_or_default()
        });
        let due = [of(Why::Gap, gap), of(Why::Schedule, schedule)];
        due.into_iter().flatten().min_by_key(|due| due.at)
    }

    /// A scan is done. It is still open: something was missed while it ran.
    fn done(&mut self, why: Why, now: Instant) {
        if why == Why::Gap {
            self.tries = self.tries.saturating_add(1);
        }
        self.open = self.open.map(|_| now);
    }

    fn pause(&self) -> Option<Duration> {
        let pause = self.options.after_gap?;
        let doubled = pause.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX));
        Some(doubled.min(self.longest()))
    }

    fn longest(&self) -> Duration {
        self.options.after_gap.map_or(LONGEST, |pause| pause.max(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn plan(after_gap: Option<Duration>, every: Option<Duration>) -> Plan {
        Plan::new(config::Reconcile { after_gap, every })
    }

    fn facts(since_scan: Option<Duration>) -> Facts {
        Facts {
            gap: false,
            scanning: false,
            heard: true,
            since_scan,
        }
    }

    fn next(plan: &Plan, now: Instant) -> Option<(Why, Duration)> {
        let due = plan.next(&facts(Some(MINUTE)), now)?;
        Some((due.why, due.at.saturating_duration_since(now)))
    }

    #[test]
    fn a_gap_is_left_open_for_a_while_and_for_good_when_it_is_to_be() {
        let now = Instant::now();
        let mut plan = plan(Some(MINUTE), None);
        assert_eq!(next(&plan, now), None);
        plan.watch(true, now);
        plan.watch(true, now + MINUTE / 2);
        assert_eq!(next(&plan, now), Some((Why::Gap, MINUTE)));
        assert_eq!(next(&plan, now + MINUTE), Some((Why::Gap, Duration::ZERO)));
        plan.watch(false, now + MINUTE);
        assert_eq!(next(&plan, now), None, "somebody else has closed it");
        let mut never = self::plan(None, None);
        never.watch(true, now);
        assert_eq!(next(&never, now), None);
    }

    #[test]
    fn gaps_that_come_again_and_again_are_closed_ever_more_rarely_until_there_was_none_for_long() {
        let mut now = Instant::now();
        let mut plan = plan(Some(MINUTE), None);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            plan.watch(true, now);
            let (_, pause) = next(&plan, now).expect("a gap is open");
            pauses.push(pause);
            now += pause;
            plan.done(Why::Gap, now);
            plan.watch(false, now);
            now += MINUTE;
        }
        assert!(pauses.is_sorted() && pauses[1] == 2 * MINUTE, "{pauses:?}");
        assert_eq!((pauses[0], pauses[39]), (MINUTE, LONGEST));
        now += LONGEST;
        plan.watch(true, now);
        assert_eq!(next(&plan, now), Some((Why::Gap, MINUTE)));
    }

    #[test]
    fn a_gap_that_a_scan_has_not_closed_is_waited_for_anew() {
        let now = Instant::now();
        let mut plan = plan(Some(MINUTE), None);
        plan.watch(true, now);
        plan.done(Why::Gap, now + MINUTE);
        plan.watch(true, now + MINUTE);
        assert_eq!(next(&plan, now + MINUTE), Some((Why::Gap, 2 * MINUTE)));
    }

    #[test]
    fn the_schedule_counts_from_the_last_scan_whoever_asked_for_it_and_a_clock_set_back_does_not_stop_it() {
        let now = Instant::now();
        let plan = plan(Some(MINUTE), Some(3 * MINUTE));
        assert_eq!(next(&plan, now), Some((Why::Schedule, 2 * MINUTE)));
        let due = plan.next(&facts(None), now).expect("there is a schedule");
        assert_eq!(due.at, now);
    }

    #[test]
    fn a_scan_for_a_gap_waits_for_modules_that_are_expected_back_and_none_begins_beside_another() {
        let mut facts = facts(None);
        assert!(facts.allow(Why::Gap) && facts.allow(Why::Schedule));
        facts.heard = false;
        assert!(!facts.allow(Why::Gap) && facts.allow(Why::Schedule));
        facts.scanning = true;
        assert!(!facts.allow(Why::Schedule));
    }
}
