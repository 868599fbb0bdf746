//! How many sessions there may be, and how many connections that have not said yet who they are.

use super::rarely::Rarely;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that are to say who they are; further ones wait in the socket's queue. Each takes milliseconds, and 5 s at most.
const GREETINGS_MAX: usize = 256;

/// Shared by all connections.
pub(super) struct Places {
    sessions: Arc<Semaphore>,
    sessions_max: usize,
    greetings: Arc<Semaphore>,
    turned_away: AtomicU64,
    accept_failures: AtomicU64,
    told_of_sessions: Rarely,
    told_of_accepts: Rarely,
}

/// Held as long as the connection needs it.
pub(super) struct Place(#[expect(dead_code, reason = "given back when it is dropped")] OwnedSemaphorePermit);

/// Numbers for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacesFacts {
    pub sessions: usize,
    pub sessions_max: usize,
    /// Times that a session found no place, since the start.
    pub turned_away: u64,
    /// Connections that could not be accepted (no descriptors), since the start.
    pub accept_failures: u64,
}

impl Places {
    pub(super) fn new(sessions_max: usize) -> Self {
        Self {
            sessions: Arc::new(Semaphore::new(sessions_max)),
            sessions_max,
            greetings: Arc::new(Semaphore::new(GREETINGS_MAX)),
            turned_away: AtomicU64::new(0),
            accept_failures: AtomicU64::new(0),
            told_of_sessions: Rarely::default(),
            told_of_accepts: Rarely::default(),
        }
    }

    /// Before a connection is accepted.
    pub(super) async fn for_greeting(&self) -> io::Result<Place> {
        let place = Arc::clone(&self.greetings).acquire_owned().await;
        place.map(Place).map_err(io::Error::other)
    }

    /// `None`: there is none now.
    pub(super) fn for_session(&self, share: &str) -> Option<Place> {
        if let Ok(place) = Arc::clone(&self.sessions).try_acquire_owned() {
            return Some(Place(place));
        }
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        if self.told_of_sessions.is_due() {
            tracing::error!(
                share,
                "all {} places for smbd sessions are taken: further ones keep their changes themselves, as without vfsxd, \
                 and nothing is in sync meanwhile; raise sessions_max in vfsxd.toml",
                self.sessions_max
            );
        }
        None
    }

    /// The socket's queue holds the connection meanwhile.
    pub(super) fn note_accept_failure(&self, error: &io::Error) {
        self.accept_failures.fetch_add(1, Ordering::Relaxed);
        if self.told_of_accepts.is_due() {
            tracing::error!(%error, "a module's connection cannot be accepted; tried again all the time");
        }
    }

    pub(super) fn facts(&self) -> PlacesFacts {
        PlacesFacts {
            sessions: self.sessions_max - self.sessions.available_permits(),
            sessions_max: self.sessions_max,
            turned_away: self.turned_away.load(Ordering::Relaxed),
            accept_failures: self.accept_failures.load(Ordering::Relaxed),
        }
    }
}
