//! The journal of a share: append-only segments of records; what it has synced survives anything but the loss of its
//! disk.
//!
//! One owner appends (the intake), a thread syncs, readers follow behind the synced end. A record that is synced is
//! given out again after any crash, in order; a record that is not synced may be gone, and is never given out before.

mod append;
mod codec;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod open;
mod reader;
mod record;
mod segment;
mod sessions;
mod sync;

pub use append::Appended;
pub use error::{AppendError, OpenError, ReadError, SyncError};
pub use reader::{READ_BYTES, Reader};
pub use record::{
    Body, Changed, DirRef, Draft, GapReason, Metadata, NodeKind, NodeRef, Range, Record, Session, SessionEnd,
    draft, monotonic_ns,
};
pub use sync::SyncThread;

use crate::trouble::Trouble;
use restfs_lib::disk::{Directory, Storage, StorageFile};
use sessions::Sessions;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A segment is finished when it has this many bytes. Whole segments are what `trim` removes.
    pub segment_bytes: u64,
    /// All segments together never have more.
    pub max_bytes: u64,
    /// Sequences up to here are taken: what the catalog has applied. A journal that ends before (lost, or an older
    /// copy put back) goes on behind it, with a gap.
    pub floor: u64,
}

impl Options {
    pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;
    /// Large enough that rotation (two syncs) does not matter, small enough that trimming follows closely.
    const SEGMENT_BYTES: u64 = 64 << 20;
    /// So that a small journal still has several segments, and trimming one makes room.
    const SEGMENTS_AT_LEAST: u64 = 8;

    pub fn new(max_bytes: u64, floor: u64) -> Self {
        let segment_bytes = Self::SEGMENT_BYTES.min(max_bytes / Self::SEGMENTS_AT_LEAST);
        Self {
            segment_bytes,
            max_bytes,
            floor,
        }
    }
}

/// Cheap to clone; all clones are the same journal.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Arc<dyn Storage>,
    options: Options,
    /// Held during a sync and during rotation, so that an error of one is not taken for a success of the other.
    /// Taken before `state`, never after.
    sync_lock: Mutex<()>,
    state: Mutex<State>,
    /// There is something to sync, or the end has come.
    work: Condvar,
    /// `synced` has moved.
    moved: Condvar,
    synced: watch::Sender<u64>,
}

/// `synced <= next - 1`, `synced_end <= end`.
struct State {
    /// Oldest first, never empty; the last is the one written to.
    segments: VecDeque<SegmentInfo>,
    current: Arc<dyn StorageFile>,
    /// Bytes of `current`.
    end: u64,
    synced_end: u64,
    next: u64,
    synced: u64,
    /// Events written and not synced: (record, session, session sequence).
    unsynced: VecDeque<(u64, Session, u64)>,
    /// Sessions with events synced since they were last asked for, with their new acknowledgement.
    newly_synced: std::collections::BTreeMap<Session, u64>,
    sessions: Sessions,
    /// Nothing is written until `recover` has succeeded.
    failed: bool,
    /// What went wrong last, until a record from here on is on disk.
    trouble: Option<(Trouble, u64)>,
    /// Somebody waits for what is not synced.
    hurried: bool,
    /// The syncing thread lets time pass, and looks for itself when it is over.
    resting: bool,
}

#[derive(Debug, Clone, Copy)]
struct SegmentInfo {
    first: u64,
    bytes: u64,
}

/// Numbers for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Newest record, synced or not.
    pub head: u64,
    pub synced: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    pub failed: bool,
}

impl Journal {
    /// Opens or creates the journal in `directory` and cuts a torn tail. Syncing is up to a [`SyncThread`].
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        let storage = Directory::open(directory).map_err(|source| OpenError::Io {
            what: "open the journal's directory",
            path: directory.display().to_string(),
            source,
        })?;
        Self::open_on(Arc::new(storage), options)
    }

    /// The same on any storage.
    pub fn open_on(storage: Arc<dyn Storage>, options: Options) -> Result<Self, OpenError> {
        let state = open::open(&*storage, &options)?;
        let (synced, _) = watch::channel(state.synced);
        Ok(Self {
            inner: Arc::new(Inner {
                storage,
                options,
                sync_lock: Mutex::new(()),
                state: Mutex::new(state),
                work: Condvar::new(),
                moved: Condvar::new(),
                synced,
            }),
        })
    }

    /// Sequence of the newest synced record, 0 when there is none; changes with every sync.
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.inner.synced.subscribe()
    }

    /// Waits (blocking) until a record after `after` is synced or the time is over; returns the synced sequence.
    pub fn wait_synced(&self, after: u64, timeout: Duration) -> u64 {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.synced <= after {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .inner
                .moved
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.synced
    }

    /// Records from `sequence` on, as they are synced. Fails when they were trimmed already.
    pub fn read_from(&self, sequence: u64) -> Result<Reader, ReadError> {
        Reader::new(self.clone(), sequence.max(1))
    }

    /// Somebody waits for what is appended by now: it is synced without the rest that syncs have between them.
    pub fn hurry(&self) {
        let mut state = self.lock();
        if state.synced + 1 < state.next {
            state.hurried = true;
            self.inner.work.notify_all();
        }
    }

    /// Removes the segments whose records are all at or before `up_to`; never the newest.
    pub fn trim(&self, up_to: u64) -> std::io::Result<()> {
        loop {
            let mut state = self.lock();
            let next_first = state.segments.get(1).map(|s| s.first);
            let (Some(oldest), Some(next_first)) = (state.segments.front().copied(), next_first) else {
                return Ok(());
            };
            if next_first > up_to.saturating_add(1) {
                return Ok(());
            }
            // A crash may bring the file back: it is trimmed again then.
            self.inner.storage.remove(&segment::name(oldest.first))?;
            state.segments.pop_front();
        }
    }

    pub fn status(&self) -> Status {
        let state = self.lock();
        Status {
            head: state.next - 1,
            synced: state.synced,
            bytes: state.bytes(),
            bytes_max: self.inner.options.max_bytes,
            failed: state.failed,
        }
    }

    /// Why records could not be written or synced, until one is again.
    pub fn trouble(&self) -> Option<Trouble> {
        self.lock().trouble.as_ref().map(|(trouble, _)| trouble.clone())
    }

    /// Highest event of the session on disk; 0 for one that is not known.
    pub fn acknowledged(&self, session: Session) -> u64 {
        self.lock().sessions.synced(session)
    }

    /// Highest event of the session in the journal, synced or not.
    pub fn written(&self, session: Session) -> u64 {
        self.lock().sessions.written(session)
    }

    /// Sessions that have started and not ended.
    pub fn open_sessions(&self) -> Vec<Session> {
        self.lock().sessions.open()
    }

    /// Sessions with events synced since the last call, each with its highest one.
    pub fn take_acknowledgements(&self) -> Vec<(Session, u64)> {
        std::mem::take(&mut self.lock().newly_synced)
            .into_iter()
            .collect()
    }

    /// The state is consistent between statements that can panic, so a poisoned lock is taken all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writing or syncing the file at `path` has failed.
    fn note_trouble(&mut self, path: &str, error: &std::io::Error) {
        let why = format!("cannot write {path}: {error}");
        self.trouble = Some((Trouble::of(error, why), self.next));
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }
}

#[cfg(test)]
mod tests;
