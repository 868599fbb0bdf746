//! What of an object is to be read: a pure set of byte ranges and a flag.

use super::store::DirtRow;
use rangemap::RangeSet;
use std::ops::Range;

/// Ranges kept of one object. Beyond, they are widened until they merge: reading a little more costs less than keeping
/// a list that is written anew with every event.
const MAX_RANGES: usize = 4096;

/// All of a file, however long it gets.
pub(super) const WHOLE: Range<u64> = 0..u64::MAX;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Dirt {
    /// Metadata is to be read.
    pub(super) touched: bool,
    ranges: RangeSet<u64>,
}

impl Dirt {
    pub(super) fn touched() -> Self {
        Self {
            touched: true,
            ranges: RangeSet::new(),
        }
    }

    /// A range in whole blocks of `block` bytes, metadata with it: content never changes without the times.
    pub(super) fn of(range: Range<u64>, block: u32) -> Self {
        let mut dirt = Self::touched();
        dirt.add(range, u64::from(block));
        dirt
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.touched && self.ranges.is_empty()
    }

    pub(super) fn has_ranges(&self) -> bool {
        !self.ranges.is_empty()
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().cloned()
    }

    pub(super) fn add(&mut self, range: Range<u64>, grain: u64) {
        if range.start < range.end {
            self.ranges.insert(widen(&range, grain.max(1)));
        }
        self.bound(grain);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.touched |= other.touched;
        self.ranges.extend(other.ranges.iter().cloned());
        self.bound(1);
    }

    /// These bytes have been read.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.start < range.end {
            self.ranges.remove(range);
        }
    }

    /// Bytes to read of an object that is this long.
    pub(super) fn bytes(&self, size: u64) -> u64 {
        self.ranges
            .iter()
            .map(|r| r.end.min(size).saturating_sub(r.start))
            .sum()
    }

    fn bound(&mut self, grain: u64) {
        let mut grain = grain.max(4096);
        while self.ranges.len() > MAX_RANGES {
            grain = grain.saturating_mul(2);
            self.ranges = self.ranges.iter().map(|r| widen(r, grain)).collect();
        }
    }
}

/// The range in whole multiples of `grain`.
fn widen(range: &Range<u64>, grain: u64) -> Range<u64> {
    let start = range.start - range.start % grain;
    let end = range.end.checked_next_multiple_of(grain).unwrap_or(u64::MAX);
    start..end
}

impl Dirt {
    pub(super) fn from_row(row: &DirtRow) -> Self {
        let ranges = row
            .ranges
            .iter()
            .filter(|(start, end)| start < end)
            .map(|(start, end)| *start..*end);
        Self {
            touched: row.touched,
            ranges: ranges.collect(),
        }
    }

    pub(super) fn write(&self, row: &mut DirtRow) {
        row.touched = self.touched;
        row.ranges = self.ranges.iter().map(|r| (r.start, r.end)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_write_across_a_boundary_dirties_both_blocks() {
        let dirt = Dirt::of(4095..4097, 4096);
        assert!(dirt.ranges().eq(std::iter::once(0..8192)));
        assert_eq!(dirt.bytes(5000), 5000);
    }

    #[test]
    fn an_empty_write_and_the_last_byte_there_can_be_are_no_trouble() {
        assert!(!Dirt::of(8192..8192, 4096).has_ranges());
        let last = Dirt::of(u64::MAX - 1..u64::MAX, 4096);
        assert!(last.ranges().eq(std::iter::once(u64::MAX - 4095..u64::MAX)));
    }

    #[test]
    fn scattered_writes_without_end_stay_a_bounded_list() {
        let mut dirt = Dirt::default();
        for i in 0..20_000u64 {
            dirt.add(i * 1_000_000..i * 1_000_000 + 1, 4096);
        }
        assert!(dirt.ranges().count() <= MAX_RANGES);
        for i in 0..20_000u64 {
            assert!(dirt.ranges().any(|r| r.contains(&(i * 1_000_000))));
        }
    }

    proptest! {
        #[test]
        fn what_was_written_and_not_read_since_is_always_in_the_set(
            steps in proptest::collection::vec((any::<bool>(), 0u64..64, 0u64..64), 1..40)
        ) {
            let mut dirt = Dirt::default();
            let mut model = [false; 128];
            for (write, start, length) in steps {
                if write {
                    dirt.add(start..start + length, 4);
                    if length > 0 {
                        let end = (start + length).next_multiple_of(4);
                        model[(start - start % 4) as usize..end as usize].fill(true);
                    }
                } else {
                    dirt.remove(start..start + length);
                    model[start as usize..(start + length) as usize].fill(false);
                }
            }
            for (at, dirty) in model.iter().enumerate() {
                prop_assert_eq!(dirt.ranges().any(|r| r.contains(&(at as u64))), *dirty);
            }
        }
    }
}
