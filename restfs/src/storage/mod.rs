//! Block store: immutable blocks by the BLAKE3 of their content. Knows nothing of objects and buckets.

mod collection;
pub mod fs;

pub use collection::{CollectOptions, Collection, Swept, Weighed};

use bytes::Bytes;
use restfs_lib::model::{BlockKey, Compression};
use std::fmt;
use std::io;

/// Longest plain content of a block; the largest block size a layout may have.
pub const MAX_BLOCK: usize = 4 * 1024 * 1024;

/// A storage driver. All calls block and may be made from many threads at once.
pub trait BlockStore: Send + Sync {
    /// Takes a block in; durable only after a later [`BlockStore::flush`]. A block that is there already is not
    /// written again, and the next flush covers it all the same. A block whose stored copy was found damaged is
    /// written anew.
    fn put(&self, key: BlockKey, content: &[u8], compression: Compression) -> Result<(), StoreError>;

    /// Makes every block durable whose `put` returned before this call. Concurrent callers share one fdatasync.
    fn flush(&self) -> Result<(), StoreError>;

    /// The plain content, verified against its key.
    fn get(&self, key: BlockKey) -> Result<Bytes, StoreError>;

    /// Reads the stored copy, whatever a cache has, and verifies it. Bytes of its content.
    fn check(&self, key: BlockKey) -> Result<u64, StoreError>;

    fn contains(&self, key: BlockKey) -> Result<bool, StoreError>;

    /// Those of `keys` that a `put` is needed for, in the order given, each once.
    fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>, StoreError>;

    fn stats(&self) -> Result<StoreStats, StoreError>;

    /// Reads everything that is stored from `from` on, about `budget` bytes of it, and checks it to the last bit. Blocks that
    /// are no good any more are asked for again from now on.
    fn scrub(&self, from: ScrubPosition, budget: u64) -> Result<ScrubStep, StoreError>;

    /// Begins to collect blocks that nothing needs any more. One at a time.
    fn collect(&self, options: CollectOptions) -> Result<Box<dyn Collection>, StoreError>;

    /// A block that is named and not here: from now on it counts as damaged.
    fn mark_lost(&self, key: BlockKey) -> Result<(), StoreError>;

    /// Changes whenever a block is found damaged.
    fn damages_found(&self) -> u64;
}

/// A place in the packs; the default is their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ScrubPosition {
    pub pack: u64,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubStep {
    /// Where to go on; `None`: this was the end.
    pub next: Option<ScrubPosition>,
    /// Bytes that were read.
    pub read: u64,
    pub damages: Vec<ScrubDamage>,
}

/// A place of a pack that is not what was written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubDamage {
    pub pack: u64,
    pub offset: u64,
    /// The block that was there; `None`: nothing that is needed.
    pub key: Option<BlockKey>,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    pub blocks: u64,
    /// Bytes of content, each block once, before compression.
    pub plain_bytes: u64,
    /// Bytes of the pack files.
    pub stored_bytes: u64,
    pub packs: u64,
    /// Blocks found damaged or gone and not yet written anew.
    pub damaged_blocks: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was stored; the same call succeeds once there is space again.
    #[error("no space left for blocks in {place}: {source}; free space or enlarge the file system")]
    Full { place: String, source: io::Error },
    /// The stored copy is not what was put. A `put` of the content writes it anew.
    #[error("block {} is damaged: pack {pack}, offset {offset}: {reason}", Hex(key))]
    Corrupt {
        key: BlockKey,
        pack: u64,
        offset: u64,
        reason: String,
    },
    #[error("block {} is not in the store", Hex(.0))]
    Missing(BlockKey),
    /// The caller's mistake, or damage on the way here: nothing was stored.
    #[error("content of {length} bytes is not that of block {}", Hex(key))]
    WrongKey { key: BlockKey, length: usize },
    #[error("block of {0} bytes is longer than {MAX_BLOCK}")]
    TooLong(usize),
    /// A sync failed, so the kernel may have dropped what was written: no more writes until the store is opened
    /// again and the packs' tails were read from the disk.
    #[error("the block store takes no more writes since a sync failed ({0}); check the disk, then restart")]
    Failed(String),
    #[error("a collection of the block store is under way; try again when it has ended")]
    Collecting,
    #[error("{0} is in use by another process; stop it first")]
    Locked(String),
    #[error("block store format: {0}")]
    Format(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("block index {place}: {source}")]
    Index { place: String, source: rusqlite::Error },
}

/// A key as the 64 hex digits that people see.
struct Hex<'a>(&'a BlockKey);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.0))
    }
}
