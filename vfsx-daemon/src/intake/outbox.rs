//! Events that a module has noted and not sent: those of a process that was killed, and of one that stands still.

use super::memory::{Memory, OutboxError};
use super::share::ShareIntake;
use super::written::Written;
use crate::journal::{GapReason, Session};
use std::sync::Arc;
use vfsx_proto::Stamped;

impl Written {
    /// The session's process is gone, or has closed the connection: what it had not sent is taken out of its memory.
    pub(super) fn take_rest(&mut self, share: &ShareIntake, id: u64) {
        let Some(memory) = self.memory() else { return };
        match memory.outbox() {
            // Another connection has its place, which gets them, too.
            Ok(events) => drop(self.take(share, id, events)),
            Err(error) => self.miss(share, &error),
        }
    }

    fn miss(&self, share: &ShareIntake, error: &OutboxError) {
        let session = self.session();
        tracing::error!(share = share.name(), ?session, %error, "the last events of an smbd process are lost: its memory is no use");
        share.raise_gap(super::now_ns(), GapReason::SessionHole);
    }
}

/// A connection whose outbox has held the same for as long as a share is tended: a module sends within milliseconds, unless smbd
/// stands still.
struct Stuck {
    session: Session,
    id: u64,
    memory: Arc<Memory>,
}

impl ShareIntake {
    /// Takes what stands still in the memory of modules.
    pub(super) fn take_outboxes(&self) {
        for Stuck { session, id, memory } in self.stuck() {
            let Ok(events) = memory.outbox() else { continue };
            if self.follows(session, &events) {
                // When it was superseded meanwhile, the new connection brings them.
                let _ = Written::new(session, Some(memory)).take(self, id, events);
            }
        }
    }

    fn stuck(&self) -> Vec<Stuck> {
        let mut stuck = Vec::new();
        for (session, connected) in &mut self.lock().connections {
            let Some(memory) = &connected.memory else { continue };
            let held = memory.filled().filter(|filled| filled.length > 0);
            if held.is_some() && held == connected.held {
                stuck.push(Stuck {
                    session: *session,
                    id: connected.id,
                    memory: Arc::clone(memory),
                });
            }
            connected.held = held;
        }
        stuck
    }

    /// What is still to be read of the socket comes first.
    fn follows(&self, session: Session, events: &[Stamped]) -> bool {
        let next = self.journal().written(session) + 1;
        events.first().is_some_and(|event| event.sequence <= next)
    }
}
