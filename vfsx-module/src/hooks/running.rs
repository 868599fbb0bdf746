//! Writes that have begun and not ended, of a session whose data vfsxd may want. Pure.

use super::Span;
use vfsx_proto::{LONG_WRITE, NodeRef, Range};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// In the order in which they began.
    list: Vec<Write>,
    last: u64,
}

#[derive(Debug)]
struct Write {
    number: u64,
    handle: u64,
    node: NodeRef,
    range: Range,
    began_ns: u64,
    /// Sequence of the first event that told of it.
    announced: Option<u64>,
    /// The connection by which vfsxd was told all of its data.
    told: Option<u64>,
    /// Something else changed the same bytes meanwhile: only the disk knows what came last.
    met: bool,
}

/// One of them that vfsxd does not know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unannounced {
    pub(super) number: u64,
    pub(super) handle: u64,
    pub(super) node: NodeRef,
    pub(super) range: Range,
}

impl Running {
    /// A write begins. Gives its number, which is never 0.
    pub(super) fn begin(&mut self, handle: u64, node: NodeRef, range: Range, began_ns: u64) -> u64 {
        self.last += 1;
        let met = self.meet(node, range);
        self.list.push(Write {
            number: self.last,
            handle,
            node,
            range,
            began_ns,
            announced: None,
            told: None,
            met,
        });
        self.last
    }

    /// vfsxd is told of it, from this event on; `told`: with all its data, by this connection.
    pub(super) fn announce(&mut self, number: u64, sequence: u64, told: Option<u64>) {
        if let Some(write) = self.list.iter_mut().find(|write| write.number == number) {
            write.announced = Some(sequence);
            write.told = told;
        }
    }

    /// These bytes are changed. Whether a write of them is under way.
    pub(super) fn meet(&mut self, node: NodeRef, range: Range) -> bool {
        let mut any = false;
        for write in self.list.iter_mut().filter(|write| write.node == node) {
            if write.range.start < range.end && range.start < write.range.end {
                write.met = true;
                any = true;
            }
        }
        any
    }

    /// It has ended. What only the disk knows of now, if anything: it is to be told as a range. `connection`: the present one to
    /// vfsxd. By another one it was told a vfsxd that may be gone, and who has come after it may have read the file too soon.
    pub(super) fn end(
        &mut self,
        number: u64,
        complete: bool,
        now_ns: u64,
        connection: Option<u64>,
    ) -> Option<Range> {
        let at = self.list.iter().position(|write| write.number == number)?;
        let write = self.list.remove(at);
        let long = u128::from(now_ns.saturating_sub(write.began_ns)) > LONG_WRITE.as_nanos();
        let told = write.told.is_some() && write.told == connection;
        let known = complete && told && write.announced.is_some() && !write.met && !long;
        (!known).then_some(write.range)
    }

    /// All announced writes with lower sequences have ended.
    pub(super) fn lowest(&self) -> u64 {
        let announced = self.list.iter().filter_map(|write| write.announced);
        announced.min().unwrap_or(u64::MAX)
    }

    pub(super) fn unannounced(&self) -> Vec<Unannounced> {
        let writes = self.list.iter().filter(|write| write.announced.is_none());
        writes
            .map(|write| Unannounced {
                number: write.number,
                handle: write.handle,
                node: write.node,
                range: write.range,
            })
            .collect()
    }
}

/// The bytes that a write may change.
pub(super) fn range_of(span: Span) -> Range {
    match span {
        Span::Bytes(range) => range,
        Span::Whole => Range {
            start: 0,
            end: u64::MAX,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const HERE: Option<u64> = Some(1);

    fn node(ino: u64) -> NodeRef {
        NodeRef {
            dev: 1,
            ino,
            btime_ns: 0,
        }
    }

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    fn begun(running: &mut Running, ino: u64, range: Range) -> u64 {
        let number = running.begin(1, node(ino), range, 0);
        running.announce(number, 100 + number, HERE);
        number
    }

    #[test]
    fn a_write_that_is_known_is_not_told_again() {
        let mut running = Running::default();
        let one = begun(&mut running, 1, range(0, 10));
        let other = begun(&mut running, 2, range(0, 10));
        let beside = begun(&mut running, 1, range(10, 20));
        for number in [one, other, beside] {
            assert_eq!(running.end(number, true, SECOND, HERE), None);
        }
        assert_eq!(running.end(one, true, 0, HERE), None, "it has ended");
    }

    #[test]
    fn failed_long_untold_and_unannounced_writes_are_told_as_ranges() {
        let mut running = Running::default();
        let failed = begun(&mut running, 1, range(0, 10));
        assert_eq!(running.end(failed, false, 0, HERE), Some(range(0, 10)));
        let long = begun(&mut running, 1, range(0, 10));
        assert_eq!(running.end(long, true, SECOND + 1, HERE), Some(range(0, 10)));
        let untold = running.begin(1, node(1), range(0, 10), 0);
        running.announce(untold, 9, None);
        assert_eq!(running.end(untold, true, 0, HERE), Some(range(0, 10)));
        let unannounced = running.begin(1, node(1), range(0, 10), 0);
        assert_eq!(running.unannounced().len(), 1);
        assert_eq!(running.end(unannounced, true, 0, HERE), Some(range(0, 10)));
    }

    #[test]
    fn a_write_that_outlives_its_connection_is_told_as_a_range() {
        let mut running = Running::default();
        for later in [None, Some(2)] {
            let number = begun(&mut running, 1, range(0, 10));
            assert_eq!(running.end(number, true, 0, later), Some(range(0, 10)));
        }
    }

    #[test]
    fn writes_that_meet_are_both_told_whichever_ends_first_and_so_are_those_that_a_cut_meets() {
        let mut running = Running::default();
        let first = begun(&mut running, 1, range(0, 10));
        let second = begun(&mut running, 1, range(9, 20));
        let third = begun(&mut running, 1, range(30, 40));
        assert_eq!(running.end(second, true, 0, HERE), Some(range(9, 20)));
        assert_eq!(running.end(first, true, 0, HERE), Some(range(0, 10)));
        assert!(running.meet(node(1), range(35, u64::MAX)));
        assert_eq!(running.end(third, true, 0, HERE), Some(range(30, 40)));
        assert!(!running.meet(node(1), range(0, u64::MAX)));
    }

    proptest! {
        /// Against a list of what was announced and has not ended.
        #[test]
        fn lowest_is_that_of_the_oldest_announced_write_under_way(steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..80)) {
            let mut running = Running::default();
            let mut model: Vec<(u64, Option<u64>)> = Vec::new();
            let mut sequence = 0;
            for (what, which) in steps {
                match what {
                    0 | 1 => {
                        let number = running.begin(1, node(1), range(0, 1), 0);
                        let announced = (what == 0).then(|| {
                            sequence += 1;
                            running.announce(number, sequence, HERE);
                            sequence
                        });
                        model.push((number, announced));
                    }
                    2 if !model.is_empty() => {
                        let (number, _) = model.remove(which.index(model.len()));
                        running.end(number, true, 0, HERE);
                    }
                    _ => {}
                }
                let lowest = model.iter().filter_map(|(_, announced)| *announced).min();
                prop_assert_eq!(running.lowest(), lowest.unwrap_or(u64::MAX));
                let unannounced: Vec<u64> = running.unannounced().iter().map(|write| write.number).collect();
                let expected: Vec<u64> = model.iter().filter(|(_, a)| a.is_none()).map(|(n, _)| *n).collect();
                prop_assert_eq!(unannounced, expected);
            }
        }
    }
}
