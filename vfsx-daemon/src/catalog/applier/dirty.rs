//! What is to be read of objects.

use super::unread::Class;
use super::work::{Cause, Work};
use crate::catalog::CatalogError;
use crate::catalog::dirt::Dirt;
use crate::catalog::store::{DirtRow, Key, delete, get, put};
use restfs_lib::model::ObjectId;
use std::time::Instant;

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
        let mut row = self.dirt_row(id)?.unwrap_or(DirtRow {
            journal,
            first_ns: time_ns,
            last_ns: time_ns,
            ..DirtRow::default()
        });
        let mut all = Dirt::from_row(&row);
        all.merge(dirt);
        all.write(&mut row);
        row.journal = row.journal.min(journal);
        row.first_ns = row.first_ns.min(time_ns);
        row.last_ns = row.last_ns.max(time_ns);
        row.size = row.size.max(size);
        self.put_dirt(id, &row, due, class)
    }

    pub(super) fn dirt_row(&self, id: ObjectId) -> Result<Option<DirtRow>, CatalogError> {
        get(&*self.kv, &Key::Dirt(id))
    }

    pub(super) fn put_dirt(
        &mut self,
        id: ObjectId,
        row: &DirtRow,
        due: Instant,
        class: Class,
    ) -> Result<(), CatalogError> {
        if let Some(old) = self.dirt_row(id)? {
            self.memory.holds.remove(old.journal);
        }
        self.memory.holds.add(row.journal);
        put(self.kv, &Key::Dirt(id), row)?;
        self.memory.dirty.set(id, row, due, class);
        Ok(())
    }

    pub(super) fn forget_dirt(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        if let Some(old) = self.dirt_row(id)? {
            self.memory.holds.remove(old.journal);
            delete(self.kv, &Key::Dirt(id))?;
            self.memory.dirty.remove(id);
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
