//! The end of the packs: appends, syncs, and the records that the index does not have yet.

use super::index::{Location, Totals};
use super::lock;
use super::pack::{self, Packs};
use super::record::FILE_HEADER;
use super::writer::{End, Recent, Record, Writer};
use crate::storage::StoreError;
use restfs_lib::model::BlockKey;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Records waiting for the index, at about 150 bytes each. A `put` beyond it enters them itself.
const MAX_RECENT: usize = 64 * 1024;
/// Records entered into the index in one transaction.
pub(super) const INDEX_BATCH: usize = 4096;

/// Taken in the order `turn`, pass of the gate, `writer`, `recent`; the mutex `gate` is held for moments only.
pub(super) struct Log {
    packs: Arc<Packs>,
    pack_size: u64,
    gate: Mutex<Gate>,
    gate_free: Condvar,
    writer: Mutex<Writer>,
    /// Newest location of each record that is in the queue.
    recent: RwLock<HashMap<BlockKey, Newest>>,
    /// Held by who enters records into the index, so that they get there in order.
    turn: Mutex<()>,
    /// Position up to which all records are durable: `synced <= writer.position`.
    synced: AtomicU64,
    failed: AtomicBool,
}

/// One thread at a time syncs; who waits meanwhile finds its records synced by it or by the next one.
struct Gate {
    busy: bool,
    /// End of the durable part of the newest pack.
    offset: u64,
    failure: String,
}

/// The right to sync and to leave a pack for the next.
struct Pass<'a>(&'a Log);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        lock(&self.0.gate).busy = false;
        self.0.gate_free.notify_all();
    }
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    location: Location,
    /// It takes the place of a damaged record, so it is not one block more.
    again: bool,
}

/// Up to where records survive a power cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Durable {
    pub(super) pack: u64,
    pub(super) offset: u64,
}

impl Log {
    pub(super) fn new(packs: Arc<Packs>, end: End, pack_size: u64) -> Self {
        Self {
            packs,
            pack_size,
            gate: Mutex::new(Gate {
                busy: false,
                offset: end.offset,
                failure: String::new(),
            }),
            gate_free: Condvar::new(),
            writer: Mutex::new(Writer::new(end)),
            recent: RwLock::new(HashMap::new()),
            turn: Mutex::new(()),
            synced: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }
    }

