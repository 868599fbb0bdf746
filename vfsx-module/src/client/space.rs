//! Where in the data ring the next bytes go, so that none are overwritten that vfsxd may still read. Pure.

/// Positions are counted on around the ring: `freed <= position <= freed + size`.
#[derive(Debug)]
pub(super) struct Space {
    size: u64,
    position: u64,
    /// Everything before was acknowledged.
    freed: u64,
}

impl Space {
    /// `size` is not 0.
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            position: 0,
            freed: 0,
        }
    }

    /// Where so many bytes may go next. `None`: there is no room.
    pub(super) fn find(&self, length: u64) -> Option<u64> {
        if self.is_empty() {
            // From the start: of a client that writes little most of the ring never takes memory.
            return (length <= self.size).then(|| self.position.next_multiple_of(self.size));
        }
        (length <= self.size - (self.position - self.freed)).then_some(self.position)
    }

    /// The next bytes were put where they were found to have room, and announced.
    pub(super) fn take(&mut self, position: u64, length: u64) {
        if self.is_empty() {
            self.freed = position;
        }
        self.position = position + length;
    }

    /// Data up to here was acknowledged.
    pub(super) fn free(&mut self, up_to: u64) {
        self.freed = self.freed.max(up_to.min(self.position));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.freed == self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// A ring of bytes in which every announced write has its own number.
        #[test]
        fn nothing_unacknowledged_is_overwritten_and_room_that_is_there_is_found(
            size in 1usize..60, steps in prop::collection::vec((any::<bool>(), 1usize..30), 0..200)
        ) {
            let mut space = Space::new(size as u64);
            let mut bytes = vec![0u32; size];
            let mut unacknowledged: VecDeque<(u64, usize, u32)> = VecDeque::new();
            let mut number = 0;
            for (puts, n) in steps {
                if puts {
                    let used: usize = unacknowledged.iter().map(|(_, length, _)| length).sum();
                    let found = space.find(n as u64);
                    prop_assert_eq!(found.is_some(), used + n <= size);
                    let Some(position) = found else { continue };
                    prop_assert!(used > 0 || position % size as u64 == 0, "from the start");
                    number += 1;
                    for at in position as usize..position as usize + n {
                        bytes[at % size] = number;
                    }
                    space.take(position, n as u64);
                    unacknowledged.push_back((position, n, number));
                } else {
                    for _ in 0..n.min(3) {
                        if let Some((position, length, _)) = unacknowledged.pop_front() {
                            space.free(position + length as u64);
                        }
                    }
                }
                for (position, length, number) in &unacknowledged {
                    for at in *position as usize..*position as usize + length {
                        prop_assert_eq!(bytes[at % size], *number, "overwritten");
                    }
                }
                prop_assert_eq!(space.is_empty(), unacknowledged.is_empty());
            }
        }
    }
}
