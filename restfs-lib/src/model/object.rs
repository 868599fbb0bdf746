//! Objects, segments and blocks.

use super::hash::{Hash, HashAlgorithm};

/// Unique within a bucket, never used again. Chosen by whoever creates the object: the source for a replicated
/// bucket, the server otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// The root directory of every bucket.
    pub const ROOT: Self = Self(1);
}

/// BLAKE3 of a block's plain content: where it is stored, and what makes equal blocks one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey(pub [u8; 32]);

/// Seconds and nanoseconds since the epoch; before it, seconds are negative and nanoseconds count up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
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
