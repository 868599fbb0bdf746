//! Metadata of objects: what differs on disk is put.

use super::dirs::{ReachError, reach};
use super::unread::Class;
use super::work::{Touched, Work};
use crate::catalog::CatalogError;
use crate::catalog::dirt::Dirt;
use crate::catalog::share::{Details, Doubt, Seen, Stamp, Type, details};
use crate::catalog::store::{NodeRow, StampRow, Touch};
use restfs_lib::model::{Object, ObjectId, Op};
use rustix::fd::AsFd;
use std::time::Duration;

/// Until an object that could not be reached is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(100);

impl Work<'_> {
    /// Reads the metadata of all objects that the batch has touched.
    pub(super) fn run_refresh(&mut self) -> Result<(), CatalogError> {
        let before = self.cause;
        while let Some((id, Touched { why, class })) = self.touched.pop_first() {
            self.cause.class = class;
            self.refresh(id, why)?;
        }
        self.cause = before;
        Ok(())
    }

    fn refresh(&mut self, id: ObjectId, why: Touch) -> Result<(), CatalogError> {
        // What is dirty is read with its metadata, in one go; in a round all is, when its writes have ended.
        let in_round = self.memory.round.is_some() && self.object(id)?.is_some() && self.has_names(id)?;
        if in_round || self.memory.dirty.get(id).is_some() {
            // A scan waits for it.
            let due = match self.cause.class {
                Class::Client => self.due(),
                Class::Scan => self.now,
            };
            return self.add_dirt(id, &Dirt::metadata(why), 0, due);
        }
        match self.examine_object(id) {
            Ok(Some((seen, details))) => self.put_metadata(id, &seen, details, &Dirt::metadata(why)),
            Ok(None) => self.touch_later(id, why),
            Err(ReachError::Catalog(e)) => Err(e),
            Err(ReachError::Io(e)) => {
                self.memory.note_error(format!("object {id}: {e}"));
                self.touch_later(id, why)
            }
        }
    }

    fn examine_object(&mut self, id: ObjectId) -> Result<Option<(Seen, Details)>, ReachError> {
        let Some((pin, seen, _)) = reach(&*self.kv, self.share, id)? else {
            return Ok(None);
        };
        let details = details(pin.as_fd(), seen.kind == Type::Symlink)?;
        Ok(Some((seen, details)))
    }

    fn touch_later(&mut self, id: ObjectId, why: Touch) -> Result<(), CatalogError> {
        // One without a name is read when it has one again, or dropped.
        if self.object(id)?.is_none() || !self.has_names(id)? {
            return Ok(());
        }
        let due = self.now + RETRY;
        self.add_dirt(id, &Dirt::metadata(why), 0, due)
    }

    /// Puts what differs. `read`: with content, that is in the catalog as of `seen`, so that the size is, too.
    pub(super) fn put_metadata(
        &mut self,
        id: ObjectId,
        seen: &Seen,
        details: Details,
        read: &Dirt,
    ) -> Result<(), CatalogError> {
        let Some(old) = self.object(id)? else {
            return Ok(());
        };
        let content = read.has_ranges();
        if self.known_as(seen)? != Some(id) {
            return Ok(());
        }
        let size = if content { seen.size() } else { old.size };
        let new = Object {
            size,
            layout: old.layout,
            ..self.described(seen, &details)
        };
        // Reading a file moves its access time and is no change, unless a client has set it.
        let atime = if read.touched == Touch::Told {
            new.atime
        } else {
            old.atime
        };
        if (Object { atime, ..new.clone() }) != old {
            self.emit(Op::PutObject { id, object: new })?;
        }
        self.put_attributes(id, details.attributes)?;
        self.note_seen(id, seen, content)?;
        if !content && seen.size() != old.size {
            let changed = seen.size().min(old.size)..u64::MAX;
            let dirt = Dirt::of(changed);
            let now = self.now;
            self.add_dirt(id, &dirt, seen.size(), now)?;
        }
        Ok(())
    }

    fn put_attributes(&mut self, id: ObjectId, new: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), CatalogError> {
        for (name, _) in self.tree().attributes(id)? {
            if new.binary_search_by(|(n, _)| n.cmp(&name)).is_err() {
                self.emit(Op::DropAttribute { id, name })?;
            }
        }
        for (name, value) in new {
            self.emit(Op::PutAttribute { id, name, value })?;
        }
        Ok(())
    }

    /// Without its content read, a file's stamp moves only when its content cannot have changed: a scan reads it again
    /// otherwise, since a program on this host may have written it before a client set its times. What the stamp did not tell
    /// of the content it does not tell then.
    fn note_seen(&mut self, id: ObjectId, seen: &Seen, content: bool) -> Result<(), CatalogError> {
        let Some(row) = self.node_row(id)? else {
            return Ok(());
        };
        let old = Stamp::from(row.stamp);
        let same = old.size == seen.stamp.size && old.mtime == seen.stamp.mtime;
        let stamp = if content || seen.kind != Type::File {
            StampRow::of(seen.stamp, seen.doubt)
        } else if same {
            let of_content = (row.stamp.doubt() == Doubt::Content).then_some(Doubt::Content);
            let doubt = of_content.unwrap_or(seen.doubt.min(Doubt::Metadata));
            StampRow::of(seen.stamp, doubt)
        } else {
            row.stamp
        };
        let new = NodeRow {
            names: seen.names(),
            stamp,
            ..row
        };
        if new != row {
            self.put_node_row(id, &new)?;
        }
        Ok(())
    }
}
