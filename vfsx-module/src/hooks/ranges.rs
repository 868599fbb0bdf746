//! Which bytes of a file were written: sorted ranges that neither overlap nor touch.

use vfsx_proto::Range;

/// Most ranges kept for one handle; more go out at once, or are joined while vfsxd is away. Their list is then 20 KiB at most.
pub const MAX_RANGES: usize = 1024;

/// What a call may have changed of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Bytes(Range),
    Whole,
}

impl Span {
    /// `length` bytes from `offset`, as C counts them.
    pub fn at(offset: i64, length: u64) -> Self {
        match u64::try_from(offset) {
            Ok(start) => Span::Bytes(Range {
                start,
                end: start.saturating_add(length),
            }),
            Err(_) => Span::Whole,
        }
    }

    /// From one size to another, whichever is larger.
    pub fn between(a: u64, b: u64) -> Self {
        Span::Bytes(Range {
            start: a.min(b),
            end: a.max(b),
        })
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    sorted: Vec<Range>,
    whole: bool,
}

impl Ranges {
    pub(super) fn add(&mut self, span: Span) {
        match span {
            Span::Whole => {
                self.whole = true;
                self.sorted.clear();
            }
            Span::Bytes(range) if !self.whole && range.start < range.end => self.insert(range),
            Span::Bytes(_) => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty() && !self.whole
    }

    pub(super) fn is_full(&self) -> bool {
        self.sorted.len() >= MAX_RANGES
    }

    /// The ranges, and whether any byte may have changed. Nothing stays.
    pub(super) fn take(&mut self) -> (Vec<Range>, bool) {
        (std::mem::take(&mut self.sorted), std::mem::take(&mut self.whole))
    }

    /// Joins the two nearest when there are too many.
    pub(super) fn limit(&mut self) {
        while self.sorted.len() > MAX_RANGES {
            let holes = self.sorted.windows(2).map(|pair| match pair {
                [a, b] => b.start - a.end,
                _ => u64::MAX,
            });
            let Some((at, _)) = holes.enumerate().min_by_key(|(_, hole)| *hole) else {
                return;
            };
            let next = self.sorted.remove(at + 1);
            if let Some(range) = self.sorted.get_mut(at) {
                range.end = next.end;
            }
        }
    }

    fn insert(&mut self, new: Range) {
        // All that overlap or touch `new` become one with it.
        let first = self.sorted.partition_point(|r| r.end < new.start);
        let after = self.sorted.partition_point(|r| r.start <= new.end);
        let joined = self.sorted.get(first..after).unwrap_or_default();
        let range = match (joined.first(), joined.last()) {
            (Some(a), Some(b)) => Range {
                start: new.start.min(a.start),
                end: new.end.max(b.end),
            },
            _ => new,
        };
        self.sorted.splice(first..after, [range]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 256;

    fn bitmap(ranges: &[Range]) -> Vec<bool> {
        (0..SIZE)
            .map(|i| ranges.iter().any(|r| r.start <= i && i < r.end))
            .collect()
    }

    proptest! {
        #[test]
        fn ranges_cover_exactly_the_written_bytes(writes in prop::collection::vec((0..SIZE, 0..24u64), 0..60)) {
            let mut ranges = Ranges::default();
            let mut model = vec![false; SIZE as usize];
            for (offset, length) in writes {
                let end = (offset + length).min(SIZE);
                ranges.add(Span::at(offset as i64, end - offset));
                model[offset as usize..end as usize].fill(true);
            }
            prop_assert_eq!(ranges.is_empty(), !model.contains(&true));
            let (list, whole) = ranges.take();
            prop_assert!(!whole);
            prop_assert_eq!(bitmap(&list), model);
            prop_assert!(list.iter().all(|r| r.start < r.end));
            prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start), "sorted, and never touching: {:?}", list);
            prop_assert!(ranges.is_empty());
        }

        #[test]
        fn joining_the_nearest_loses_no_byte_and_keeps_the_limit(offsets in prop::collection::btree_set(0..1_000_000u64, MAX_RANGES..MAX_RANGES + 200)) {
            let mut ranges = Ranges::default();
            for offset in &offsets {
                ranges.add(Span::at(*offset as i64 * 16, 8));
                ranges.limit();
            }
            let (list, _) = ranges.take();
            prop_assert!(list.len() <= MAX_RANGES);
            for offset in offsets {
                let (start, end) = (offset * 16, offset * 16 + 8);
                prop_assert!(list.iter().any(|r| r.start <= start && end <= r.end), "{start} is not covered");
            }
        }
    }

    #[test]
    fn whole_swallows_ranges_and_a_bad_offset_means_whole() {
        let mut ranges = Ranges::default();
        ranges.add(Span::at(10, 5));
        ranges.add(Span::at(-1, 5));
        ranges.add(Span::at(30, 5));
        assert_eq!(ranges.take(), (vec![], true));
        assert_eq!(
            Span::at(i64::MAX, u64::MAX),
            Span::Bytes(Range {
                start: i64::MAX as u64,
                end: u64::MAX
            })
        );
        assert_eq!(Span::between(9, 4), Span::Bytes(Range { start: 4, end: 9 }));
    }
}
