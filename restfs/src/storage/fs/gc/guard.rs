//! What lookups and a collection tell each other, so that no block is removed that somebody was told is here.
//!
//! Who is to be told that a block is here first notes its key ([`Guard::touch`]), then asks whether a record of it is
//! condemned, then looks for it. The collection condemns a record first, then asks whether its key was noted, and only then
//! removes it from the index. Whichever comes first, one of the two sees the other.

use super::filter::Filter;
use crate::storage::StoreError;
use crate::storage::fs::index::Location;
use restfs_lib::model::BlockKey;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Memory for the keys that are noted while a collection runs: of five million, one block in a hundred stays that could go.
const NOTED: usize = 8 * 1024 * 1024;

#[derive(Default)]
pub(in crate::storage::fs) struct Guard {
    /// See [`Turn`].
    taken: AtomicBool,
    /// While a collection runs.
    noted: RwLock<Option<Filter>>,
    /// Records that count for nothing any more, though the index may still have them. A batch at most.
    condemned: RwLock<HashMap<BlockKey, Location>>,
}

/// The right to move packs about, or to make the index anew.
pub(in crate::storage::fs) struct Turn(Arc<Guard>);

impl Turn {
    pub(in crate::storage::fs) fn take(guard: &Arc<Guard>) -> Result<Self, StoreError> {
        match guard.taken.swap(true, Ordering::AcqRel) {
            true => Err(StoreError::Collecting),
            false => Ok(Self(Arc::clone(guard))),
        }
    }

    /// From now on all keys that are asked for are noted.
    pub(super) fn note_keys(&self) {
        *self.0.noted_mut() = Some(Filter::new(0, NOTED, NOTED));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.noted_mut() = None;
        self.0.acquit();
        self.0.taken.store(false, Ordering::Release);
    }
}

impl Guard {
    /// The block stays until the collection under way has ended, unless its record is condemned already.
    pub(in crate::storage::fs) fn touch(&self, key: &BlockKey) {
        if let Some(noted) = &*self.noted() {
            noted.insert(key);
        }
    }

    /// To be asked before the index.
    pub(in crate::storage::fs) fn condemned(&self, key: BlockKey) -> Option<Location> {
        let condemned = self.condemned.read().unwrap_or_else(PoisonError::into_inner);
        condemned.get(&key).copied()
    }

    pub(super) fn was_touched(&self, key: &BlockKey) -> bool {
        self.noted().as_ref().is_some_and(|noted| noted.contains(key))
    }

    /// From now on these records count for nothing. Given back are those of keys that were touched before: they do.
    pub(super) fn condemn(&self, records: &[(BlockKey, Location)]) -> Vec<(BlockKey, Location)> {
        self.condemned_mut().extend(records.iter().copied());
        let touched: Vec<_> = records
            .iter()
            .filter(|(key, _)| self.was_touched(key))
            .copied()
            .collect();
        let mut condemned = self.condemned_mut();
        for (key, _) in &touched {
            condemned.remove(key);
        }
        touched
    }

    /// The index does not have them any more.
    pub(super) fn acquit(&self) {
        self.condemned_mut().clear();
    }

    fn noted(&self) -> RwLockReadGuard<'_, Option<Filter>> {
        self.noted.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted_mut(&self) -> RwLockWriteGuard<'_, Option<Filter>> {
        self.noted.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn condemned_mut(&self) -> RwLockWriteGuard<'_, HashMap<BlockKey, Location>> {
        self.condemned.write().unwrap_or_else(PoisonError::into_inner)
    }
}
