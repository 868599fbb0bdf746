//! Modules whose clients wait until their changes are at a site, and what modules tell of their clients' waits.

use super::share::{ShareIntake, State};
use crate::journal::Session;
use lru::LruCache;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use tokio::sync::watch;
use vfsx_proto::{Durability, Waits};

/// Questions of one module that wait for their answers. Beyond, the newest is put together with the one before it, which
/// answers that one later and never too early.
const AWAITED_MAX: usize = 1024;
/// Sessions without a connection that are known one by one: what one tells when it comes back has in it what it told before.
/// Of one that was forgotten until then, that counts twice.
const AWAY_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// What is known of one connection.
pub(super) struct Commits {
    session: Session,
    durability: Durability,
    /// (journal record, event): when everything from records up to that one is at a site, everything up to the event is.
    awaited: VecDeque<(u64, u64)>,
    /// Newest event of the session that is at a site, for those that asked.
    tell: watch::Sender<u64>,
    waits: Waits,
}

impl Commits {
    fn new(session: Session, durability: Durability, waits: Waits) -> (Self, watch::Receiver<u64>) {
        let (tell, told) = watch::channel(0);
        let commits = Self {
            session,
            durability,
            awaited: VecDeque::new(),
            tell,
            waits,
        };
        (commits, told)
    }

    /// The session's clients wait for the journal, at least.
    pub(super) fn waits_for_disk(&self) -> bool {
        self.durability != Durability::Noted
    }

    fn await_commit(&mut self, journal: u64, sequence: u64) {
        if self.awaited.len() >= AWAITED_MAX {
            self.awaited.pop_back();
        }
        self.awaited.push_back((journal, sequence));
    }

    fn committed(&mut self, journal: u64) {
        let done = self.awaited.partition_point(|(record, _)| *record <= journal);
        if let Some((_, sequence)) = self.awaited.drain(..done).next_back() {
            self.tell
                .send_if_modified(|told| std::mem::replace(told, sequence.max(*told)) < sequence);
        }
    }
}

/// What sessions without a connection have waited, until they come back.
pub(super) struct Away(LruCache<Session, Waits>);

impl Default for Away {
    fn default() -> Self {
        Self(LruCache::new(AWAY_MAX))
    }
}

/// What a share's clients wait for, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurabilityFacts {
    /// Connected sessions of each level above `noted`.
    pub journal: usize,
    pub remote: usize,
    /// Since the start, and since the beginning of the sessions that were connected then.
    pub waits: Waits,
}

impl ShareIntake {
    /// The newest record that somebody waits for the commit of; changes when there is a newer one.
    pub fn wanted(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// Everything from records up to this one is at a site.
    pub fn committed(&self, journal: u64) {
        let mut state = self.lock();
        state.committed = state.committed.max(journal);
        for connected in state.connections.values_mut() {
            connected.commits.committed(journal);
        }
    }

    pub fn durability(&self) -> DurabilityFacts {
        let state = self.lock();
        let away = state.away.0.iter().map(|(_, waits)| *waits);
        let mut facts = DurabilityFacts {
            waits: away.fold(state.waits_before, sum),
            ..DurabilityFacts::default()
        };
        for connected in state.connections.values() {
            match connected.commits.durability {
                Durability::Noted => {}
                Durability::Journal => facts.journal += 1,
                Durability::Remote => facts.remote += 1,
            }
            facts.waits = sum(facts.waits, connected.commits.waits);
        }
        facts
    }

    /// A client waits until everything up to this event is at a site.
    pub(super) fn await_commit(&self, session: Session, id: u64, sequence: u64) {
        let mut state = self.lock();
        // What is dropped, or was not sent yet, is never committed: the module's limit ends the wait, and it asks again.
        if !state.is_current(session, id) || state.discarding || self.journal.written(session) < sequence {
            return;
        }
        let journal = self.journal.status().head;
        let committed = state.committed;
        if let Some(connected) = state.connections.get_mut(&session) {
            connected.commits.await_commit(journal, sequence);
            connected.commits.committed(committed);
        }
        self.wanted
            .send_if_modified(|wanted| std::mem::replace(wanted, journal.max(*wanted)) < journal);
    }

    /// What the session's clients have waited so far.
    pub(super) fn note_waits(&self, session: Session, id: u64, waits: Waits) {
        let mut state = self.lock();
        if state.is_current(session, id)
            && let Some(connected) = state.connections.get_mut(&session)
        {
            connected.commits.waits = waits;
        }
    }
}

impl State {
    /// A session connects; what it told before, by a connection of its own that was lost, it tells again.
    pub(super) fn commits_of(
        &mut self,
        session: Session,
        durability: Durability,
    ) -> (Commits, watch::Receiver<u64>) {
        let replaced = self.connections.get(&session).map(|old| old.commits.waits);
        let waits = replaced.or_else(|| self.away.0.pop(&session)).unwrap_or_default();
        Commits::new(session, durability, waits)
    }

    /// A session has no connection any more: what its clients have waited still counts.
    pub(super) fn keep_waits(&mut self, commits: &Commits) {
        if let Some((_, forgotten)) = self.away.0.push(commits.session, commits.waits) {
            self.waits_before = sum(self.waits_before, forgotten);
        }
    }
}

fn sum(a: Waits, b: Waits) -> Waits {
    Waits {
        calls: a.calls.saturating_add(b.calls),
        fallbacks: a.fallbacks.saturating_add(b.fallbacks),
        last_fallback_ns: a.last_fallback_ns.max(b.last_fallback_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits() -> (Commits, watch::Receiver<u64>) {
        Commits::new(Session([1; 16]), Durability::Remote, Waits::default())
    }

    #[test]
    fn an_event_is_told_when_its_record_is_committed_and_not_before() {
        let (mut commits, told) = commits();
        for (journal, sequence) in [(10, 1), (20, 2), (30, 3)] {
            commits.await_commit(journal, sequence);
        }
        let after = |commits: &mut Commits, journal| {
            commits.committed(journal);
            *told.borrow()
        };
        assert_eq!(after(&mut commits, 9), 0);
        assert_eq!(after(&mut commits, 10), 1);
        assert_eq!(after(&mut commits, 29), 2);
        assert_eq!(after(&mut commits, 100), 3);
        assert_eq!(commits.awaited.len(), 0);
    }

    #[test]
    fn questions_beyond_the_bound_are_answered_late_and_never_early() {
        let (mut commits, told) = commits();
        let last = AWAITED_MAX as u64 + 100;
        for sequence in 1..=last {
            commits.await_commit(sequence * 10, sequence);
        }
        assert_eq!(commits.awaited.len(), AWAITED_MAX);
        commits.committed(last * 10 - 1);
        assert_eq!(*told.borrow(), AWAITED_MAX as u64 - 1);
        commits.committed(last * 10);
        assert_eq!(*told.borrow(), last);
    }
}
