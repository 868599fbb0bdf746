//! Objects, segments and blocks.

use super::hash::{Hash, HashAlgorithm, ParseError, bytes32};
use super::time::Time;
use std::fmt;
use std::str::FromStr;

/// Smallest block: a page, what file systems write.
pub const MIN_BLOCK_SIZE: u32 = 4 * 1024;
/// Largest block: it is held in memory whole at both ends, many at a time.
pub const MAX_BLOCK_SIZE: u32 = 4 * 1024 * 1024;
/// Most blocks in a segment: the segment's row is written anew with every change of one of its blocks.
pub const MAX_SEGMENT_BLOCKS: u32 = 1024;

/// A bucket of this store. Never used again after the bucket is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketId(pub u64);

/// Unique within a bucket, never used again. Chosen by whoever creates the object: the source for a replicated
/// bucket, the server otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// The root directory of every bucket.
    pub const ROOT: Self = Self(1);
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// BLAKE3 of a block's plain content: where it is stored, and what makes equal blocks one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey(pub [u8; 32]);

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for BlockKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        bytes32(text).map(Self)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink { target: Vec<u8> },
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    None,
    /// zstd, block by block, kept only where it is smaller.
    #[default]
    Zstd,
}

impl Compression {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "none" => Ok(Self::None),
            "zstd" => Ok(Self::Zstd),
            _ => Err(ParseError::new(text, "zstd or none")),
        }
    }
}

/// How an object's content is cut and kept. Fixed when the object is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Bytes in a block: a power of two from 4 KiB to 4 MiB.
    pub block_size: u32,
    /// Blocks in a segment: 1 to 1024.
    pub segment_blocks: u32,
    pub hash: HashAlgorithm,
    pub compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("block size {0} is not a power of two from {MIN_BLOCK_SIZE} to {MAX_BLOCK_SIZE}")]
    BlockSize(u32),
    #[error("a segment cannot have {0} blocks, only 1 to {MAX_SEGMENT_BLOCKS}")]
    SegmentBlocks(u32),
}

impl Layout {
    pub fn validate(&self) -> Result<(), LayoutError> {
        if !self.block_size.is_power_of_two() || !(MIN_BLOCK_SIZE..=MAX_BLOCK_SIZE).contains(&self.block_size)
        {
            return Err(LayoutError::BlockSize(self.block_size));
        }
        if !(1..=MAX_SEGMENT_BLOCKS).contains(&self.segment_blocks) {
            return Err(LayoutError::SegmentBlocks(self.segment_blocks));
        }
        Ok(())
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            block_size: 64 * 1024,
            segment_blocks: 64,
            hash: HashAlgorithm::default(),
            compression: Compression::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub kind: Kind,
    /// Permission bits, `0..=0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes; authoritative: blocks at or beyond it are dropped, a short or missing block reads as zeros up to it.
    /// 0 for everything but files.
    pub size: u64,
    pub mtime: Time,
    pub atime: Time,
    /// Creation of the inode at the source.
    pub btime: Time,
    pub layout: Layout,
}

/// One stored block of an object. A position without one is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    pub key: BlockKey,
    /// Bytes of plain content: the block size, or less in the last block.
    pub length: u32,
    /// By the object's algorithm; with BLAKE3 the same bytes as the key.
    pub hash: Hash,
}

/// A run of an object's blocks: position within the segment -> block and the revision that put it there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segment {
    /// Sorted by position; positions are below `Layout::segment_blocks`.
    pub blocks: Vec<(u32, BlockRef, u64)>,
}

impl Segment {
    /// `None`: a hole.
    pub fn block_at(&self, position: u32) -> Option<BlockRef> {
        let place = self.blocks.binary_search_by_key(&position, |(p, ..)| *p).ok()?;
        self.blocks.get(place).map(|(_, block, _)| *block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_outside_the_limits_is_refused() {
        assert_eq!(Layout::default().validate(), Ok(()));
        for block_size in [0, 1, 2048, 5000, 8 * 1024 * 1024] {
            let layout = Layout {
                block_size,
                ..Layout::default()
            };
            assert_eq!(layout.validate(), Err(LayoutError::BlockSize(block_size)));
        }
        for segment_blocks in [0, 1025] {
            let layout = Layout {
                segment_blocks,
                ..Layout::default()
            };
            assert_eq!(layout.validate(), Err(LayoutError::SegmentBlocks(segment_blocks)));
        }
    }

    #[test]
    fn a_key_reads_like_its_hash() {
        let key = BlockKey([0xab; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("ab".parse::<BlockKey>().is_err());
    }
}
