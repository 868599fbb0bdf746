//! Where a byte of an object is: offset -> block -> segment and position.

use crate::model::Layout;

/// Arithmetic never wraps: an index that would lie beyond 2^64 bytes is beyond every object's end.
impl Layout {
    /// Index of the block that holds this byte.
    pub fn block_of(&self, offset: u64) -> u64 {
        offset / u64::from(self.block_size)
    }

    /// First byte of a block.
    pub fn offset_of(&self, block: u64) -> u64 {
        block.saturating_mul(u64::from(self.block_size))
    }

    /// Segment, and position in it, of a block.
    pub fn place_of(&self, block: u64) -> (u64, u32) {
        let per_segment = u64::from(self.segment_blocks);
        (block / per_segment, (block % per_segment) as u32)
    }

    /// Index of the block at a position of a segment.
    pub fn block_at(&self, segment: u64, position: u32) -> u64 {
        segment
            .saturating_mul(u64::from(self.segment_blocks))
            .saturating_add(u64::from(position))
    }

    /// Blocks of an object of this many bytes.
    pub fn blocks_in(&self, size: u64) -> u64 {
        size.div_ceil(u64::from(self.block_size))
    }

    /// Segments of an object of this many bytes.
    pub fn segments_in(&self, size: u64) -> u64 {
        self.blocks_in(size).div_ceil(u64::from(self.segment_blocks))
    }

    /// Bytes of a block in an object of this many bytes: the block size, less in the last block, 0 beyond the end.
    pub fn expected_length(&self, block: u64, size: u64) -> u32 {
        let left = size.saturating_sub(self.offset_of(block));
        left.min(u64::from(self.block_size)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_block_is_short_and_the_next_is_empty() {
        let layout = Layout {
            block_size: 4096,
            segment_blocks: 2,
            ..Layout::default()
        };
        assert_eq!(layout.blocks_in(0), 0);
        assert_eq!(layout.segments_in(0), 0);
        assert_eq!(layout.blocks_in(8193), 3);
        assert_eq!(layout.segments_in(8193), 2);
        assert_eq!(layout.expected_length(1, 8193), 4096);
        assert_eq!(layout.expected_length(2, 8193), 1);
        assert_eq!(layout.expected_length(3, 8193), 0);
        assert_eq!(layout.expected_length(u64::MAX, u64::MAX), 0);
    }

    proptest! {
        #[test]
        fn every_byte_is_in_the_block_that_its_place_names(offset: u64, power in 12u32..=22, segment_blocks in 1u32..=1024) {
            let layout = Layout { block_size: 1 << power, segment_blocks, ..Layout::default() };
            let block = layout.block_of(offset);
            let (segment, position) = layout.place_of(block);
            prop_assert!(position < segment_blocks);
            prop_assert_eq!(layout.block_at(segment, position), block);
            let start = layout.offset_of(block);
            prop_assert!(start <= offset && offset - start < u64::from(layout.block_size));
            if let Some(size) = offset.checked_add(1) {
                prop_assert_eq!(layout.blocks_in(size), block + 1);
                prop_assert_eq!(layout.segments_in(size), segment + 1);
                prop_assert_eq!(u64::from(layout.expected_length(block, size)), size - start);
            }
        }
    }
}
