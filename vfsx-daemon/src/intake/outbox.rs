//! Events that a module has noted and not sent: those of a process that was killed, and of one that stands still.

use super::memory::{Memory, OutboxError};
use super::share::ShareIntake;
use super::written::Written;
use crate::journal::{GapReason, Session};
use std::sync::Arc;
use std::time::{Duration, Instant};
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

/// A module sends within milliseconds: one whose outbox has held the same for so long stands still, with its smbd.
const STANDS_STILL: Duration = Duration::from_millis(500);

/// Its connection.
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
        let (mut stuck, now) = (Vec::new(), Instant::now());
        for (session, connected) in &mut self.lock().connections {
            let Some(memory) = &connected.memory else { continue };
            let Some(held) = memory.filled().filter(|filled| filled.length > 0) else {
                connected.held = None;
                continue;
            };
            let since = match connected.held {
                Some((before, since)) if before == held => since,
                _ => now,
            };
            if now.duration_since(since) >= STANDS_STILL {
                stuck.push(Stuck {
                    session: *session,
                    id: connected.id,
                    memory: Arc::clone(memory),
                });
            }
            connected.held = Some((held, since));
        }
        stuck
    }

    /// What is still to be read of the socket comes first.
    fn follows(&self, session: Session, events: &[Stamped]) -> bool {
        let next = self.journal().written(session) + 1;
        events.first().is_some_and(|event| event.sequence <= next)
    }
}
