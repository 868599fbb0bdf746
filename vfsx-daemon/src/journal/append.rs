//! Appending, rotation, and getting back in order after a failure.

use super::codec::{self, EncodeError, Header};
use super::record::{Body, Draft, GapReason, Record, Session};
use super::segment::{self, Found, Walk};
use super::sessions::Sessions;
use super::{AppendError, Journal, SegmentInfo, State, SyncError};
use std::io;
use std::sync::{MutexGuard, PoisonError};

/// What became of the drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The journal's newest record: when it is synced, all drafts are.
    pub last: u64,
    /// Events that the journal had already.
    pub duplicates: usize,
    /// A session's events came with a hole; a gap was noted ahead of them.
    pub hole: bool,
}

impl Journal {
    /// Appends all drafts or none. Events that the journal has already are dropped, a hole in a session's sequence
    /// becomes a gap. Returns before they are synced.
    pub fn append(&self, drafts: Vec<Draft>) -> Result<Appended, AppendError> {
        let mut state = self.lock();
        if self.wants_rotation(&state) {
            drop(state);
            let _sync = self
                .inner
                .sync_lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            state = self.lock();
            if self.wants_rotation(&state) {
                self.rotate(&mut state)?;
            }
        }
        self.write(&mut state, drafts)
    }

    fn wants_rotation(&self, state: &State) -> bool {
        let has_records = state.segments.back().is_some_and(|s| s.first < state.next);
        !state.failed && has_records && state.end >= self.inner.options.segment_bytes
    }

    fn write(&self, state: &mut MutexGuard<'_, State>, drafts: Vec<Draft>) -> Result<Appended, AppendError> {
        if state.failed {
            return Err(AppendError::Failed);
        }
        let (records, mut appended) = number(drafts, state.next, &state.sessions);
        let mut bytes = Vec::new();
        for record in &records {
            codec::encode_record(record, &mut bytes)
                .map_err(|e: EncodeError| AppendError::Unrepresentable(e.to_string()))?;
        }
        let total = state.bytes();
        if !records.is_empty() && total + bytes.len() as u64 > self.inner.options.max_bytes {
            return Err(AppendError::Full {
                bytes: total,
                max: self.inner.options.max_bytes,
            });
        }
        self.write_bytes(state, &bytes)?;
        for record in &records {
            state.sessions.note_written(record);
            if record.session_sequence > 0 {
                state
                    .unsynced
                    .push_back((record.sequence, record.session, record.session_sequence));
            }
        }
        state.next += records.len() as u64;
        appended.last = state.next - 1;
        if !records.is_empty() && !state.resting {
            self.inner.work.notify_one();
        }
        Ok(appended)
    }

    fn write_bytes(&self, state: &mut State, bytes: &[u8]) -> Result<(), AppendError> {
        if let Err(source) = state.current.write_all_at(bytes, state.end) {
            // Part of it may stand in the file; without this a later, shorter record would be followed by its rest.
            if state.current.set_len(state.end).is_err() {
                state.fail();
            }
            return Err(self.not_written(state, source));
        }
        state.end += bytes.len() as u64;
        if let Some(info) = state.segments.back_mut() {
            info.bytes = state.end;
        }
        Ok(())
    }

    /// Finishes the current segment and begins the next. `sync_lock` is held.
    fn rotate(&self, state: &mut State) -> Result<(), AppendError> {
        if let Err(source) = state.current.sync_data() {
            state.fail();
            return Err(self.not_written(state, source));
        }
        self.now_synced(state, state.next - 1, state.end);
        let header = Header {
            first: state.next,
            broken: false,
            sessions: state.sessions.rows(),
        };
        self.begin_segment(state, &header)
    }

    fn begin_segment(&self, state: &mut State, header: &Header) -> Result<(), AppendError> {
        match segment::create(&*self.inner.storage, header, &[]) {
            Ok((file, end)) => {
                state.segments.push_back(SegmentInfo {
                    first: header.first,
                    bytes: end,
                });
                state.current = file;
                state.end = end;
                state.synced_end = end;
                Ok(())
            }
            Err(source) => {
                // Whether the new segment is there is not known; `recover` removes it.
                state.fail();
                let path = self.inner.storage.describe(&segment::name(header.first));
                state.note_trouble(&path, &source);
                Err(AppendError::Write { path, source })
            }
        }
    }

