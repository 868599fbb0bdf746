//! The thread that enters synced records into the index, so that no client waits for it.

use super::{Shared, lock};
use crate::storage::StoreError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest time a synced record waits for the index: what the next start has to read again.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Indexer {
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    due: bool,
    stop: bool,
}

impl Indexer {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let signal = Arc::new(Signal::default());
        let (for_thread, signal_for_thread) = (Arc::clone(&shared), Arc::clone(&signal));
        let thread = std::thread::Builder::new()
            .name("block-index".to_owned())
            .spawn(move || run(&for_thread, &signal_for_thread))
            .map_err(|source| StoreError::Io {
                what: "starting the index thread".to_owned(),
                source,
            })?;
        Ok(Self {
            shared,
            signal,
            thread: Some(thread),
        })
    }

    pub(super) fn wake_when_due(&self) {
        if self.shared.log.has_batch() {
            lock(&self.signal.state).due = true;
            self.signal.changed.notify_one();
        }
    }
}

/// Everything appended becomes durable and known to the index, so that the next start has nothing to read.
impl Drop for Indexer {
    fn drop(&mut self) {
        lock(&self.signal.state).stop = true;
        self.signal.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was reported by it; the records are in the packs.
            let _ = thread.join();
        }
        if let Err(error) = self.shared.log.flush().and_then(|()| self.shared.enter_recent()) {
            tracing::warn!("closing the block store: {error}");
        }
    }
}

fn run(shared: &Shared, signal: &Signal) {
    let mut failing = false;
    while wait(signal) {
        match shared.enter_recent() {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!("{error}; trying again, blocks stay readable meanwhile");
            }
            Err(_) => {}
        }
    }
}

/// Until there is something to do; `false`: the store is closing.
fn wait(signal: &Signal) -> bool {
    let state = lock(&signal.state);
    let (mut state, _) = signal
        .changed
        .wait_timeout_while(state, INTERVAL, |state| !state.due && !state.stop)
        .unwrap_or_else(PoisonError::into_inner);
    state.due = false;
    !state.stop
}
