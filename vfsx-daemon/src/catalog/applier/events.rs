//! Journal records. Namespace events are applied by identity, without looking; then every name they touched is looked at.

use super::cut::News;
use super::work::{Cause, Work};
use crate::catalog::CatalogError;
use crate::catalog::dirt::{Dirt, WHOLE};
use crate::catalog::share::is_attribute;
use crate::catalog::store::{GapRow, IntentRow, Key, Prefix, Touch, delete, get, page, put};
use crate::journal::{Body, DirRef, GapReason, Metadata, NodeKind, NodeRef, Record, Session};
use bytes::Bytes;
use restfs_lib::model::{Kind, Object, ObjectId, Time, valid_name};
use restfs_lib::tree::MAX_SIZE;
use rustix::fd::AsFd;
use std::ops::Range;
use std::time::Instant;
use vfsx_proto::ring::WRITE_ENDED_AFTER;

/// Open intents of a session taken up at once.
const PAGE: usize = 256;

impl Work<'_> {
    /// Takes a record in. One that is applied already counts for nothing.
    pub(super) fn take_record(&mut self, record: &Record) -> Result<(), CatalogError> {
        if self.memory.is_applied(record.sequence) {
            return Ok(());
        }
        self.cause = Cause::client(record.sequence, record.time_ns);
        let next = self.memory.head.applied + 1;
        self.memory.note_applied(record.sequence);
        // A round takes them in another order, and holes were found before.
        if record.sequence > next && self.memory.round.is_none() {
            self.note_gap(record.time_ns, GapReason::JournalDamaged.text())?;
        }
        if !names(&record.body).all(valid_name) {
            return self.note_gap(record.time_ns, "an event with a name that cannot be");
        }
        let mut body = record.body.clone();
        for node in nodes(&mut body) {
            *node = self.share.known_node(node);
        }
        match &body {
            Body::Create {
                dir,
                name,
                node,
                kind,
            } => self.create(dir, name, node, *kind),
            Body::Link { dir, name, node } => self.link(dir, name, node),
            Body::Rename {
                from,
                from_name,
                to,
                to_name,
                node,
                replaced,
            } => self.rename((from, from_name), (to, to_name), node, replaced.as_ref()),
            Body::Unlink { dir, name, node } => self.unlink(dir, name, node),
            Body::Look { dir, name } => {
                let dir = self.find_dir(dir)?;
                self.look_at_event(dir, name);
                Ok(())
            }
            Body::Opened {
                handle,
                node,
                path_hint,
            } => {
                let intent = IntentRow {
                    node: *node,
                    path_hint: path_hint.clone(),
                };
                self.put_intent(record.session, *handle, &intent)
            }
            Body::Dirty {
                node,
                path_hint,
                ranges,
                whole,
                ..
            } => {
                let ranges = ranges.iter().map(|r| r.start..r.end).collect::<Vec<_>>();
                let ranges = if *whole { vec![WHOLE] } else { ranges };
                self.dirty(node, path_hint, &ranges)
            }
            Body::Flushed { node, .. } => self.flushed(node),
            Body::Closed { handle, node } => {
                self.forget_intent(record.session, *handle)?;
                self.flushed(node)
            }
            Body::Touched {
                node,
                path_hint,
                changed,
            } => {
                let why = if changed.stat { Touch::Told } else { Touch::Looked };
                self.touch(node, path_hint, why, News::Touched)
            }
            Body::Write {
                handle,
                node,
                start,
                length,
                data,
            } => self.write((record.session, *handle), node, (*start, *length), data.as_ref()),
            Body::Resized { handle, node, size } => self.resize((record.session, *handle), node, *size),
            Body::Metadata {
                node,
                path_hint,
                metadata,
            } => match is_possible(metadata) {
                true => self.touch(node, path_hint, Touch::Told, News::Metadata(metadata)),
                false => self.touch(node, path_hint, Touch::Told, News::Touched),
            },
            Body::Gap { since_ns, reason } => {
                if *reason == GapReason::Killed {
                    self.scan_after_kill();
                }
                self.note_gap(*since_ns, reason.text())
            }
            Body::SessionStarted { .. } => Ok(()),
            Body::SessionEnded { .. } => self.end_session(record.session),
        }
    }

    fn create(
        &mut self,
        dir: &DirRef,
        name: &[u8],
        node: &NodeRef,
        kind: NodeKind,
    ) -> Result<(), CatalogError> {
        let found = self.find_dir(dir)?;
        if self.is_excluded(name) || found.is_none() && self.is_beyond(dir) {
            return match kind {
                NodeKind::Directory => self.bury_whole(node),
                _ => Ok(()),
            };
        }
        let hint = dir;
        let Some(dir) = found else {
            return match kind {
                NodeKind::Directory => self.note_within(hint, node),
                _ => Ok(()),
            };
        };
        match self.known(node)? {
            Some(id) => {
                self.put_entry(dir, name, id)?;
                // Known before it was created: seen by an earlier look, or the inode was used again within the file
                // system's clock tick and this is another file.
                self.read_whole(id)?;
            }
            None if self.adopt_described(dir, name, node, kind)? => {}
            None => self.adopt_created(dir, name, node)?,
        }
        if kind == NodeKind::Directory {
            self.note_within(hint, node)?;
        }
        self.look_later(dir, name, false);
        Ok(())
    }

    /// One that is not there any more is taken in by the event that says where it went.
    fn adopt_created(&mut self, dir: ObjectId, name: &[u8], node: &NodeRef) -> Result<(), CatalogError> {
        let handle = match self.dir(dir) {
            Ok(Some(handle)) => handle,
            Ok(None) | Err(super::dirs::ReachError::Io(_)) => {
                self.miss();
                return Ok(());
            }
            Err(super::dirs::ReachError::Catalog(e)) => return Err(e),
        };
        if let Ok(Some(seen)) = self.share.see(handle.as_fd(), name)
            && seen.node == *node
        {
            // Of one that was excluded, or beyond, what is in it may have been passed over.
            let fresh = !self.memory.graves.contains(node);
            if self.adopt(dir, &handle, name, &seen, fresh)?.is_some() {
                return Ok(());
            }
        }
        self.miss();
        Ok(())
    }

    /// What was created is not there any more: the tree lacks it until a later record says where it is.
    fn miss(&mut self) {
        if let Some(round) = &mut self.memory.round {
            round.miss();
        }
    }

    fn link(&mut self, dir: &DirRef, name: &[u8], node: &NodeRef) -> Result<(), CatalogError> {
        let Some(dir) = self.find_dir(dir)? else {
            return Ok(());
        };
        if let Some(id) = self.known(node)?.filter(|_| !self.is_excluded(name)) {
            self.put_entry(dir, name, id)?;
            self.one_more_name(id)?;
        }
        self.look_later(dir, name, false);
        Ok(())
    }

    /// So that an unlink that comes before the next look does not take the object for dead.
    fn one_more_name(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        let Some(mut row) = self.node_row(id)? else {
            return Ok(());
        };
        row.names = row.names.saturating_add(1);
        self.put_node_row(id, &row)
    }

    fn rename(
        &mut self,
        (from, from_name): (&DirRef, &[u8]),
        (to, to_name): (&DirRef, &[u8]),
        node: &NodeRef,
        replaced: Option<&NodeRef>,
    ) -> Result<(), CatalogError> {
        self.memory.within.remove(&(from.node, *node));
        let from = self.find_dir(from)?;
        let (hint, to) = (to, self.find_dir(to)?);
        let excluded = self.is_excluded(to_name) || to.is_none() && self.leads_through_excluded(hint);
        if let Some(id) = self.known(node)? {
            let same = from == to && from_name == to_name;
            if let (Some(from), false) = (from, same) {
                self.drop_entry(from, from_name, id)?;
            }
            match to {
                _ if excluded => self.exclude(id)?,
                Some(to) => self.put_entry(to, to_name, id)?,
                None => self.displace(id, false)?,
            }
        } else if let (Some(to), false) = (to, excluded) {
            // It had an excluded name, or is not known yet: it takes its place before what was there goes.
            self.look_now(to, to_name)?;
        }
        if excluded {
            // A directory that nobody knows yet: what was done in it before concerns nobody.
            self.bury_whole(node)?;
        } else {
            self.note_within(hint, node)?;
        }
        if let Some(replaced) = replaced.filter(|r| *r != node) {
            self.bury(replaced)?;
            if let Some(id) = self.known(replaced)? {
                self.name_lost(id, replaced)?;
            }
        }
        self.look_at_event(from, from_name);
        self.look_at_event(to, to_name);
        Ok(())
    }

    fn unlink(&mut self, dir: &DirRef, name: &[u8], node: &NodeRef) -> Result<(), CatalogError> {
        self.bury(node)?;
        self.memory.within.remove(&(dir.node, *node));
        let Some(dir) = self.find_dir(dir)? else {
            return Ok(());
        };
        if let Some(id) = self.known(node)?
            && (self.drop_entry(dir, name, id)? || self.is_directory(id)?)
        {
            self.name_lost(id, node)?;
        }
        self.look_later(dir, name, false);
        Ok(())
    }

    /// An event says that the inode lost a name for good. A directory has one name, so it is gone, wherever the catalog has it: what
    /// other processes did in it before may be told later, and must not keep it.
    fn name_lost(&mut self, id: ObjectId, node: &NodeRef) -> Result<(), CatalogError> {
        if self.is_directory(id)? {
            return self.forget_identity(id, node);
        }
        self.displace(id, true)
    }

    fn look_at_event(&mut self, dir: Option<ObjectId>, name: &[u8]) {
        if let Some(dir) = dir {
            self.look_later(dir, name, false);
        }
    }

    /// The directory of an event. One that cannot be found is remembered: when another event brings it in, it is listed.
    fn find_dir(&mut self, dir: &DirRef) -> Result<Option<ObjectId>, CatalogError> {
        let found = self.resolve(&dir.node, &dir.path_hint)?;
        match found {
            Some(id) if self.is_directory(id)? => {
                // Its times have changed, even if all else is settled by now.
                self.touched(id);
                self.roll(id, News::Time)?;
                Ok(Some(id))
            }
            Some(id) => {
                self.forget_identity(id, &dir.node)?;
                Ok(None)
            }
            None => {
                if !self.is_beyond(dir) {
                    self.lose(dir.node)?;
                } else {
                    self.bury_whole(&dir.node)?;
                }
                Ok(None)
            }
        }
    }

    fn dirty(
        &mut self,
        node: &NodeRef,
        path_hint: &[u8],
        ranges: &[std::ops::Range<u64>],
    ) -> Result<(), CatalogError> {
        // An inode that is not known is read whole when it becomes known, and otherwise it is gone.
        let Some(id) = self.resolve(node, path_hint)? else {
            return Ok(());
        };
        let Some(object) = self.object(id)?.filter(|o| o.kind == Kind::File) else {
            return Ok(());
        };
        self.roll(id, News::Time)?;
        for range in ranges {
            self.roll(id, News::Range(range.clone()))?;
        }
        let due = self.due();
        self.soil(id, &object, ranges, due)
    }

    fn soil(
        &mut self,
        id: ObjectId,
        object: &Object,
        ranges: &[Range<u64>],
        due: Instant,
    ) -> Result<(), CatalogError> {
        let mut dirt = Dirt::touched();
        for range in ranges {
            dirt.add(range.clone());
        }
        let written = ranges.iter().map(|r| r.end).filter(|end| *end < u64::MAX).max();
        let size = object.size.max(written.unwrap_or_default());
        self.add_dirt(id, &dirt, size, due)
    }

    /// Bytes that were about to be written.
    fn write(
        &mut self,
        opened: (Session, u64),
        node: &NodeRef,
        (start, length): (u64, u64),
        data: Option<&Bytes>,
    ) -> Result<(), CatalogError> {
        let range = start..start.saturating_add(length);
        let Some((id, object)) = self.opened_file(opened, node)? else {
            return Ok(());
        };
        match data {
            Some(data) if data.len() as u64 == length && range.end <= MAX_SIZE => {
                self.roll(id, News::Write { start, data })?;
            }
            _ => self.roll(id, News::Range(range.clone()))?,
        }
        self.soil_announced(id, &object, range)
    }

    fn resize(&mut self, opened: (Session, u64), node: &NodeRef, size: u64) -> Result<(), CatalogError> {
        let Some((id, object)) = self.opened_file(opened, node)? else {
            return Ok(());
        };
        match size <= MAX_SIZE {
            true => self.roll(id, News::Size(size))?,
            false => self.roll(id, News::Unknown)?,
        }
        let due = self.due();
        let moved = size.min(object.size)..u64::MAX;
        self.soil(id, &object, std::slice::from_ref(&moved), due)
    }

    /// A round waits until the write has ended; outside of one nothing tells, so that it is given time.
    fn soil_announced(
        &mut self,
        id: ObjectId,
        object: &Object,
        range: Range<u64>,
    ) -> Result<(), CatalogError> {
        let due = self.due();
        self.soil(id, object, std::slice::from_ref(&range), due)?;
        if self.memory.round.is_none() {
            self.memory.dirty.not_before(id, self.now + WRITE_ENDED_AFTER);
        }
        Ok(())
    }

    /// The file that a handle has open.
    fn opened_file(
        &mut self,
        (session, handle): (Session, u64),
        node: &NodeRef,
    ) -> Result<Option<(ObjectId, Object)>, CatalogError> {
        let intent = get::<IntentRow>(&*self.kv, &Key::Intent(session, handle))?;
        let hint = intent.map(|row| row.path_hint).unwrap_or_default();
        // An inode that is not known is read whole when it becomes known, and otherwise it is gone.
        let Some(id) = self.resolve(node, &hint)? else {
            return Ok(None);
        };
        let object = self.object(id)?.filter(|o| o.kind == Kind::File);
        Ok(object.map(|object| (id, object)))
    }

    fn read_whole(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        match self.object(id)? {
            Some(o) if o.kind == Kind::File => {
                self.roll(id, News::Unknown)?;
                let due = self.due();
                self.add_dirt(id, &Dirt::of(WHOLE), o.size, due)
            }
            Some(_) => {
                self.roll(id, News::Unknown)?;
                self.touched(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn flushed(&mut self, node: &NodeRef) -> Result<(), CatalogError> {
        if let Some(id) = self.known(node)? {
            self.read_now(id);
        }
        Ok(())
    }

    fn touch(
        &mut self,
        node: &NodeRef,
        path_hint: &[u8],
        why: Touch,
        news: News<'_>,
    ) -> Result<(), CatalogError> {
        if let Some(id) = self.resolve(node, path_hint)? {
            self.touched_by(id, why);
            self.roll(id, news)?;
        }
        Ok(())
    }

    /// The journal has lost records.
    pub(super) fn note_hole(&mut self, since_ns: i64) -> Result<(), CatalogError> {
        self.note_gap(since_ns, GapReason::JournalDamaged.text())
    }

    pub(super) fn note_gap(&mut self, since_ns: i64, reason: &str) -> Result<(), CatalogError> {
        let newest = self.cause.journal;
        let gap = match self.memory.gap.take() {
            Some(old) => GapRow {
                since_ns: old.since_ns.min(since_ns),
                newest: old.newest.max(newest),
                ..old
            },
            None => GapRow {
                since_ns,
                reason: reason.to_owned(),
                newest,
            },
        };
        put(self.kv, &Key::meta("gap"), &gap)?;
        self.memory.gap = Some(gap);
        Ok(())
    }

    fn put_intent(&mut self, session: Session, handle: u64, row: &IntentRow) -> Result<(), CatalogError> {
        let key = Key::Intent(session, handle);
        if get::<IntentRow>(&*self.kv, &key)?.is_none() {
            self.memory.intents += 1;
        }
        put(self.kv, &key, row)
    }

    fn forget_intent(&mut self, session: Session, handle: u64) -> Result<(), CatalogError> {
        let key = Key::Intent(session, handle);
        if get::<IntentRow>(&*self.kv, &key)?.is_some() {
            self.memory.intents -= 1;
            delete(self.kv, &key)?;
        }
        Ok(())
    }

    /// What the session had open may have been written in ways it did not say any more.
    fn end_session(&mut self, session: Session) -> Result<(), CatalogError> {
        loop {
            let rows = page::<IntentRow>(&*self.kv, Prefix::Intent, &session.0, None, PAGE)?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, row) in rows {
                if let Some(id) = self.resolve(&row.node, &row.path_hint)? {
                    self.read_whole(id)?;
                    self.read_now(id);
                }
                delete(self.kv, &key)?;
                self.memory.intents -= 1;
            }
        }
    }
}

/// Whether an inode can have such metadata: they come from another process.
pub(super) fn is_possible(metadata: &Metadata) -> bool {
    let time = |(seconds, nanoseconds)| Time::new(seconds, nanoseconds).is_some();
    metadata.mode <= 0o7777
        && time(metadata.mtime)
        && time(metadata.atime)
        && metadata
            .xattrs
            .iter()
            .all(|(name, value)| is_attribute(name, value))
}

/// The names in a record.
fn names(body: &Body) -> impl Iterator<Item = &[u8]> {
    let names: [Option<&[u8]>; 2] = match body {
        Body::Create { name, .. }
        | Body::Link { name, .. }
        | Body::Unlink { name, .. }
        | Body::Look { name, .. } => [Some(name), None],
        Body::Rename {
            from_name, to_name, ..
        } => [Some(from_name), Some(to_name)],
        _ => [None, None],
    };
    names.into_iter().flatten()
}

/// The identities in a record.
fn nodes(body: &mut Body) -> impl Iterator<Item = &mut NodeRef> {
    let nodes: [Option<&mut NodeRef>; 4] = match body {
        Body::Create { dir, node, .. } | Body::Link { dir, node, .. } | Body::Unlink { dir, node, .. } => {
            [Some(&mut dir.node), Some(node), None, None]
        }
        Body::Rename {
            from,
            to,
            node,
            replaced,
            ..
        } => [
            Some(&mut from.node),
            Some(&mut to.node),
            Some(node),
            replaced.as_mut(),
        ],
        Body::Look { dir, .. } => [Some(&mut dir.node), None, None, None],
        Body::Opened { node, .. }
        | Body::Dirty { node, .. }
        | Body::Flushed { node, .. }
        | Body::Closed { node, .. }
        | Body::Touched { node, .. }
        | Body::Write { node, .. }
        | Body::Resized { node, .. }
        | Body::Metadata { node, .. } => [Some(node), None, None, None],
        Body::Gap { .. } | Body::SessionStarted { .. } | Body::SessionEnded { .. } => {
            [None, None, None, None]
        }
    };
    nodes.into_iter().flatten()
}
