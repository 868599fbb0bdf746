//! Collection of blocks that nothing needs any more.
//!
//! What is needed goes into a [`filter::Filter`], two bytes for a block: no needed block is ever missing in it, one in a
//! thousand of the others counts as needed and stays until the next collection. (Chosen over sorted keys in a file: a full
//! disk has no room for them; and over all keys in memory.) Then the index is read through to see how much of each pack is
//! needed, and packs are swept that are worth it, those first of which least has to be copied.
//!
//! A pack is swept record by record. Blocks that nothing needs leave the index; those that are needed are appended to the
//! newest pack, as new records that take the place of the old ones, as ever. When the index has no block in the pack any
//! more and says so durably, its file is removed. A crash anywhere leaves each needed block with one good record at least;
//! what it leaves too much, the next collection takes.

mod filter;
mod guard;
mod pack;

pub(super) use guard::{Guard, Turn};

use super::record::{FILE_HEADER, RECORD_HEADER};
use super::{Shared, index::Location, lock};
use crate::storage::{CollectOptions, Collection, StoreError, Swept, Weighed};
use filter::Filter;
use restfs_lib::model::BlockKey;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Memory for what is needed: enough for 128 million blocks. With more, more than one in a thousand stay too long.
const MOST_MEMORY: usize = 256 * 1024 * 1024;
const LEAST_MEMORY: usize = 1024 * 1024;
/// Rows of the index read at once.
const PAGE: usize = if cfg!(test) { 7 } else { 4096 };
/// Left free beside what is copied, for the index and its log.
const MARGIN: u64 = 16 * 1024 * 1024;

/// Called behind every step that changes what is on disk; replaced in tests.
pub(super) type Stage = Box<dyn FnMut(&'static str) + Send>;

pub(super) struct FsCollection {
    shared: Arc<Shared>,
    _turn: Turn,
    options: CollectOptions,
    needed: Filter,
    /// Packs below were sealed when it began, or would have been.
    horizon: u64,
    plan: Vec<Planned>,
    stage: Stage,
}

/// A pack that is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Planned {
    pack: u64,
    length: u64,
    weight: Weight,
}

/// What the index has of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Weight {
    rows: u64,
    /// Bytes of records that are needed, and of those that are not.
    needed: u64,
    dead: u64,
}

