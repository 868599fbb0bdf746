//! Where in the data ring the next bytes go, so that none are overwritten that vfsxd may still read. Pure.
//!
//! The ring is divided into steps, and the one that became free last is filled next: what is on its way stays in few of them, and
//! so in the processor's caches.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Space {
    step: u64,
    /// Starts of the steps that hold nothing; the next one to be filled is the last.
    free: Vec<u64>,
    filling: Option<Step>,
    /// In the order in which they were filled.
    full: VecDeque<Step>,
}

#[derive(Debug)]
struct Step {
    start: u64,
    used: u64,
    /// The newest event that tells of bytes in it.
    last: u64,
}

impl Space {
    pub(super) fn new(size: u64, step: u64) -> Self {
        Self {
            step,
            free: (0..size / step).rev().map(|n| n * step).collect(),
            filling: None,
            full: VecDeque::new(),
        }
    }

    /// Where so many bytes may go next, all in one step. `None`: there is no room.
    pub(super) fn find(&self, length: u64) -> Option<u64> {
        match &self.filling {
            Some(step) if length <= self.step - step.used => Some(step.start + step.used),
            _ if length > self.step => None,
            _ => self.free.last().copied(),
        }
    }

    /// The next bytes were put where they were found to have room, and the event of that sequence tells of them.
    pub(super) fn take(&mut self, position: u64, length: u64, sequence: u64) {
        if self.free.last() == Some(&position) {
            self.free.pop();
            let next = Step {
                start: position,
                used: 0,
                last: 0,
            };
            self.full.extend(self.filling.replace(next));
        }
        if let Some(step) = &mut self.filling {
            step.used += length;
            step.last = sequence;
        }
    }

    /// Events up to this one were acknowledged.
    pub(super) fn free(&mut self, acknowledged: u64) {
        let done = self.full.partition_point(|step| step.last <= acknowledged);
        self.free.extend(self.full.drain(..done).map(|step| step.start));
        if let Some(step) = self.filling.as_mut().filter(|step| step.last <= acknowledged) {
            step.used = 0;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.filling.as_ref().is_none_or(|step| step.used == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Put {
        sequence: u64,
        place: std::ops::Range<usize>,
    }

    proptest! {
        /// A ring of bytes in which every announced write has its own number.
        #[test]
        fn nothing_unacknowledged_is_overwritten_and_steps_that_are_free_are_found(
            step in 1usize..20, count in 1usize..5, puts in prop::collection::vec((any::<bool>(), 1usize..25), 0..200)
        ) {
            let mut space = Space::new((step * count) as u64, step as u64);
            let mut bytes = vec![0; step * count];
            let mut unacknowledged: VecDeque<Put> = VecDeque::new();
            let mut sequence = 0;
            for (puts, n) in puts {
                if puts {
                    let used: std::collections::BTreeSet<_> = unacknowledged.iter().map(|put| put.place.start / step).collect();
                    let found = space.find(n as u64);
                    prop_assert!(found.is_some() || n > step || used.len() == count);
                    let Some(position) = found else { continue };
                    let place = position as usize..position as usize + n;
                    prop_assert_eq!(place.start / step, (place.end - 1) / step, "in one step");
                    sequence += 1;
                    bytes[place.clone()].fill(sequence);
                    space.take(position, n as u64, sequence);
                    unacknowledged.push_back(Put { sequence, place });
                } else {
                    let acknowledged = unacknowledged.drain(..n.min(3).min(unacknowledged.len())).next_back();
                    space.free(acknowledged.map_or(0, |put| put.sequence));
                }
                for put in &unacknowledged {
                    prop_assert!(bytes[put.place.clone()].iter().all(|byte| *byte == put.sequence), "overwritten");
                }
                prop_assert_eq!(space.is_empty(), unacknowledged.is_empty());
            }
        }
    }

    #[test]
    fn a_client_of_whom_little_is_on_its_way_stays_in_the_first_steps() {
        let mut space = Space::new(100 * 8, 8);
        for sequence in 1..1_000 {
            let position = space.find(3).expect("has room");
            assert!(position < 3 * 8, "{position}");
            space.take(position, 3, sequence);
            space.free(sequence.saturating_sub(4));
        }
    }
}
