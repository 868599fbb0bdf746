//! Which sessions the journal knows, and up to which of their events.

use super::record::{Body, Record, Session};
use std::collections::{BTreeMap, VecDeque};

/// Ended sessions remembered, so that one that comes back after its socket broke is not taken for a new one.
/// A module reconnects within seconds; this many sessions ending within that time would be a reboot of all clients.
const ENDED_KEPT: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Ended,
}

/// A session in a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionRow {
    pub(super) session: Session,
    pub(super) sequence: u64,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Highest event in the journal, synced or not: what is at or below it is a duplicate.
    written: u64,
    /// Highest event on disk. `synced <= written`.
    synced: u64,
    state: State,
}

/// The table; follows the records that are appended.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions {
    entries: BTreeMap<Session, Entry>,
    /// Ended ones, oldest first; may name one that is open again.
    ended: VecDeque<Session>,
}

impl Sessions {
    pub(super) fn from_rows(rows: &[SessionRow]) -> Self {
        let mut table = Self::default();
        for row in rows {
            let entry = Entry {
                written: row.sequence,
                synced: row.sequence,
                state: row.state,
            };
            table.entries.insert(row.session, entry);
            if row.state == State::Ended {
                table.ended.push_back(row.session);
            }
        }
        table
    }

    /// For the header of a new segment: all records so far, which are on disk by then. Open ones first, since a
    /// header has room for a limited number.
    pub(super) fn rows(&self) -> Vec<SessionRow> {
        let row = |(session, entry): (&Session, &Entry)| SessionRow {
            session: *session,
            sequence: entry.written,
            state: entry.state,
        };
        let mut rows: Vec<SessionRow> = self.entries.iter().map(row).collect();
        rows.sort_by_key(|row| row.state == State::Ended);
        rows
    }

    /// Takes a record in that was written but not synced yet.
    pub(super) fn note_written(&mut self, record: &Record) {
        if record.session == Session::DAEMON {
            return;
        }
        let entry = self.entries.entry(record.session).or_insert(Entry {
            written: 0,
            synced: 0,
            state: State::Open,
        });
        entry.written = entry.written.max(record.session_sequence);
        match record.body {
            Body::SessionEnded { .. } => {
                entry.state = State::Ended;
                self.ended.push_back(record.session);
                self.forget_old();
            }
            _ => entry.state = State::Open,
        }
    }

    /// Event `sequence` of the session is on disk.
    pub(super) fn note_synced(&mut self, session: Session, sequence: u64) {
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.synced = entry.synced.max(sequence);
        }
    }

    /// All that is written is synced.
    pub(super) fn all_synced(&mut self) {
        for entry in self.entries.values_mut() {
            entry.synced = entry.written;
        }
    }

    pub(super) fn written(&self, session: Session) -> u64 {
        self.entries.get(&session).map_or(0, |e| e.written)
    }

    pub(super) fn synced(&self, session: Session) -> u64 {
        self.entries.get(&session).map_or(0, |e| e.synced)
    }

    pub(super) fn open(&self) -> Vec<Session> {
        self.entries
            .iter()
            .filter(|(_, e)| e.state == State::Open)
            .map(|(s, _)| *s)
            .collect()
    }

    fn forget_old(&mut self) {
        while self.ended.len() > ENDED_KEPT {
            let Some(session) = self.ended.pop_front() else {
                return;
            };
            if self
                .entries
                .get(&session)
                .is_some_and(|e| e.state == State::Ended)
                && !self.ended.contains(&session)
            {
                self.entries.remove(&session);
            }
        }
    }
}
