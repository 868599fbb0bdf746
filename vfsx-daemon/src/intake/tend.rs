//! What a share's intake does from time to time: gap flags, a journal that has failed, sessions that do not come back.

use super::flags::{self, Flag};
use super::memory::Memory;
use super::pending_gap::PendingGap;
use super::share::{COMES_BACK_WITHIN, ShareIntake, State, now_ns};
use crate::journal::{Body, Draft, GapReason, Session, SessionEnd};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// A disk that has not synced one record in this time is tried again with the next tending.
const SYNC_PATIENCE: Duration = Duration::from_secs(2);
/// Another tending that is under way is waited for this long.
const TURN_PATIENCE: Duration = Duration::from_secs(3);
/// What a module has sent before it left a flag is read long before this.
const ON_ITS_WAY: Duration = Duration::from_secs(10);
const TURN_POLL: Duration = Duration::from_millis(5);

/// Gap flags that were looked at without a verdict, each since when.
pub(super) type Undecided = BTreeMap<PathBuf, Instant>;

/// What a gap flag means.
enum Verdict {
    Gap,
    /// All it is about is in the journal, synced.
    NothingLost,
    /// It may still turn out that nothing is lost.
    NotYet,
}

impl ShareIntake {
    /// Done every second, and before a status or a scan: takes in what stands still in modules' memory, spool files and gap flags, gets a failed journal going again, ends
    /// sessions that did not come back. Blocks on the disk, for some seconds at most as far as a working kernel goes.
    pub fn tend(&self) {
        self.tend_as_of(Instant::now());
    }

    /// False when another one is under way for too long.
    pub(super) fn tend_as_of(&self, now: Instant) -> bool {
        let Some(mut undecided) = self.turn() else {
            return false;
        };
        self.notice_failed_sync();
        self.take_outboxes();
        self.take_spool();
        self.take_flags(&mut undecided, now);
        self.settle_pending_gap();
        let mut state = self.lock();
        // Who has left a file is over, or back, when that is taken in, however long the journal has no room for it.
        let is_overdue =
            |(session, by): &(&Session, &Instant)| **by <= now && !self.has_left(&self.left.spool, **session);
        let awaited = state.awaited.iter().filter(is_overdue);
        let overdue: Vec<Session> = awaited.map(|(session, _)| *session).collect();
        // Without its memory, as after a start, nobody can say what its process noted last: one that ends by itself leaves word.
        let was_killed = |session: &Session, memory: Option<Arc<Memory>>| {
            memory.is_none_or(|memory| self.was_killed(*session, &memory))
        };
        let mut killed = false;
        for session in &overdue {
            let memory = state.kept.remove(session);
            killed |= was_killed(session, memory);
        }
        if killed {
            self.note_kill(&mut state, "without a connection");
        }
        for session in overdue {
            state.awaited.remove(&session);
            self.end_session(&mut state, session, SessionEnd::NotBack);
        }
        for session in std::mem::take(&mut state.ended) {
            self.end_session(&mut state, session, SessionEnd::Closed);
        }
        true
    }

    /// The session's process has left word that it is over.
    pub(super) fn end_awaited(&self, state: &mut State, session: Session) {
        if !state.connections.contains_key(&session) && state.awaited.remove(&session).is_some() {
            state.kept.remove(&session);
            self.end_session(state, session, SessionEnd::Closed);
        }
    }

    /// One at a time, or a flag would be noted twice. `None`: the other one hangs on the disk.
    fn turn(&self) -> Option<MutexGuard<'_, Undecided>> {
        let until = Instant::now() + TURN_PATIENCE;
        loop {
            match self.tending.try_lock() {
                Ok(turn) => return Some(turn),
                Err(TryLockError::Poisoned(turn)) => return Some(turn.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(TURN_POLL),
                Err(TryLockError::WouldBlock) => return None,
            }
        }
    }

    /// What a failed sync has lost was not acknowledged, but a module that has ended cannot send it again.
    fn notice_failed_sync(&self) {
        let mut state = self.lock();
        if self.journal.status().failed && !state.discarding {
            state.discarding = true;
            self.raise(
                &mut state,
                PendingGap {
                    since_ns: now_ns(),
                    reason: GapReason::JournalFailed,
                },
            );
        }
    }

