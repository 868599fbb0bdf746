//! Names of objects, and objects that lose theirs.

use super::excluded::EXCLUDED;
use super::work::Work;
use crate::catalog::CatalogError;
use crate::catalog::store::{DisplacedRow, Key, ListRow, NodeRow, Prefix, ScanPhase, delete, get, page, put};
use restfs_lib::model::{Kind, ObjectId, Op};

/// Objects dropped, or entries of a dead directory, in one transaction.
const DROPS: usize = 512;
/// Pages of displaced objects looked at in one: a local program may have removed a million files.
const PAGES: usize = 4;

impl Work<'_> {
    pub(super) fn lookup(&self, dir: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, CatalogError> {
        Ok(self.tree().lookup(dir, name)?)
    }

    pub(super) fn is_directory(&self, id: ObjectId) -> Result<bool, CatalogError> {
        Ok(self.object(id)?.is_some_and(|o| o.kind == Kind::Directory))
    }

    pub(super) fn has_names(&self, id: ObjectId) -> Result<bool, CatalogError> {
        Ok(id == ObjectId::ROOT || !self.tree().names(id)?.is_empty())
    }

    fn is_empty(&self, dir: ObjectId) -> Result<bool, CatalogError> {
        Ok(self.tree().entries(dir, None, 1)?.is_empty())
    }

    /// The name leads to the object from now on. What it led to may be without a name after that.
    pub(super) fn put_entry(
        &mut self,
        dir: ObjectId,
        name: &[u8],
        child: ObjectId,
    ) -> Result<(), CatalogError> {
        let before = self.lookup(dir, name)?;
        self.touched(dir);
        if before == Some(child) {
            return Ok(());
        }
        self.emit(Op::PutEntry {
            dir,
            name: name.to_vec(),
            child,
        })?;
        self.found(child)?;
        match before {
            Some(before) => self.displace(before, false),
            None => Ok(()),
        }
    }

    /// The name is gone, if it led to this object.
    pub(super) fn drop_entry(
        &mut self,
        dir: ObjectId,
        name: &[u8],
        child: ObjectId,
    ) -> Result<bool, CatalogError> {
        self.touched(dir);
        if self.lookup(dir, name)? != Some(child) {
            return Ok(false);
        }
        self.emit(Op::DropEntry {
            dir,
            name: name.to_vec(),
        })
    }

    /// An object has a name (again).
    fn found(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        if let Some(row) = self.displaced_row(id)? {
            delete(self.kv, &Key::Displaced(id))?;
            self.memory.displaced -= 1;
            self.touched(id);
            if row.relist {
                self.want_list(
                    id,
                    ListRow {
                        journal: self.cause.journal,
                        scan: 0,
                    },
                )?;
            }
        }
        // A directory that is moved while a scan walks may come from where the scan was not yet to where it was.
        if self.memory.scan.phase == ScanPhase::Walking && self.is_directory(id)? {
            let scan = self.memory.scan.number;
            if self.node_row(id)?.is_none_or(|row| row.scan != scan) {
                self.want_list(
                    id,
                    ListRow {
                        journal: self.cause.journal,
                        scan,
                    },
                )?;
            }
        }
        Ok(())
    }

    /// An object may have lost its last name. `dead`: an event said that the inode lost one for good, so it is gone
    /// when that was its only one.
    pub(super) fn displace(&mut self, id: ObjectId, dead: bool) -> Result<(), CatalogError> {
        let scan = self.telling_scan();
        self.displace_until(id, dead, scan)
    }

    /// `scan`: when that one has finished without finding it, it is nowhere.
    pub(super) fn displace_until(&mut self, id: ObjectId, dead: bool, scan: u64) -> Result<(), CatalogError> {
        let Some(row) = self.node_row(id)? else {
            return Ok(());
        };
        if dead && row.names > 1 {
            self.put_node_row(
                id,
                &NodeRow {
                    names: row.names - 1,
                    ..row
                },
            )?;
        }
        if self.has_names(id)? {
            return Ok(());
        }
        let reused = self.known(&row.node)? != Some(id);
        let dead = reused || (dead && row.names <= 1);
        if dead && (!self.is_directory(id)? || self.is_empty(id)?) {
            return self.drop_object(id);
        }
        let old = self.displaced_row(id)?;
        if old.is_none() {
            self.memory.displaced += 1;
        }
        let row = DisplacedRow {
            since_ns: if scan == EXCLUDED { 0 } else { self.now_ns },
            dead: dead || old.is_some_and(|o| o.dead),
            scan,
            relist: old.is_some_and(|o| o.relist) || self.forget_looks(id)? > 0,
        };
        put(self.kv, &Key::Displaced(id), &row)?;
        if self.is_directory(id)? {
            // Only its metadata can be dirty: it is read when the directory has a name again, and holds up nothing
            // until then.
            self.forget_dirt(id)?;
        }
        Ok(())
    }

    /// The scan whose walk tells whether what vanishes now is somewhere else.
    fn telling_scan(&self) -> u64 {
        let scan = &self.memory.scan;
        if scan.phase == ScanPhase::Walking {
            scan.number
        } else {
            scan.number + 1
        }
    }

    fn displaced_row(&self, id: ObjectId) -> Result<Option<DisplacedRow>, CatalogError> {
        get(&*self.kv, &Key::Displaced(id))
    }

    /// A name is to be looked at in a directory that has none itself: it is listed when it is found. Whether it is one.
    pub(super) fn relist_when_found(&mut self, dir: ObjectId) -> Result<bool, CatalogError> {
        let Some(row) = self.displaced_row(dir)? else {
            return Ok(false);
        };
        if !row.relist {
            put(
                self.kv,
                &Key::Displaced(dir),
                &DisplacedRow { relist: true, ..row },
            )?;
        }
        Ok(true)
    }

    /// Removes an object without names, and all that is kept about it.
    fn drop_object(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        if let Some(row) = self.node_row(id)?
            && self.known(&row.node)? == Some(id)
        {
            delete(self.kv, &Key::Node(row.node))?;
        }
        delete(self.kv, &Key::Object(id))?;
        if self.displaced_row(id)?.is_some() {
            delete(self.kv, &Key::Displaced(id))?;
            self.memory.displaced -= 1;
        }
        self.forget_dirt(id)?;
        self.forget_list(id)?;
        self.forget_looks(id)?;
        self.touched.remove(&id);
        self.emit(Op::DropObject { id })?;
        Ok(())
    }

    /// Drops what has been without a name for long enough; goes on with the next transaction where it has come to. Only called
    /// when all records are applied.
    pub(super) fn drop_displaced(&mut self) -> Result<(), CatalogError> {
        let before = self.now_ns.saturating_sub(self.rules.grace.as_nanos() as i64);
        let mut after = self.memory.displaced_cursor.take();
        let mut left = DROPS;
        self.memory.more_to_drop = false;
        for _ in 0..PAGES {
            if left == 0 {
                break;
            }
            let rows = page::<DisplacedRow>(&*self.kv, Prefix::Displaced, &[], after.as_ref(), DROPS)?;
            let Some((last, _)) = rows.last() else {
                // From the beginning again.
                return Ok(());
            };
            after = Some(last.clone());
            for (key, row) in rows {
                let Key::Displaced(id) = key else { continue };
                // The clock may have been set back.
                if row.since_ns <= before || row.since_ns > self.now_ns {
                    left = left.saturating_sub(self.drop_one_displaced(id, &row, left)?);
                }
            }
        }
        self.memory.more_to_drop = left == 0;
        self.memory.displaced_cursor = after;
        Ok(())
    }

    /// Whether something that has no name waits for a scan after the one under way.
    pub(super) fn awaits_next_scan(&self) -> Result<bool, CatalogError> {
        let number = self.memory.scan.number;
        let mut after: Option<Key> = None;
        loop {
            let rows = page::<DisplacedRow>(&*self.kv, Prefix::Displaced, &[], after.as_ref(), DROPS)?;
            if rows.iter().any(|(_, row)| row.scan > number) {
                return Ok(true);
            }
            let Some((last, _)) = rows.into_iter().next_back() else {
                break;
            };
            after = Some(last);
        }
        Ok(false)
    }

    /// How much of the transaction's budget it used.
    fn drop_one_displaced(
        &mut self,
        id: ObjectId,
        row: &DisplacedRow,
        budget: usize,
    ) -> Result<usize, CatalogError> {
        if self.has_names(id)? {
            self.found(id)?;
            return Ok(1);
        }
        let entries = self.tree().entries(id, None, budget.max(1))?;
        // A directory with content that vanished without an event was moved or removed by someone that vfsx does not
        // see. Only a scan can tell that it is nowhere. That has not to be at its end, which may wait for files in here.
        let scanned = self.memory.scan.last_walked() >= row.scan;
        if !entries.is_empty() && !row.dead && !scanned {
            return Ok(0);
        }
        for (name, child) in &entries {
            self.emit(Op::DropEntry {
                dir: id,
                name: name.clone(),
            })?;
            if row.scan == EXCLUDED {
                self.exclude(*child)?;
            } else {
                // What would have been moved out of it, the same scan would have found.
                self.displace_until(*child, false, row.scan)?;
            }
        }
        if self.is_empty(id)? {
            self.drop_object(id)?;
        }
        Ok(entries.len() + 1)
    }
}
