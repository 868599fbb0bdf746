//! A change is not sent by itself: that would cost smbd more than all else here. It goes into the memory that vfsxd shares, where vfsxd finds it
//! if this process is killed, and into the socket a moment later, together with what came since.

use super::Client;
use crate::os;
use std::time::{Duration, Instant};

/// How long a change stays there: some dozens of new files of a busy client, and little beside the time that a change takes to a site.
pub const HOLD: Duration = Duration::from_millis(5);

/// What is in the outbox and was not given to the connection.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The newest events of the ring.
    events: usize,
    /// When they are to be sent; the same by `CLOCK_MONOTONIC`.
    until: Option<Instant>,
    until_ns: u64,
    /// The newest event was put there in this call: when it was, nearly now, is known.
    is_fresh: bool,
}

impl Held {
    /// Not more than so many are not given to the connection.
    pub(super) fn limit(&mut self, waiting: usize) {
        self.events = self.events.min(waiting);
    }
}

impl Client {
    /// Whether the next event may stay in the outbox: with what is there it is all that is not in the socket. Never while clients wait for
    /// what becomes of it.
    pub(super) fn may_hold(&self) -> bool {
        !self.config.hold.is_zero()
            && self.link.is_up()
            && self.memory_taken
            && self.shared.is_some()
            && !self.waits.is_on()
            && self.is_nothing_else_to_send()
    }

    /// Puts the newest event there. One that has no room is sent with the next [`Client::flush`], as is all before it.
    pub(super) fn hold(&mut self) {
        if let (Some(frame), Some(shared)) = (self.ring.newest(), &mut self.shared)
            && shared.hold(frame)
        {
            self.held.events += 1;
            self.held.is_fresh = true;
            if self.held.until.is_none() {
                let hold_ns = u64::try_from(self.config.hold.as_nanos()).unwrap_or(u64::MAX);
                self.held.until = Some(Instant::now() + self.config.hold);
                self.held.until_ns = os::monotonic_ns().saturating_add(hold_ns);
            }
        }
    }

    /// Whether all that is not in the socket is in the outbox, and may stay there: until it is due, whether a timer comes then or not.
    pub(super) fn is_held(&mut self) -> bool {
        let is_fresh = std::mem::take(&mut self.held.is_fresh);
        let has_room = |shared: &super::Shared| !shared.is_outbox_half_full();
        // To look at the clock once for each event is enough.
        let noted_ns = self.ring.newest_kept_ns().filter(|_| is_fresh);
        self.held.events > 0
            && self.is_nothing_else_to_send()
            && self.shared.as_ref().is_some_and(has_room)
            && noted_ns.unwrap_or_else(os::monotonic_ns) < self.held.until_ns
    }

    /// When what is held is to be sent: sooner than anything else that a change makes due.
    pub fn held_until(&self) -> Option<Instant> {
        self.held.until
    }

    /// All of it is in the socket, or the connection is gone: then it is given to the next.
    pub(super) fn empty_outbox(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.empty_outbox();
        }
    }

    /// What most calls of smbd find.
    pub(super) fn has_nothing_to_send(&self) -> bool {
        self.ring.waiting() == 0 && self.wire.is_empty() && self.answers.is_empty() && !self.waits.is_on()
    }

    fn is_nothing_else_to_send(&self) -> bool {
        self.wire.is_empty() && self.answers.is_empty() && self.held.events == self.ring.waiting()
    }
}
