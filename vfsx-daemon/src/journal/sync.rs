//! Making records durable: many appends, one fdatasync.

use super::{Journal, State, SyncError, segment};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

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
                Err(SyncError {
                    path: self.inner.storage.describe(&segment::name(first)),
                    source,
                })
            }
        }
    }

    pub(super) fn now_synced(&self, state: &mut State, sequence: u64, end: u64) {
        state.synced = sequence;
        state.synced_end = end;
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

    /// Waits until there is something to sync; false when `stop` is set.
    fn wait_for_work(&self, stop: &AtomicBool) -> bool {
        let mut state = self.lock();
        loop {
            if stop.load(Ordering::Acquire) {
                return false;
            }
            if !state.failed && state.synced + 1 < state.next {
                return true;
            }
            state = self
                .inner
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
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
                while of_thread.wait_for_work(&stop_flag) {
                    if let Err(error) = of_thread.sync() {
                        tracing::error!(%error, "the journal is not durable; events are not acknowledged");
                    }
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
