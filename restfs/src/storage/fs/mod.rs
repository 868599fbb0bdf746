//! Storage driver `fs`: blocks in append-only pack files, found through an index that can be rebuilt from them.
//!
//! `put` appends a record, `flush` syncs the newest pack, a thread enters synced records into the index. What the
//! index does not have yet is in a bounded table in memory, and is read from the packs' ends at the next start.

mod cache;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod index;
mod indexer;
mod log;
mod pack;
mod read;
mod record;
mod recovery;
mod scan;
mod scrub;
#[cfg(test)]
mod tests;
mod writer;

use super::{
    BlockStore, CollectOptions, Collection, MAX_BLOCK, ScrubPosition, ScrubStep, StoreError, StoreStats,
};
use bytes::Bytes;
use cache::BlockCache;
use gc::{FsCollection, Guard, Turn};
use index::{Index, Location};
use indexer::Indexer;
use log::Log;
use pack::Packs;
use read::{ReadError, read};
use restfs_lib::content;
use restfs_lib::model::{BlockKey, Compression};
use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use writer::Record;

/// In the store's folder.
const PACKS: &str = "packs";
/// Keys of damaged blocks that are remembered, so that they are asked for and written anew: 16 GiB of blocks of 64 KiB, in
/// about 12 MiB of memory. Beyond it a damaged block is still never served, and asked for when others were written anew.
const MAX_DAMAGED: usize = 256 * 1024;
/// The store before may be closing, or a process that was just forked hold its file until it runs its own program.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
pub struct Options {
    /// A pack is left for a new one when the next record would make it longer than this.
    pub pack_size: u64,
    /// Memory for verified blocks.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pack_size: 256 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A place in a pack that should hold records and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub pack: u64,
    pub offset: u64,
    pub length: u64,
    pub reason: String,
}

/// What reading the packs brought to light.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Records entered into the index.
    pub records: u64,
    /// Bytes at the newest pack's end that were no whole record: nobody was told that they are stored.
    pub cut_bytes: u64,
    /// The first [`recovery::MAX_DAMAGES`] places.
    pub damages: Vec<Damage>,
}

pub struct FsStore {
    shared: Arc<Shared>,
    recovery: Recovery,
    // Dropped after the last use of the folder.
    indexer: Indexer,
    _lock: File,
}

struct Shared {
    packs: Arc<Packs>,
    index: Index,
    log: Log,
    cache: Mutex<BlockCache>,
    guard: Arc<Guard>,
    /// As in the index, so that a look costs nothing.
    damaged: Mutex<HashSet<BlockKey>>,
    damages_found: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
}

impl FsStore {
    /// Opens the store in `folder`, or makes one there. Takes in what was written last before a crash, cuts off what
    /// was not written to its end.
    pub fn open(folder: &Path, options: &Options) -> Result<Self, StoreError> {
        Self::open_on(folder, options, Packs::new(folder.join(PACKS)))
    }

    /// The packs are where `files` is, the index in `folder`.
    #[cfg(test)]
    pub(crate) fn open_with(
        folder: &Path,
        options: &Options,
        files: Arc<dyn restfs_lib::disk::Storage>,
    ) -> Result<Self, StoreError> {
        Self::open_on(folder, options, Packs::on(folder.join(PACKS), files))
    }

    fn open_on(folder: &Path, options: &Options, packs: Packs) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| sync_parent(folder))
            .and_then(|()| packs.make_folder())
            .map_err(|e| pack::failed(|| format!("creating {}", packs.folder().display()), folder, e))?;
        let lock = lock_folder(folder)?;
        let packs = Arc::new(packs);
        let index = Index::open(&folder.join("index.db"))?;
        let (end, recovery) = recovery::recover(&packs, &index)?;
        let damaged: HashSet<BlockKey> = index.lost(MAX_DAMAGED)?.into_iter().collect();
        let shared = Arc::new(Shared {
            log: Log::new(Arc::clone(&packs), end, options.pack_size),
            packs,
            index,
            cache: Mutex::new(BlockCache::new(options.cache_bytes)),
            guard: Arc::default(),
            damages_found: AtomicU64::new(damaged.len() as u64),
            damaged: Mutex::new(damaged),
            cache_hits: AtomicU64::new(0),
            cache_misses: AtomicU64::new(0),
        });
        let indexer = Indexer::start(Arc::clone(&shared))?;
        Ok(Self {
            shared,
            recovery,
            indexer,
            _lock: lock,
        })
    }

    /// What the start found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Makes the index anew from the records' headers alone. Flushes wait meanwhile; reads do not.
    pub fn rebuild_index(&self) -> Result<Recovery, StoreError> {
        let shared = &self.shared;
        let _turn = Turn::take(&shared.guard)?;
        shared
            .log
            .while_still(|durable| recovery::rebuild(&shared.packs, &shared.index, durable))
    }
}

