//! Making records durable: many appends, one fdatasync.

use super::{Journal, State, SyncError, segment};
use crate::pace::Pace;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between syncs that nobody waits for, in the long run. A sync makes the share's file system, when it is the journal's too,
/// write down what clients have changed, and they wait meanwhile; so a busy share has a hundred a second, not thousands.
const REST: Duration = Duration::from_millis(10);
/// Syncs that may come without a rest: what one client does now and then is on disk at once.
const AT_ONCE: u32 = 4;

impl Journal {
    /// Syncs what is appended. On an error the journal has failed: what was not synced is lost.
    pub fn sync(&self) -> Result<(), SyncError> {
        let _sync = self
            .inner
            .sync_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (file, sequence, end) = {
            let state = self.lock();
            if state.failed || state.synced + 1 >= state.next {
                return Ok(());
            }
            (Arc::clone(&state.current), state.next - 1, state.end)
        };
        let outcome = file.sync_data();
        let mut state = self.lock();
        match outcome {
            Ok(()) => {
                self.now_synced(&mut state, sequence, end);
                Ok(())
            }
            Err(source) => {
                state.fail();
                let first = state.segments.back().map_or(0, |s| s.first);
                let path = self.inner.storage.describe(&segment::name(first));
                state.note_trouble(&path, &source);
                Err(SyncError { path, source })
            }
        }
    }

    pub(super) fn now_synced(&self, state: &mut State, sequence: u64, end: u64) {
        state.synced = sequence;
        state.synced_end = end;
        state.trouble.take_if(|(_, from)| sequence >= *from);
        while let Some((record, session, event)) = state.unsynced.front().copied() {
            if record > sequence {
                break;
            }
            state.unsynced.pop_front();
            state.sessions.note_synced(session, event);
            state.newly_synced.insert(session, event);
        }
        self.inner.synced.send_replace(sequence);
        self.inner.moved.notify_all();
    }

    /// Waits until there is something to sync, and somebody waits for it or the time has come; false when `stop` is set.
    fn wait_for_work(&self, stop: &AtomicBool, not_before: Instant) -> bool {
        let work = &self.inner.work;
        let mut state = self.lock();
        loop {
            if stop.load(Ordering::Acquire) {
                return false;
            }
            let waiting = !state.failed && state.synced + 1 < state.next;
            let rest = not_before.saturating_duration_since(Instant::now());
            if waiting && (state.hurried || rest.is_zero()) {
                state.hurried = false;
                return true;
            }
            state.resting = !rest.is_zero();
            state = if state.resting {
                let woken = work.wait_timeout(state, rest);
                woken.unwrap_or_else(PoisonError::into_inner).0
            } else {
                work.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
            state.resting = false;
        }
    }
}

/// Syncs the journal until it is dropped; what is appended by then is synced.
pub struct SyncThread {
    journal: Journal,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    pub fn start(journal: &Journal) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (of_thread, stop_flag) = (journal.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("journal-sync".into())
            .spawn(move || {
                let mut pace = Pace::new(REST, AT_ONCE);
                while of_thread.wait_for_work(&stop_flag, pace.next()) {
                    if let Err(error) = of_thread.sync() {
                        tracing::error!(%error, "the journal is not durable; events are not acknowledged");
                    }
                    pace.done();
                }
            })?;
        Ok(Self {
            journal: journal.clone(),
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        {
            let _state = self.journal.lock();
            self.stop.store(true, Ordering::Release);
            self.journal.inner.work.notify_all();
        }
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, and said so.
            let _ = thread.join();
        }
        if let Err(error) = self.journal.sync() {
            tracing::error!(%error, "the last records of the journal are not durable; modules send them again");
        }
    }
}
