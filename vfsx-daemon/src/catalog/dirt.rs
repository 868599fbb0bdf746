//! What of an object is to be read: a pure set of byte ranges and a flag.

use super::store::{DirtRow, Touch};
use rangemap::RangeSet;
use std::ops::Range;

/// Ranges kept of one object: what a client writes at random in a second or two. Beyond, they are widened until enough of
/// them merge: shipping and reading a little more costs less than a list without end that is written anew with every
/// transaction.
const MAX_RANGES: usize = 16_384;
/// They are widened to pages first, then further: in smaller parts nothing is written that is scattered so much.
const WIDENED: u64 = 4096;

/// All of a file, however long it gets.
pub(super) const WHOLE: Range<u64> = 0..u64::MAX;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Dirt {
    /// Metadata is to be read.
    pub(super) touched: Touch,
    ranges: RangeSet<u64>,
}

impl Dirt {
    pub(super) fn touched() -> Self {
        Self::metadata(Touch::Looked)
    }

    pub(super) fn metadata(touched: Touch) -> Self {
        Self {
            touched,
            ranges: RangeSet::new(),
        }
    }

    /// A range, metadata with it: content never changes without the times.
    pub(super) fn of(range: Range<u64>) -> Self {
        let mut dirt = Self::touched();
        dirt.add(range);
        dirt
    }

    pub(super) fn is_empty(&self) -> bool {
        self.touched == Touch::No && self.ranges.is_empty()
    }

    pub(super) fn has_ranges(&self) -> bool {
        !self.ranges.is_empty()
    }

    #[cfg(test)]
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().cloned()
    }

    /// The ranges in whole blocks of `block` bytes, apart.
    pub(super) fn blocks(&self, block: u64) -> Vec<Range<u64>> {
        let wide: RangeSet<u64> = self.ranges.iter().map(|range| widen(range, block)).collect();
        wide.into_iter().collect()
    }

    /// What of the set lies within a range.
    pub(super) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let cut = move |r: &Range<u64>| r.start.max(range.start)..r.end.min(range.end);
        self.ranges.overlapping(range.clone()).map(cut)
    }

    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.start < range.end {
            self.ranges.insert(range);
        }
        self.bound();
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.touched = self.touched.max(other.touched);
        self.ranges.extend(other.ranges.iter().cloned());
        self.bound();
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

    fn bound(&mut self) {
        let mut grain = WIDENED;
        while self.ranges.len() > MAX_RANGES {
            self.ranges = self.ranges.iter().map(|r| widen(r, grain)).collect();
            grain = grain.saturating_mul(2);
        }
    }
}

/// The range in whole multiples of `grain`.
fn widen(range: &Range<u64>, grain: u64) -> Range<u64> {
    let start = range.start - range.start % grain;
    let end = range.end.checked_next_multiple_of(grain).unwrap_or(u64::MAX);
    start..end
}

/// What of an object is to be read, and the records that say so. See [`DirtRow`], in which it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) journal: u64,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
    pub(super) size: u64,
    pub(super) dirt: Dirt,
}

impl Unread {
    /// Nothing yet, of a record.
    pub(super) fn of(journal: u64, time_ns: i64) -> Self {
        Self {
            journal,
            first_ns: time_ns,
            last_ns: time_ns,
            size: 0,
            dirt: Dirt::default(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.dirt.bytes(self.size)
    }
}

impl From<DirtRow> for Unread {
    fn from(row: DirtRow) -> Self {
        let ranges = row
            .ranges
            .into_iter()
            .filter(|(start, end)| start < end)
            .map(|(start, end)| start..end);
        Self {
            journal: row.journal,
            first_ns: row.first_ns,
            last_ns: row.last_ns,
            size: row.size,
            dirt: Dirt {
                touched: row.touched,
                ranges: ranges.collect(),
            },
        }
    }
}

impl From<&Unread> for DirtRow {
    fn from(unread: &Unread) -> Self {
        Self {
            journal: unread.journal,
            first_ns: unread.first_ns,
            last_ns: unread.last_ns,
            touched: unread.dirt.touched,
            size: unread.size,
            ranges: unread.dirt.ranges.iter().map(|r| (r.start, r.end)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_write_across_a_boundary_dirties_both_blocks_and_no_more_of_them_than_it_wrote() {
        let dirt = Dirt::of(4095..4097);
        let both: Vec<_> = std::iter::once(0..8192).collect();
        assert_eq!(dirt.blocks(4096), both);
        assert!(dirt.within(0..4096).eq(std::iter::once(4095..4096)));
        assert!(dirt.within(4096..8192).eq(std::iter::once(4096..4097)));
        assert_eq!(dirt.bytes(5000), 2);
    }

    #[test]
    fn an_empty_write_and_the_last_byte_there_can_be_are_no_trouble() {
        assert!(!Dirt::of(8192..8192).has_ranges());
        let last = Dirt::of(u64::MAX - 1..u64::MAX);
        let wide: Vec<_> = std::iter::once(u64::MAX - 4095..u64::MAX).collect();
        assert_eq!(last.blocks(4096), wide);
    }

    #[test]
    fn scattered_writes_without_end_stay_a_bounded_list() {
        let mut dirt = Dirt::default();
        for i in 0..20_000u64 {
            dirt.add(i * 100_000..i * 100_000 + 1);
        }
        assert!(dirt.ranges().count() <= MAX_RANGES);
        for i in 0..20_000u64 {
            assert!(dirt.ranges().any(|r| r.contains(&(i * 100_000))));
        }
    }

    #[test]
    fn a_few_ranges_too_many_are_widened_to_pages_and_not_to_blocks() {
        let mut dirt = Dirt::default();
        for i in 0..=MAX_RANGES as u64 {
            dirt.add(i * 200..i * 200 + 100);
        }
        let pages = (MAX_RANGES as u64 * 200 + 100).div_ceil(WIDENED);
        assert_eq!(dirt.bytes(u64::MAX), pages * WIDENED);
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
                    dirt.add(start..start + length);
                    model[start as usize..(start + length) as usize].fill(true);
                } else {
                    dirt.remove(start..start + length);
                    model[start as usize..(start + length) as usize].fill(false);
                }
            }
            for (at, dirty) in model.iter().enumerate() {
                prop_assert_eq!(dirt.ranges().any(|r| r.contains(&(at as u64))), *dirty);
            }
            let blocks = dirt.blocks(16);
            prop_assert!(blocks.windows(2).all(|pair| pair[0].end < pair[1].start));
            for (block, bytes) in (0u64..).zip(model.chunks(16)) {
                let start = block * 16;
                let wanted = blocks.iter().any(|r| r.contains(&start) && r.contains(&(start + 15)));
                prop_assert_eq!(wanted, bytes.contains(&true));
                let mut within = [false; 16];
                for range in dirt.within(start..start + 16) {
                    within[(range.start - start) as usize..(range.end - start) as usize].fill(true);
                }
                prop_assert_eq!(&within[..], bytes);
            }
        }
    }
}