    pub(super) fn writable(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Failed(lock(&self.gate).failure.clone()));
        }
        Ok(())
    }

    /// Writes the record unless another thread has just written one of the same key (`again`: even then).
    pub(super) fn append(&self, record: &Record<'_>, again: bool) -> Result<(), StoreError> {
        let length = record.length();
        loop {
            self.writable()?;
            let mut writer = lock(&self.writer);
            if !again && self.recent().contains_key(&record.key()) {
                return Ok(());
            }
            if writer.has_room(length, self.pack_size) {
                let location = writer
                    .append(record)
                    .map_err(|e| self.failed_writing(e, writer.pack))?;
                self.recent_mut().insert(record.key(), Newest { location, again });
                return Ok(());
            }
            drop(writer);
            self.next_pack(length)?;
        }
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let wanted = lock(&self.writer).position;
        let Some(_pass) = self.pass_unless_synced(wanted)? else {
            return Ok(());
        };
        // Only who has the pass leaves a pack for the next: what is not synced is in this one.
        let (file, offset, position) = {
            let writer = lock(&self.writer);
            (Arc::clone(&writer.file), writer.offset, writer.position)
        };
        self.synced_to(offset, position, file.sync_data())
    }

    /// End of what is durable, in the newest pack.
    pub(super) fn durable(&self) -> Durable {
        // The pass keeps the pack and its durable end from moving apart.
        let gate = self
            .gate_free
            .wait_while(lock(&self.gate), |gate| gate.busy)
            .unwrap_or_else(PoisonError::into_inner);
        Durable {
            pack: lock(&self.writer).pack,
            offset: gate.offset,
        }
    }

    pub(super) fn find_recent(&self, key: BlockKey) -> Option<Location> {
        self.recent().get(&key).map(|newest| newest.location)
    }

    pub(super) fn recent_totals(&self) -> Totals {
        let mut totals = Totals::default();
        for newest in self.recent().values().filter(|newest| !newest.again) {
            totals.blocks += 1;
            totals.plain_bytes += u64::from(newest.location.plain);
        }
        totals
    }

    pub(super) fn is_full_of_recent(&self) -> bool {
        lock(&self.writer).queue.len() >= MAX_RECENT
    }

    /// Whether a whole batch waits for the index.
    pub(super) fn has_batch(&self) -> bool {
        lock(&self.writer).queue.len() >= INDEX_BATCH
    }

    /// Gives synced records to `enter` in batches, and forgets them when it succeeds.
    pub(super) fn take_synced(
        &self,
        mut enter: impl FnMut(&[Recent]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _turn = lock(&self.turn);
        loop {
            let synced = self.synced.load(Ordering::Acquire);
            let batch: Vec<Recent> = {
                let writer = lock(&self.writer);
                writer
                    .queue
                    .iter()
                    .take_while(|r| r.position <= synced)
                    .take(INDEX_BATCH)
                    .copied()
                    .collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            enter(&batch)?;
            self.forget_first(batch.len());
        }
    }

    /// Runs `action` with the end of what is durable, while nothing is synced and nothing entered into the index.
    pub(super) fn while_still<T>(
        &self,
        action: impl FnOnce(Durable) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _turn = lock(&self.turn);
        let _pass = self.pass()?;
        let durable = Durable {
            pack: lock(&self.writer).pack,
            offset: lock(&self.gate).offset,
        };
        action(durable)
    }

    /// Leaves the newest pack for a new one, unless it has no record.
    pub(super) fn leave_pack(&self) -> Result<(), StoreError> {
        // So that nothing has room behind what is there.
        self.next_pack(self.pack_size + 1)
    }

    /// Leaves the newest pack, every byte of it durable, for a new one.
    fn next_pack(&self, length: u64) -> Result<(), StoreError> {
        let _pass = self.pass()?;
        let mut writer = lock(&self.writer);
        if writer.has_room(length, self.pack_size) {
            return Ok(());
        }
        writer
            .cut_rest()
            .map_err(|e| self.failed_writing(e, writer.pack))?;
        let (offset, position) = (writer.offset, writer.position);
        let result = writer.file.sync_data();
        if result.is_err() {
            drop(writer);
            return self.synced_to(offset, position, result);
        }
        self.synced_to(offset, position, result)?;
        let pack = writer.next;
        let file = self
            .packs
            .create(pack)
            .map_err(|e| self.failed_writing(e, pack))?;
        writer.pack = pack;
        writer.next = pack + 1;
        writer.file = file;
        writer.offset = FILE_HEADER as u64;
        lock(&self.gate).offset = writer.offset;
        Ok(())
    }

    fn pass(&self) -> Result<Pass<'_>, StoreError> {
        let pass = self.pass_unless_synced(u64::MAX)?;
        Ok(pass.expect("no position reaches u64::MAX"))
    }

    /// `None`: everything before `wanted` is durable by now.
    fn pass_unless_synced(&self, wanted: u64) -> Result<Option<Pass<'_>>, StoreError> {
        let synced = || self.synced.load(Ordering::Acquire) >= wanted;
        let mut gate = self
            .gate_free
            .wait_while(lock(&self.gate), |gate| gate.busy && !synced())
            .unwrap_or_else(PoisonError::into_inner);
        self.check(&gate)?;
        if synced() {
            return Ok(None);
        }
        gate.busy = true;
        Ok(Some(Pass(self)))
    }

    /// Takes note of a sync's result; called with the pass.
    fn synced_to(&self, offset: u64, position: u64, result: io::Result<()>) -> Result<(), StoreError> {
        let mut gate = lock(&self.gate);
        let Err(error) = result else {
            gate.offset = offset;
            self.synced.store(position, Ordering::Release);
            return Ok(());
        };
        tracing::error!("syncing the newest pack failed: {error}; the store takes no more writes");
        gate.failure = error.to_string();
        self.failed.store(true, Ordering::Release);
        let durable = gate.offset;
        drop(gate);
        self.forget_unsynced(durable);
        Err(StoreError::Failed(error.to_string()))
    }

    /// After a failed sync the kernel may say that pages are clean which never reached the disk. Cutting them off
    /// takes them out of its cache, so that the next start does not believe in them.
    fn forget_unsynced(&self, durable: u64) {
        let synced = self.synced.load(Ordering::Acquire);
        let mut writer = lock(&self.writer);
        let mut recent = self.recent_mut();
        while writer.queue.back().is_some_and(|entry| entry.position > synced) {
            if let Some(entry) = writer.queue.pop_back() {
                recent.remove(&entry.key);
            }
        }
        writer.offset = durable;
        if let Err(error) = writer.file.set_len(durable) {
            tracing::error!(
                "cutting pack {} back to its durable part failed: {error}",
                writer.pack
            );
        }
    }

    fn forget_first(&self, count: usize) {
        let mut writer = lock(&self.writer);
        let mut recent = self.recent_mut();
        for entry in writer.queue.drain(..count) {
            // A later record of the same key may have taken its place.
            if recent
                .get(&entry.key)
                .is_some_and(|newest| newest.location == entry.location)
            {
                recent.remove(&entry.key);
            }
        }
    }

    fn check(&self, gate: &Gate) -> Result<(), StoreError> {
        match self.failed.load(Ordering::Acquire) {
            true => Err(StoreError::Failed(gate.failure.clone())),
            false => Ok(()),
        }
    }

    fn recent(&self) -> RwLockReadGuard<'_, HashMap<BlockKey, Newest>> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent_mut(&self) -> RwLockWriteGuard<'_, HashMap<BlockKey, Newest>> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_writing(&self, error: io::Error, pack: u64) -> StoreError {
        pack::failed(|| format!("writing pack {pack}"), self.packs.folder(), error)
    }
}
