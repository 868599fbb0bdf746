//! Directories to be listed, and directories that events named and nobody knows.

use super::work::Work;
use crate::catalog::CatalogError;
use crate::catalog::store::{Key, ListRow, LookRow, LostRow, delete, get, put};
use crate::journal::NodeRef;
use restfs_lib::model::ObjectId;

impl Work<'_> {
    /// The directory is to be listed. A listing for a scan stands for one that only takes in what is not known.
    pub(super) fn want_list(&mut self, id: ObjectId, row: ListRow) -> Result<(), CatalogError> {
        let old = get::<ListRow>(&*self.kv, &Key::List(id))?;
        let row = match old {
            Some(old) => ListRow {
                journal: old.journal.min(row.journal),
                scan: old.scan.max(row.scan),
            },
            None => row,
        };
        match old {
            Some(old) => self.memory.holds.remove(old.journal),
            None => self.memory.lists += 1,
        }
        self.memory.holds.add(row.journal);
        put(self.kv, &Key::List(id), &row)
    }

    pub(super) fn list_row(&self, id: ObjectId) -> Result<Option<ListRow>, CatalogError> {
        get(&*self.kv, &Key::List(id))
    }

    pub(super) fn forget_list(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        if let Some(old) = self.list_row(id)? {
            self.memory.holds.remove(old.journal);
            self.memory.lists -= 1;
            delete(self.kv, &Key::List(id))?;
        }
        Ok(())
    }

    /// An event named a directory that is not known: when it becomes known, it is listed.
    pub(super) fn lose(&mut self, node: NodeRef) -> Result<(), CatalogError> {
        if self.memory.lost.contains_key(&node) {
            return Ok(());
        }
        let row = LostRow {
            journal: self.cause.journal,
            since_ns: self.now_ns,
        };
        put(self.kv, &Key::Lost(node), &row)?;
        self.memory.holds.add(row.journal);
        self.memory.lost.insert(node, row);
        Ok(())
    }

    /// The directory is known, or gone. Whether it was lost.
    pub(super) fn unlose(&mut self, node: &NodeRef) -> Result<Option<LostRow>, CatalogError> {
        let Some(row) = self.memory.lost.remove(node) else {
            return Ok(None);
        };
        self.memory.holds.remove(row.journal);
        delete(self.kv, &Key::Lost(*node))?;
        Ok(Some(row))
    }

    /// An event said that the inode lost a name for good. If it was a directory, what other processes did in it before
    /// may be told later, and concerns nobody any more.
    pub(super) fn bury(&mut self, node: &NodeRef) -> Result<(), CatalogError> {
        self.unlose(node)?;
        self.memory.graves.put(*node, ());
        Ok(())
    }

    pub(super) fn put_look(&mut self, dir: ObjectId, name: &[u8], row: LookRow) -> Result<(), CatalogError> {
        let key = (dir, name.to_vec());
        let row = match self.memory.looks.get(&key) {
            Some(old) => LookRow {
                check: old.check || row.check,
                ..*old
            },
            None => row,
        };
        let now = self.now;
        self.memory.looks_since.entry(key.clone()).or_insert(now);
        if let Some(old) = self.memory.looks.insert(key, row) {
            self.memory.holds.remove(old.journal);
        }
        self.memory.holds.add(row.journal);
        put(self.kv, &Key::Look(dir, name.to_vec()), &row)
    }

    pub(super) fn forget_look(&mut self, dir: ObjectId, name: &[u8]) -> Result<(), CatalogError> {
        let key = (dir, name.to_vec());
        if let Some(old) = self.memory.looks.remove(&key) {
            self.memory.looks_since.remove(&key);
            self.memory.holds.remove(old.journal);
            delete(self.kv, &Key::Look(dir, name.to_vec()))?;
        }
        Ok(())
    }

    /// Forgets the looks in a directory that is gone. How many there were.
    pub(super) fn forget_looks(&mut self, dir: ObjectId) -> Result<usize, CatalogError> {
        let from = (dir, Vec::new());
        let names: Vec<_> = self
            .memory
            .looks
            .range(from..)
            .take_while(|((d, _), _)| *d == dir)
            .map(|((_, n), _)| n.clone())
            .collect();
        for name in &names {
            self.forget_look(dir, name)?;
        }
        Ok(names.len())
    }
}
