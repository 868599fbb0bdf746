//! Connections that were accepted and are not registered yet, so that a barrier can wait for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

#[derive(Clone)]
pub(super) struct Handshakes {
    open: Arc<Mutex<Open>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Open {
    next: u64,
    ids: BTreeSet<u64>,
}

/// Held from accept until the connection is registered, refused or gone.
pub(super) struct Handshake {
    all: Handshakes,
    pub(super) id: u64,
}

impl Handshakes {
    pub(super) fn new() -> Self {
        Self {
            open: Arc::default(),
            changed: watch::channel(()).0,
        }
    }

    pub(super) fn begin(&self) -> Handshake {
        let mut open = self.lock();
        open.next += 1;
        let id = open.next;
        open.ids.insert(id);
        Handshake {
            all: self.clone(),
            id,
        }
    }

    /// Returns when all handshakes begun before this call have ended. They have a time limit of their own, but for one whose session has
    /// a spool file that the journal has no room for.
    pub(super) async fn ended_before_now(&self) {
        let newest = self.lock().next;
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.lock().ids.range(..=newest).next().is_none() {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.lock().ids.remove(&self.id);
        self.all.changed.send_replace(());
    }
}
