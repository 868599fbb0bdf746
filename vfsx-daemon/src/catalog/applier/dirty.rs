//! What is to be read of objects.
//!
//! A record may add one range of thousands that wait already. So what a transaction changes is kept at hand until its end,
//! and written once.

use super::unread::Class;
use super::work::{Cause, Work};
use crate::catalog::CatalogError;
use crate::catalog::dirt::{Dirt, Unread};
use crate::catalog::store::{DirtRow, Key, delete, get, put};
use restfs_lib::model::ObjectId;
use std::time::Instant;

/// Objects whose unread ranges are kept at hand: each may have thousands.
const AT_HAND: usize = 64;

impl Work<'_> {
    /// Something of the object is to be read, at `due` at the latest. `size`: bytes of the file as far as known.
    pub(super) fn add_dirt(
        &mut self,
        id: ObjectId,
        dirt: &Dirt,
        size: u64,
        due: Instant,
    ) -> Result<(), CatalogError> {
        let cause = self.cause;
        let Cause {
            journal,
            time_ns,
            class,
        } = cause;
        if let Some(flight) = self.memory.dirty.flight_mut(id) {
            flight.add(dirt, cause);
        }
        let mut unread = self
            .take_unread(id)?
            .unwrap_or_else(|| Unread::of(journal, time_ns));
        unread.dirt.merge(dirt);
        unread.journal = unread.journal.min(journal);
        unread.first_ns = unread.first_ns.min(time_ns);
        unread.last_ns = unread.last_ns.max(time_ns);
        unread.size = unread.size.max(size);
        self.put_unread(id, unread, due, class);
        self.memory.dirty.note_unread(id);
        match self.unsaved.len() > AT_HAND {
            true => self.save_unread(),
            false => Ok(()),
        }
    }

    /// What of the object is to be read.
    pub(super) fn unread(&self, id: ObjectId) -> Result<Option<Unread>, CatalogError> {
        match self.unsaved.get(&id) {
            Some(unread) => Ok(Some(unread.clone())),
            None => self.saved(id),
        }
    }

    /// The oldest and the newest record that says so: journal sequence and time.
    pub(super) fn unread_since(&self, id: ObjectId) -> Result<Option<(u64, i64)>, CatalogError> {
        match self.unsaved.get(&id) {
            Some(unread) => Ok(Some((unread.journal, unread.last_ns))),
            None => Ok(self.saved(id)?.map(|unread| (unread.journal, unread.last_ns))),
        }
    }

    fn saved(&self, id: ObjectId) -> Result<Option<Unread>, CatalogError> {
        let row: Option<DirtRow> = get(&*self.kv, &Key::Dirt(id))?;
        Ok(row.map(Unread::from))
    }

    /// The same, to be put again or forgotten.
    pub(super) fn take_unread(&mut self, id: ObjectId) -> Result<Option<Unread>, CatalogError> {
        let unread = match self.unsaved.remove(&id) {
            Some(unread) => Some(unread),
            None => self.saved(id)?,
        };
        if let Some(unread) = &unread {
            self.memory.holds.remove(unread.journal);
        }
        Ok(unread)
    }

    pub(super) fn put_unread(&mut self, id: ObjectId, unread: Unread, due: Instant, class: Class) {
        self.memory.holds.add(unread.journal);
        self.memory.dirty.set(id, unread.first_ns, due, class);
        self.unsaved.insert(id, unread);
    }

    pub(super) fn forget_dirt(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        if self.take_unread(id)?.is_some() {
            delete(self.kv, &Key::Dirt(id))?;
            self.memory.dirty.remove(id);
        }
        Ok(())
    }

    /// At the end of the transaction, and when there is much at hand.
    pub(super) fn save_unread(&mut self) -> Result<(), CatalogError> {
        for (id, unread) in std::mem::take(&mut self.unsaved) {
            put(self.kv, &Key::Dirt(id), &DirtRow::from(&unread))?;
            self.memory.dirty.set_bytes(id, unread.bytes());
        }
        Ok(())
    }

    /// Somebody waits until everything from journal records up to this one is read: what is dirty is read now, whoever made it
    /// so. What became dirty since the last time is put off by its age again, so this is asked for with every transaction.
    pub(super) fn hurry(&mut self, journal: u64) {
        if self.memory.covered() < journal {
            self.memory.dirty.hurry(self.now);
        }
    }

    /// Reads what is dirty of the object now instead of later.
    pub(super) fn read_now(&mut self, id: ObjectId) {
        let now = self.now;
        if let Some(flight) = self.memory.dirty.flight_mut(id) {
            flight.urgent = true;
            return;
        }
        self.memory.dirty.come_to_rest(id);
        if self
            .memory
            .dirty
            .get(id)
            .is_some_and(|o| o.due > now && o.failures == 0)
        {
            self.memory.dirty.set_due(id, now);
        }
    }
}