impl BlockStore for FsStore {
    fn put(&self, key: BlockKey, content: &[u8], compression: Compression) -> Result<(), StoreError> {
        self.shared.put(key, content, compression)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.shared.log.flush()?;
        self.indexer.wake_when_due();
        Ok(())
    }

    fn get(&self, key: BlockKey) -> Result<Bytes, StoreError> {
        self.shared.get(key)
    }

    fn check(&self, key: BlockKey) -> Result<u64, StoreError> {
        let content = self.shared.read_stored(key)?;
        Ok(content.len() as u64)
    }

    fn contains(&self, key: BlockKey) -> Result<bool, StoreError> {
        self.shared.guard.touch(&key);
        Ok(self.shared.find(key)?.is_some())
    }

    fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>, StoreError> {
        self.shared.missing(keys)
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.shared.stats()
    }

    fn scrub(&self, from: ScrubPosition, budget: u64) -> Result<ScrubStep, StoreError> {
        scrub::step(&self.shared, from, budget)
    }

    fn collect(&self, options: CollectOptions) -> Result<Box<dyn Collection>, StoreError> {
        let stage = Box::new(|_: &'static str| {});
        Ok(Box::new(FsCollection::begin(&self.shared, options, stage)?))
    }

    fn mark_lost(&self, key: BlockKey) -> Result<(), StoreError> {
        if self.shared.find(key)?.is_none() {
            self.shared.remember_damage(key, None);
        }
        Ok(())
    }

    fn damages_found(&self) -> u64 {
        self.shared.damages_found.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn put(&self, key: BlockKey, content: &[u8], compression: Compression) -> Result<(), StoreError> {
        if content.len() > MAX_BLOCK {
            return Err(StoreError::TooLong(content.len()));
        }
        if !content::verify(&key, content) {
            return Err(StoreError::WrongKey {
                key,
                length: content.len(),
            });
        }
        self.log.writable()?;
        self.guard.touch(&key);
        let damaged = lock(&self.damaged).contains(&key);
        if !damaged && self.find(key)?.is_some() {
            return Ok(());
        }
        self.log
            .append(&Record::new(key, content, compression), damaged)?;
        if damaged {
            lock(&self.damaged).remove(&key);
        }
        if self.log.is_full_of_recent() {
            self.log.flush()?;
            self.enter_recent()?;
        }
        Ok(())
    }

    fn get(&self, key: BlockKey) -> Result<Bytes, StoreError> {
        if let Some(content) = lock(&self.cache).get(key) {
            self.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(content);
        }
        self.cache_misses.fetch_add(1, Ordering::Relaxed);
        let content = self.read_stored(key)?;
        lock(&self.cache).put(key, content.clone());
        Ok(content)
    }

    fn read_stored(&self, key: BlockKey) -> Result<Bytes, StoreError> {
        let location = self.find(key)?.ok_or(StoreError::Missing(key))?;
        self.read_from(key, location)
    }

    /// The block's record was found there just now.
    fn read_from(&self, key: BlockKey, mut location: Location) -> Result<Bytes, StoreError> {
        let mut result = read(&self.packs, key, location);
        while result.is_err() {
            // A collection may have moved it, and removed the pack that it was in.
            let now = self.find(key)?.ok_or(StoreError::Missing(key))?;
            if now == location {
                break;
            }
            location = now;
            result = read(&self.packs, key, location);
        }
        match result {
            Ok(content) => Ok(content),
            Err(ReadError::Damaged(reason)) => {
                self.note_damage(key, location, &reason);
                Err(StoreError::Corrupt {
                    key,
                    pack: location.pack,
                    offset: location.offset,
                    reason,
                })
            }
            Err(ReadError::Io(source)) => Err(StoreError::Io {
                what: format!("reading pack {}", location.pack),
                source,
            }),
        }
    }

    fn find(&self, key: BlockKey) -> Result<Option<Location>, StoreError> {
        // In this order: see `Guard`, and a record leaves the table of recent ones after it was entered into the index.
        let condemned = self.guard.condemned(key);
        match self.log.find_recent(key) {
            Some(location) => Ok(Some(location)),
            None => Ok(self.index.find(key)?.filter(|at| condemned != Some(*at))),
        }
    }

    fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>, StoreError> {
        keys.iter().for_each(|key| self.guard.touch(key));
        // In the order of `find`.
        let condemned: Vec<BlockKey> = keys
            .iter()
            .copied()
            .filter(|key| self.guard.condemned(*key).is_some())
            .collect();
        let not_recent: Vec<BlockKey> = keys
            .iter()
            .copied()
            .filter(|key| self.log.find_recent(*key).is_none())
            .collect();
        let indexed = self.index.contains(&not_recent)?;
        let mut absent: HashSet<BlockKey> = not_recent
            .into_iter()
            .zip(indexed)
            .filter(|(_, known)| !known)
            .map(|(key, _)| key)
            .collect();
        for key in condemned {
            // A newer record may have taken its place.
            if self.find(key)?.is_none() {
                absent.insert(key);
            }
        }
        let damaged = lock(&self.damaged);
        let mut told = HashSet::new();
        let wanted = |key: &BlockKey| absent.contains(key) || damaged.contains(key);
        Ok(keys
            .iter()
            .copied()
            .filter(|key| wanted(key) && told.insert(*key))
            .collect())
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        let (packs, stored_bytes) = self.packs.bytes().map_err(|source| StoreError::Io {
            what: format!("listing {}", self.packs.folder().display()),
            source,
        })?;
        let totals = self.index.totals()?;
        let recent = self.log.recent_totals();
        Ok(StoreStats {
            blocks: totals.blocks + recent.blocks,
            plain_bytes: totals.plain_bytes + recent.plain_bytes,
            stored_bytes,
            packs,
            damaged_blocks: lock(&self.damaged).len() as u64,
            cache_hits: self.cache_hits.load(Ordering::Relaxed),
            cache_misses: self.cache_misses.load(Ordering::Relaxed),
        })
    }

    /// Enters what was synced into the index.
    fn enter_recent(&self) -> Result<(), StoreError> {
        self.log.take_synced(|batch| {
            self.index.update(|update| {
                for entry in batch {
                    update.put(entry.key, entry.location)?;
                    update.mark(entry.location.pack, entry.record_end())?;
                }
                Ok(())
            })
        })
    }

    fn note_damage(&self, key: BlockKey, at: Location, reason: &str) {
        // It may have been written anew while the old record was read.
        if !matches!(self.find(key), Ok(Some(now)) if now == at) {
            return;
        }
        if self.remember_damage(key, Some(at)) {
            tracing::error!(
                pack = at.pack,
                offset = at.offset,
                "block {} is damaged: {reason}; it will be asked for again",
                hex::encode(key.0)
            );
        }
    }

    /// False when it is known already.
    fn remember_damage(&self, key: BlockKey, at: Option<Location>) -> bool {
        let mut damaged = lock(&self.damaged);
        if damaged.len() >= MAX_DAMAGED || !damaged.insert(key) {
            return false;
        }
        drop(damaged);
        self.damages_found.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.index.mark_lost(key, at) {
            tracing::warn!("keeping in mind that a block is damaged: {error}");
        }
        true
    }

    /// Its record was read and is good, or nobody needs it.
    fn forget_damage(&self, key: BlockKey) {
        if lock(&self.damaged).remove(&key)
            && let Err(error) = self.index.unmark_lost(key)
        {
            tracing::warn!("keeping in mind that a block is good: {error}");
        }
    }
}

/// Keeps a second process out until the file is closed.
fn lock_folder(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let io = |source| StoreError::Io {
        what: format!("locking {}", path.display()),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(folder.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
}

/// The folder's name is durable before anything in it is told to be.
fn sync_parent(folder: &Path) -> std::io::Result<()> {
    folder
        .parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked while holding it left a whole value: each critical section changes its value last.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