    /// Notes damage in the segment that begins with `first`: a gap in a later segment. Readers go on there.
    pub(super) fn note_damage(&self, first: u64, time_ns: i64, since_ns: i64) -> Result<(), AppendError> {
        let _sync = self
            .inner
            .sync_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        if state.failed {
            return Err(AppendError::Failed);
        }
        if state.segments.back().is_some_and(|s| s.first == first) {
            self.rotate(&mut state)?;
        }
        let body = Body::Gap {
            since_ns,
            reason: GapReason::JournalDamaged,
        };
        self.write(&mut state, vec![Draft::note(Session::DAEMON, time_ns, body)])?;
        Ok(())
    }

    /// After a failed write or sync: cuts the journal back to what is synced, and checks it, so that appending can go
    /// on. Sessions whose events were cut off have to send them again.
    pub fn recover(&self) -> Result<(), SyncError> {
        let _sync = self
            .inner
            .sync_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        if !state.failed {
            return Ok(());
        }
        self.try_recover(&mut state).map_err(|source| {
            let path = self.current_path(&state);
            state.note_trouble(&path, &source);
            SyncError { path, source }
        })
    }

    fn try_recover(&self, state: &mut State) -> io::Result<()> {
        let storage = &*self.inner.storage;
        let Some(current) = state.segments.back().copied() else {
            return Err(io::Error::other("the journal has no segment"));
        };
        for first in segment::list(storage)?
            .into_iter()
            .filter(|first| *first > current.first)
        {
            storage.remove(&segment::name(first))?;
        }
        storage.sync_dir()?;
        // Opened anew: a descriptor that has reported an error once says nothing the second time.
        let file = storage.open(&segment::name(current.first))?;
        file.set_len(state.synced_end)?;
        file.sync_data()?;
        let (last, sessions) = read_back(Walk::open(file.clone())?, current.first)?;
        if last != state.synced {
            return Err(io::Error::other(format!(
                "record {} was synced, but the file ends with {last}",
                state.synced
            )));
        }
        state.current = file;
        state.end = state.synced_end;
        state.next = state.synced + 1;
        state.unsynced.clear();
        state.sessions = sessions;
        if let Some(info) = state.segments.back_mut() {
            info.bytes = state.end;
        }
        state.failed = false;
        let next = state.next;
        if let Some((_, from)) = &mut state.trouble {
            *from = next;
        }
        Ok(())
    }

    fn not_written(&self, state: &mut State, source: io::Error) -> AppendError {
        let path = self.current_path(state);
        state.note_trouble(&path, &source);
        AppendError::Write { path, source }
    }

    fn current_path(&self, state: &State) -> String {
        let first = state.segments.back().map_or(0, |s| s.first);
        self.inner.storage.describe(&segment::name(first))
    }
}

impl State {
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }
}

/// Gives drafts their sequences.
fn number(drafts: Vec<Draft>, mut next: u64, sessions: &Sessions) -> (Vec<Record>, Appended) {
    let mut records = Vec::with_capacity(drafts.len());
    let mut appended = Appended {
        last: next - 1,
        duplicates: 0,
        hole: false,
    };
    let mut reached = std::collections::BTreeMap::new();
    for draft in drafts {
        if draft.session_sequence > 0 {
            let last = reached
                .entry(draft.session)
                .or_insert_with(|| sessions.written(draft.session));
            if draft.session_sequence <= *last {
                appended.duplicates += 1;
                continue;
            }
            if draft.session_sequence > *last + 1 {
                appended.hole = true;
                let body = Body::Gap {
                    since_ns: draft.time_ns,
                    reason: GapReason::SessionHole,
                };
                let gap = Draft {
                    body,
                    session_sequence: 0,
                    ..draft
                };
                records.push(gap.numbered(next));
                next += 1;
            }
            *last = draft.session_sequence;
        }
        records.push(draft.numbered(next));
        next += 1;
    }
    (records, appended)
}

impl Draft {
    pub(super) fn numbered(self, sequence: u64) -> Record {
        Record {
            sequence,
            time_ns: self.time_ns,
            session: self.session,
            session_sequence: self.session_sequence,
            began_ns: self.began_ns,
            body: self.body,
        }
    }
}

/// Last sequence and sessions of a segment that must be whole.
fn read_back(opened: Result<(Walk, Header), codec::DecodeError>, first: u64) -> io::Result<(u64, Sessions)> {
    let bad = |e: codec::DecodeError| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let (mut walk, header) = opened.map_err(bad)?;
    let mut sessions = Sessions::from_rows(&header.sessions);
    let mut last = first - 1;
    loop {
        match walk.next()? {
            Found::Record(record) => {
                last = record.sequence;
                sessions.note_written(&record);
            }
            Found::End => break,
            Found::Damaged(e) => return Err(bad(e)),
        }
    }
    sessions.all_synced();
    Ok((last, sessions))
}