impl FsCollection {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        options: CollectOptions,
        stage: Stage,
    ) -> Result<Self, StoreError> {
        let turn = Turn::take(&shared.guard)?;
        turn.note_keys();
        let newest = shared.log.durable().pack;
        let is_old = !is_young(shared, newest, options.grace)?;
        if is_old && !options.dry_run {
            match shared.log.leave_pack() {
                // Then it waits for the next time.
                Ok(()) | Err(StoreError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        shared.log.flush()?;
        // What is in packs below is in the index behind this.
        let end = shared.log.durable();
        shared.enter_recent()?;
        let blocks = shared.index.totals()?.blocks;
        let would_leave = options.dry_run && is_old && end.offset > FILE_HEADER as u64;
        let horizon = end.pack + u64::from(would_leave);
        Ok(Self {
            shared: Arc::clone(shared),
            _turn: turn,
            options,
            needed: Filter::new(blocks, LEAST_MEMORY, MOST_MEMORY),
            horizon,
            plan: Vec::new(),
            stage,
        })
    }

    fn is_needed(&self, key: &BlockKey) -> bool {
        self.needed.contains(key) || self.shared.guard.was_touched(key)
    }

    /// `None`: it is to end.
    fn weights(
        &self,
        weighed: &mut Weighed,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<BTreeMap<u64, Weight>>, StoreError> {
        let mut weights: BTreeMap<u64, Weight> = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.shared.index.page(after, PAGE)?;
            after = page.last().map(|(key, _)| *key);
            for (key, at) in &page {
                let weight = weights.entry(at.pack).or_default();
                weight.rows += 1;
                weighed.blocks += 1;
                match self.is_needed(key) {
                    true => weight.needed += record_length(at),
                    false => {
                        weight.dead += record_length(at);
                        weighed.dead_blocks += 1;
                    }
                }
            }
            if page.len() < PAGE {
                return Ok(Some(weights));
            }
            if !go_on(weighed.blocks) {
                return Ok(None);
            }
        }
    }

    /// Blocks that are not here, were missed, and are needed no more.
    fn forget_lost(&self) -> Result<(), StoreError> {
        let lost: Vec<BlockKey> = lock(&self.shared.damaged).iter().copied().collect();
        for key in lost {
            if !self.is_needed(&key) && self.shared.find(key)?.is_none() {
                self.shared.forget_damage(key);
            }
        }
        Ok(())
    }

    fn packs(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        let packs = &self.shared.packs;
        let numbers = packs.numbers().map_err(|e| self.listing(e))?;
        let mut found = Vec::new();
        for pack in numbers.into_iter().filter(|pack| *pack < self.horizon) {
            let length = packs
                .open_anew(pack)
                .and_then(|file| file.length())
                .map_err(|e| self.listing(e))?;
            found.push((pack, length));
        }
        Ok(found)
    }

    fn listing(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            what: format!("listing {}", self.shared.packs.folder().display()),
            source,
        }
    }

    /// Whether what is to be copied of the pack finds room.
    fn has_room(&self, planned: &Planned) -> Result<bool, StoreError> {
        if planned.weight.needed == 0 {
            return Ok(true);
        }
        let free = self.shared.packs.free().map_err(|e| self.listing(e))?;
        Ok(free >= planned.weight.needed + MARGIN)
    }
}

impl Collection for FsCollection {
    fn keep(&mut self, key: BlockKey) {
        self.needed.insert(&key);
    }

    fn needs(&self, key: &BlockKey) -> bool {
        self.is_needed(key)
    }

    fn weigh(&mut self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<Weighed, StoreError> {
        let mut weighed = Weighed::default();
        self.plan.clear();
        let Some(weights) = self.weights(&mut weighed, go_on)? else {
            return Ok(weighed);
        };
        for (pack, length) in self.packs()? {
            let weight = weights.get(&pack).copied().unwrap_or_default();
            let content = length.saturating_sub(FILE_HEADER as u64);
            let dead = content.saturating_sub(weight.needed);
            let worth =
                dead.saturating_mul(100) >= content.saturating_mul(u64::from(self.options.least_dead));
            if is_young(&self.shared, pack, self.options.grace)? {
                weighed.young_bytes += dead;
            } else if worth && (dead > 0 || content == 0) {
                weighed.free_bytes += length - weight.needed.min(length);
                weighed.copy_bytes += weight.needed;
                self.plan.push(Planned { pack, length, weight });
            } else {
                weighed.sparse_bytes += dead;
            }
        }
        // What is being written is the youngest.
        let newest = weights.range(self.horizon..).map(|(_, weight)| weight.dead);
        weighed.young_bytes += newest.sum::<u64>();
        self.plan
            .sort_by_key(|planned| (planned.weight.needed, planned.pack));
        Ok(weighed)
    }

    fn sweep(&mut self, go_on: &mut dyn FnMut(&Swept) -> bool) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        if self.options.dry_run {
            return Ok(swept);
        }
        self.forget_lost()?;
        for planned in std::mem::take(&mut self.plan) {
            if !self.has_room(&planned)? {
                swept.packs_no_room += 1;
                continue;
            }
            match pack::sweep(self, &planned, &mut swept, go_on) {
                Ok(true) => {}
                Ok(false) => return Ok(swept),
                // What is copied already counts; there may be room for less.
                Err(StoreError::Full { .. }) if planned.weight.needed > 0 => swept.packs_no_room += 1,
                Err(error) => return Err(error),
            }
            // Packs may be short.
            if !go_on(&swept) {
                break;
            }
        }
        Ok(swept)
    }
}

/// By the time of the last write into it. One that is in the future says nothing, and must not keep a pack for good.
fn is_young(shared: &Shared, pack: u64, grace: Duration) -> Result<bool, StoreError> {
    let written = shared
        .packs
        .open_anew(pack)
        .and_then(|file| file.modified())
        .map_err(|source| StoreError::Io {
            what: format!("looking at pack {pack}"),
            source,
        })?;
    let age = match SystemTime::now().duration_since(written) {
        Ok(age) => age,
        Err(ahead) => ahead.duration(),
    };
    Ok(age < grace)
}

fn record_length(at: &Location) -> u64 {
    RECORD_HEADER as u64 + u64::from(at.stored)
}
