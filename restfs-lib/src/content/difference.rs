//! What of a block differs from the block that was there before: so that the difference travels instead of the block.

use crate::checksum::crc32c;
use crate::model::BlockKey;
use std::ops::Range;

/// Ranges kept of one difference. More of them are joined, nearest first: each costs bytes of its own.
pub const MAX_RANGES: usize = 256;
/// Ranges that are no further apart are one: a range costs about as much on the wire as the bytes between them.
const GAP: u32 = 32;
/// Bytes compared at a time.
const STEP: usize = 32;
/// Bytes of a page: what most programs write at a time that write into the middle of a file.
const PAGE: usize = 4096;
const SUM: usize = 4;

/// How a block came out of an older one. A claim, not a proof: who builds the block checks it against its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub base: BlockKey,
    ranges: Vec<Range<u32>>,
}

impl Difference {
    /// `ranges`: bytes of the block that may be others than the base's, in any order, and all that lie beyond the
    /// base's end.
    pub fn new(base: BlockKey, ranges: Vec<Range<u32>>) -> Self {
        let ranges = joined(ranges);
        Self { base, ranges }
    }

    /// Sorted and apart, none empty, [`MAX_RANGES`] at most.
    pub fn ranges(&self) -> &[Range<u32>] {
        &self.ranges
    }

    /// Bytes that may differ.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|r| u64::from(r.end - r.start)).sum()
    }

    /// From this one's base to the block that `later` leads to, when `later` begins where this one ends.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        let both = self.ranges.iter().chain(&later.ranges).cloned();
        Self::new(self.base, both.collect())
    }
}

/// Where `new` is not `old`: at least the bytes that differ, and all beyond the end of `old`.
pub fn differing(old: &[u8], new: &[u8]) -> Vec<Range<u32>> {
    let mut found: Vec<Range<u32>> = Vec::new();
    let common = old.len().min(new.len());
    let steps = old
        .chunks(STEP)
        .zip(new.chunks(STEP))
        .zip((0..common).step_by(STEP));
    let changed = steps
        .filter(|((old, new), _)| !new.starts_with(old) && !old.starts_with(new))
        .map(|(_, at)| at..(at + STEP).min(common));
    for range in changed.chain(std::iter::once(common..new.len())) {
        let range = range.start as u32..range.end as u32;
        match found.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => found.push(range),
        }
    }
    found
}

/// By which somebody who has a newer block can tell which pages of it are others: CRC-32C of each page, four bytes, the least
/// significant first.
pub fn page_sums(block: &[u8]) -> Vec<u8> {
    block
        .chunks(PAGE)
        .flat_map(|page| crc32c(&[page]).to_le_bytes())
        .collect()
}

/// Pages of `new` that are not those of the block with these sums. One in four thousand million is missed, so the block is
/// checked all the same.
pub fn other_pages(sums: &[u8], new: &[u8]) -> Vec<Range<u32>> {
    let mut sums = sums.chunks_exact(SUM);
    let pages = new.chunks(PAGE).zip((0..).step_by(PAGE));
    pages
        .filter(|(page, _)| sums.next() != Some(&crc32c(&[page]).to_le_bytes()))
        .map(|(page, at)| at..at + page.len() as u32)
        .collect()
}

/// The bytes of `content` in `ranges`, one range after another, and the ranges themselves as far as `content` goes.
pub fn cut(content: &[u8], ranges: &[Range<u32>]) -> (Vec<Range<u32>>, Vec<u8>) {
    let (mut kept, mut bytes) = (Vec::with_capacity(ranges.len()), Vec::new());
    for range in ranges {
        let end = range.end.min(content.len() as u32);
        if let Some(piece) = content
            .get(range.start as usize..end as usize)
            .filter(|piece| !piece.is_empty())
        {
            kept.push(range.start..end);
            bytes.extend_from_slice(piece);
        }
    }
    (kept, bytes)
}

/// The block of `length` bytes that is `base` but for `ranges`, which have `bytes`, one range after another. `None`: these
/// do not make a block: a range is outside of it, they are not in order, `bytes` is not as long as they are, or something
/// beyond the base's end is in none of them.
pub fn patch(base: &[u8], length: usize, ranges: &[Range<u32>], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut block = base.get(..length.min(base.len()))?.to_vec();
    let mut left = bytes;
    let mut done = 0;
    for range in ranges {
        let (start, end) = (range.start as usize, range.end as usize);
        if start < done || end <= start || end > length || start > block.len() {
            return None;
        }
        let (piece, rest) = left.split_at_checked(end - start)?;
        if end > block.len() {
            block.resize(end, 0);
        }
        block.get_mut(start..end)?.copy_from_slice(piece);
        (left, done) = (rest, end);
    }
    (left.is_empty() && block.len() == length).then_some(block)
}

fn joined(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable_by_key(|range| range.start);
    let mut gap = GAP;
    loop {
        ranges = join(ranges, gap);
        if ranges.len() <= MAX_RANGES {
            return ranges;
        }
        gap = gap.saturating_mul(2);
    }
}