    fn take_flags(&self, undecided: &mut Undecided, now: Instant) {
        let flags = match flags::read(&self.left.gaps, &self.left.standing, &self.name) {
            Ok(flags) => flags,
            Err(error) => {
                self.complain(&mut self.lock(), "gap flags cannot be read", &error);
                self.raise_gap(now_ns(), GapReason::Unknown);
                return;
            }
        };
        let before = std::mem::take(undecided);
        let (mut dealt_with, mut founded) = (Vec::new(), Vec::new());
        for flag in flags {
            let since = before.get(&flag.path).copied().unwrap_or(now);
            match self.judge(&flag, now.saturating_duration_since(since)) {
                Verdict::Gap => founded.push(flag),
                Verdict::NothingLost => dealt_with.push(flag),
                Verdict::NotYet => drop(undecided.insert(flag.path, since)),
            }
        }
        for flag in &founded {
            tracing::warn!(
                share = self.name,
                reason = flag.gap.reason.text(),
                "a module has flagged a gap"
            );
            self.raise(&mut self.lock(), flag.gap);
        }
        if !founded.is_empty() && self.settle_pending_gap() {
            dealt_with.append(&mut founded);
        }
        for flag in dealt_with {
            if flag.stood
                && let Some(session) = flags::session(&flag.path)
            {
                self.end_awaited(&mut self.lock(), session);
            }
            self.drop_unfinished(&flag);
            if let Err(error) = std::fs::remove_file(&flag.path) {
                tracing::error!(path = %flag.path.display(), %error, "gap flag cannot be removed; it will be taken again");
            }
        }
    }

    /// What the flag's session was about to write when its process ended says no more than the flag.
    fn drop_unfinished(&self, flag: &Flag) {
        let Some(session) = flags::session(&flag.path) else {
            return;
        };
        let files = flags::unfinished(&self.left.spool, &self.name, session).into_iter();
        for path in files.chain(flags::unfinished(&self.left.gaps, &self.name, session)) {
            // One that stays is taken for a gap, too: a comparison too many.
            let _ = std::fs::remove_file(path);
        }
    }

    /// A module that did not hear of the acknowledgement in time leaves a flag although nothing may be lost.
    /// `seen_for`: since this vfsxd first saw it, so that a stall of vfsxd itself does not count.
    fn judge(&self, flag: &Flag, seen_for: Duration) -> Verdict {
        let Some((session, last)) = flag.unless else {
            return Verdict::Gap;
        };
        let state = self.lock();
        if self.journal.acknowledged(session) >= last {
            // The end of the session is still to come: until it is noted, this is its word.
            let is_ending = flag.stood && state.connections.contains_key(&session);
            return match is_ending {
                true => Verdict::NotYet,
                false => Verdict::NothingLost,
            };
        }
        // It may be in the socket, or written and not synced yet.
        let on_its_way = state.connections.contains_key(&session) || self.journal.written(session) >= last;
        if on_its_way && !state.discarding && seen_for < ON_ITS_WAY {
            return Verdict::NotYet;
        }
        Verdict::Gap
    }

    /// Brings a pending gap into the journal; false when it is still pending.
    pub(super) fn settle_pending_gap(&self) -> bool {
        let Some(gap) = self.lock().reserve.pending() else {
            return true;
        };
        let Some(sequence) = self.append_gap(gap) else {
            return false;
        };
        if self.journal.wait_synced(sequence - 1, SYNC_PATIENCE) < sequence {
            return false;
        }
        let mut state = self.lock();
        // One that was raised meanwhile with an earlier time is noted again. So is one of the same time when the journal has failed
        // once more: as long as events are dropped a gap is pending, which is what has the journal tried again.
        if state.discarding || state.reserve.pending() != Some(gap) {
            return false;
        }
        if let Err(error) = state.reserve.clear() {
            tracing::error!(share = self.name, %error, "the gap's reserve cannot be cleared; it is noted again");
        }
        true
    }

    /// From this record on events are taken again, so none is dropped that the gap does not speak of.
    fn append_gap(&self, gap: PendingGap) -> Option<u64> {
        let mut state = self.lock();
        // What recovery cuts off was not acknowledged: the modules have to connect anew to send it again.
        state.discarding |= self.journal.status().failed;
        if let Err(error) = self.journal.recover() {
            self.complain(&mut state, "the journal cannot be recovered yet", &error);
            return None;
        }
        let body = Body::Gap {
            since_ns: gap.since_ns,
            reason: gap.reason,
        };
        let draft = Draft::note(Session::DAEMON, now_ns(), body);
        let sequence = match self.journal.append(vec![draft]) {
            Ok(appended) => appended.last,
            Err(error) => {
                self.complain(&mut state, "a gap cannot be noted in the journal yet", &error);
                return None;
            }
        };
        state.complained = false;
        state.note_gap(sequence, gap);
        if std::mem::take(&mut state.discarding) {
            self.make_all_reconnect(&mut state);
        }
        Some(sequence)
    }

    /// So that the modules send again what was dropped unacknowledged.
    fn make_all_reconnect(&self, state: &mut State) {
        tracing::info!(
            share = self.name,
            "the journal takes records again; modules send what it has not"
        );
        let back_by = Instant::now() + COMES_BACK_WITHIN;
        for (session, connected) in std::mem::take(&mut state.connections) {
            state.keep(session, &connected);
            state.awaited.insert(session, back_by);
        }
    }

    /// What fails every second is told once.
    pub(super) fn complain(&self, state: &mut State, what: &str, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut state.complained, true) {
            tracing::error!(share = self.name, %error, "{what}; tried again every second");
        }
    }
}
