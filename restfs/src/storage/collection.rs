//! Collecting blocks that nothing needs any more: what a storage driver offers, and what it tells of it.

use super::StoreError;
use restfs_lib::model::BlockKey;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectOptions {
    /// Blocks that were stored within this time stay: whoever sent them may be about to name them.
    pub grace: Duration,
    /// Of a pack's bytes, hundredths that nothing needs, from which on it is rewritten.
    pub least_dead: u8,
    /// Nothing is swept.
    pub dry_run: bool,
}

/// A collection under way. While it lives, a block stays that is put, or that [`super::BlockStore::missing`] says is here.
/// Dropped at any moment, it leaves the store whole.
pub trait Collection: Send {
    /// First: tells of every block that is needed. In any order, and more than once if need be. Blocks that are touched
    /// meanwhile need not be told of.
    fn keep(&mut self, key: BlockKey);

    /// Whether the block was told of, or touched since the collection began; of a few others that is said, too.
    fn needs(&self, key: &BlockKey) -> bool;

    /// Then: sums up what could go. `false` from `go_on`, which is told how many blocks were looked at: it is to end.
    fn weigh(&mut self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<Weighed, StoreError>;

    /// Then: removes and rewrites packs. `go_on` is told of every 256 KiB read or copied.
    fn sweep(&mut self, go_on: &mut dyn FnMut(&Swept) -> bool) -> Result<Swept, StoreError>;
}

/// What nothing needs, before anything is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weighed {
    pub blocks: u64,
    /// Nothing needs them.
    pub dead_blocks: u64,
    /// Bytes of packs that can be given back.
    pub free_bytes: u64,
    /// Bytes that have to be copied for it.
    pub copy_bytes: u64,
    /// Dead bytes in packs that are within the grace.
    pub young_bytes: u64,
    /// Dead bytes in packs that hold too few of them to be rewritten.
    pub sparse_bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Bytes of packs that were looked through.
    pub seen_bytes: u64,
    /// Bytes that the disk read and wrote for it: of what is not needed only the records' headers are read.
    pub disk_bytes: u64,
    /// Blocks removed.
    pub blocks: u64,
    /// Bytes of the packs that were removed.
    pub freed_bytes: u64,
    /// Of blocks that are needed, written anew.
    pub copied_bytes: u64,
    pub packs_removed: u64,
    /// Packs that stay since a block in them that is needed is damaged.
    pub packs_damaged: u64,
    /// Packs that stay since there is no space for what is to be copied.
    pub packs_no_room: u64,
}