fn join(ranges: Vec<Range<u32>>, gap: u32) -> Vec<Range<u32>> {
    let mut joined: Vec<Range<u32>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const KEY: BlockKey = BlockKey([1; 32]);

    /// A block, and what became of it by some writes and changes of its length.
    fn rewritten() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let step = (
            0usize..4000,
            0usize..300,
            any::<u8>(),
            prop::option::of(0usize..4000),
        );
        (vec(any::<u8>(), 0..4000), vec(step, 1..5)).prop_map(|(first, steps)| {
            let mut blocks = vec![first];
            for (at, length, byte, size) in steps {
                let mut block = blocks.last().unwrap().clone();
                if let Some(size) = size {
                    block.resize(size, 0);
                }
                let end = (at + length).min(block.len());
                if at < end {
                    block[at..end].fill(byte);
                }
                blocks.push(block);
            }
            blocks
        })
    }

    fn rebuilt(base: &[u8], block: &[u8], difference: &Difference) -> Option<Vec<u8>> {
        let (ranges, bytes) = cut(block, difference.ranges());
        patch(base, block.len(), &ranges, &bytes)
    }

    fn between(old: &[u8], new: &[u8]) -> Difference {
        Difference::new(KEY, differing(old, new))
    }

    proptest! {
        #[test]
        fn a_block_comes_out_of_its_base_and_the_difference(blocks in rewritten()) {
            for pair in blocks.windows(2) {
                let difference = between(&pair[0], &pair[1]);
                prop_assert_eq!(rebuilt(&pair[0], &pair[1], &difference), Some(pair[1].clone()));
            }
        }

        #[test]
        fn a_block_comes_out_of_its_base_and_the_pages_whose_sums_are_others(blocks in rewritten(), times in 1usize..5) {
            let long = |block: &[u8]| block.repeat(times);
            for pair in blocks.windows(2) {
                let (old, new) = (long(&pair[0]), long(&pair[1]));
                let pages = Difference::new(KEY, other_pages(&page_sums(&old), &new));
                prop_assert_eq!(rebuilt(&old, &new, &pages), Some(new));
            }
        }

        /// The block in the middle was never anywhere but here.
        #[test]
        fn differences_one_after_another_are_one_difference(blocks in rewritten()) {
            let mut steps = blocks.windows(2).map(|pair| between(&pair[0], &pair[1]));
            let first = steps.next().unwrap();
            let whole = steps.fold(first, |whole, step| whole.then(&step));
            let (base, last) = (blocks.first().unwrap(), blocks.last().unwrap());
            prop_assert_eq!(rebuilt(base, last, &whole), Some(last.clone()));
            prop_assert_eq!(whole.base, KEY);
        }

        #[test]
        fn ranges_are_few_apart_in_order_and_leave_nothing_out(ranges in vec((0u32..1 << 20, 0u32..40), 0..1000)) {
            let ranges: Vec<Range<u32>> = ranges.into_iter().map(|(at, length)| at..at + length).collect();
            let kept = Difference::new(KEY, ranges.clone());
            prop_assert!(kept.ranges().len() <= MAX_RANGES);
            prop_assert!(kept.ranges().windows(2).all(|pair| pair[0].end + GAP < pair[1].start));
            for range in ranges.into_iter().filter(|r| !r.is_empty()) {
                prop_assert!(kept.ranges().iter().any(|k| k.start <= range.start && range.end <= k.end));
            }
        }

        #[test]
        fn what_no_sender_of_ours_would_say_makes_no_block_and_nothing_worse(
            base in vec(any::<u8>(), 0..100),
            length in 0usize..120,
            ranges in vec((0u32..130, 0u32..130), 0..6),
            bytes in vec(any::<u8>(), 0..100),
        ) {
            let ranges: Vec<Range<u32>> = ranges.into_iter().map(|(start, end)| start..end).collect();
            let covered: usize = ranges.iter().map(|r| r.len()).sum();
            if let Some(block) = patch(&base, length, &ranges, &bytes) {
                prop_assert!(block.len() == length && covered == bytes.len());
            }
        }
    }

    #[test]
    fn a_small_write_is_a_small_difference() {
        let old = vec![7u8; 65536];
        let mut new = old.clone();
        new[10_000..14_096].fill(8);
        let difference = between(&old, &new);
        assert!(
            difference.bytes() <= 4096 + 2 * STEP as u64,
            "{}",
            difference.bytes()
        );
        assert_eq!(between(&old, &old).bytes(), 0);
    }

    #[test]
    fn only_pages_that_changed_have_other_sums() {
        let old: Vec<u8> = (0..65536u32).map(|i| (i * i % 251) as u8).collect();
        let mut new = old.clone();
        new[4095] ^= 1;
        new[40_000] ^= 1;
        let pages = other_pages(&page_sums(&old), &new);
        assert_eq!(pages, [0..4096, 36864..40960]);
        assert_eq!(page_sums(&old).len(), 16 * SUM);
        assert!(other_pages(&page_sums(&old), &old).is_empty());
        // Sums that are none are sums of nothing.
        assert_eq!(other_pages(b"abc", &new).len(), 16);
    }

    #[test]
    fn a_file_cut_in_a_block_and_one_that_grows_travel_as_what_is_new() {
        let old = vec![7u8; 1000];
        assert_eq!(between(&old, &old[..10]).bytes(), 0);
        assert_eq!(
            rebuilt(&old, &old[..10], &between(&old, &old[..10])),
            Some(vec![7; 10])
        );
        let longer = [old.clone(), vec![8; 50]].concat();
        let grown: Vec<_> = std::iter::once(1000..1050).collect();
        assert_eq!(differing(&old, &longer), grown);
        // Bytes beyond the base's end that nobody sent are not made up.
        assert_eq!(patch(&old, 1050, &[], &[]), None);
        let short: Vec<_> = std::iter::once(1001..1050).collect();
        assert_eq!(patch(&old, 1050, &short, &[8; 49]), None);
    }
}
