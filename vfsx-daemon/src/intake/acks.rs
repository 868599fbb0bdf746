//! When a module is told what is on disk. Each telling wakes its smbd, which then serves nobody for the time: one that waits for
//! nothing is told now and then.

use std::time::{Duration, Instant};

/// Much less than what makes a module think that vfsxd hangs, and than what a client notices.
const REST: Duration = Duration::from_millis(50);
/// Its memory is not to fill up meanwhile.
const MANY: u64 = 512;

#[derive(Debug)]
pub(super) struct Acks {
    rests: bool,
    told: u64,
    /// No earlier, unless there is much to tell.
    next: Instant,
}

impl Acks {
    /// `rests`: nobody waits for them.
    pub(super) fn new(rests: bool) -> Self {
        Self {
            rests,
            told: 0,
            next: Instant::now(),
        }
    }

    /// When to tell of this sequence.
    pub(super) fn due(&self, newest: u64) -> Instant {
        if self.rests && newest < self.told.saturating_add(MANY) {
            return self.next;
        }
        Instant::now()
    }

    pub(super) fn told(&mut self, newest: u64) {
        self.told = newest;
        self.next = Instant::now() + REST;
    }

    /// Somebody waits from now on.
    pub(super) fn rest_no_more(&mut self) {
        self.rests = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_waits_or_has_much_is_told_at_once_and_any_other_after_a_rest() {
        let mut acks = Acks::new(true);
        acks.told(5);
        acks.next = Instant::now();
        assert!(acks.due(6) <= Instant::now(), "after a quiet time");
        acks.told(6);
        let at = Instant::now();
        assert!(acks.due(7) > at && acks.due(7) <= at + REST);
        assert!(acks.due(6 + MANY) <= Instant::now());
        acks.rest_no_more();
        assert!(acks.due(7) <= Instant::now());
    }
}
