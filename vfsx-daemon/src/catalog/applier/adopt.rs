//! Inodes become objects.

use super::cut::News;
use super::events::is_possible;
use super::work::Work;
use crate::catalog::CatalogError;
use crate::catalog::dirt::{Dirt, WHOLE};
use crate::catalog::share::{Details, Seen, Share, Type, components, details, pin_in};
use crate::catalog::store::{Key, ListRow, NodeRow, StampRow, delete};
use crate::journal::{NodeKind, NodeRef};
use restfs_lib::model::{Kind, Object, ObjectId, Op, Time};
use rustix::fd::{AsFd, OwnedFd};
use std::io;

impl Work<'_> {
    /// Takes in what the name was seen to lead to. `fresh`: an event says that it was just created, so what is in a
    /// directory comes with events of its own. `None`: it is not there any more.
    pub(super) fn adopt(
        &mut self,
        dir: ObjectId,
        handle: &OwnedFd,
        name: &[u8],
        seen: &Seen,
        fresh: bool,
    ) -> Result<Option<ObjectId>, CatalogError> {
        let (seen, details) = match examine(self.share, handle, name, seen) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(e) => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.memory.note_error(format!("{name}: {e}"));
                return Ok(None);
            }
        };
        let id = ObjectId(self.memory.head.next_object);
        self.memory.head.next_object += 1;
        let object = Object {
            // Content is entered when it has been read: an empty file misleads less than one full of zeros.
            size: 0,
            ..self.described(&seen, &details)
        };
        self.emit(Op::PutObject { id, object })?;
        for (name, value) in details.attributes {
            self.emit(Op::PutAttribute { id, name, value })?;
        }
        self.bind(id, &seen)?;
        self.put_entry(dir, name, id)?;
        self.follow_up(id, &seen, fresh)?;
        // It may have changed since the round.
        self.touched(id);
        self.roll(id, News::Unknown)?;
        Ok(Some(id))
    }

    /// Takes in what a record created and the round describes, without looking: it may have changed since, or be gone.
    pub(super) fn adopt_described(
        &mut self,
        dir: ObjectId,
        name: &[u8],
        node: &NodeRef,
        kind: NodeKind,
    ) -> Result<bool, CatalogError> {
        let kind = match kind {
            NodeKind::File => Kind::File,
            NodeKind::Directory => Kind::Directory,
            NodeKind::Symlink | NodeKind::Special => return Ok(false),
        };
        // What is in a directory that was excluded may have been passed over: the disk tells.
        if self.memory.graves.contains(node) {
            return Ok(false);
        }
        let described = self
            .memory
            .round
            .as_ref()
            .and_then(|round| round.description(node));
        let Some(metadata) = described.filter(is_possible) else {
            return Ok(false);
        };
        let id = ObjectId(self.memory.head.next_object);
        self.memory.head.next_object += 1;
        let time = |(seconds, nanoseconds)| Time { seconds, nanoseconds };
        let object = Object {
            kind,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            size: 0,
            mtime: time(metadata.mtime),
            atime: time(metadata.atime),
            btime: Time::from_ns(node.btime_ns.into()),
            layout: self.rules.layout,
        };
        self.emit(Op::PutObject { id, object })?;
        for (name, value) in metadata.xattrs {
            self.emit(Op::PutAttribute { id, name, value })?;
        }
        self.kv.put(&Key::Node(*node).bytes(), &id.0.to_be_bytes())?;
        let row = NodeRow {
            node: *node,
            names: 1,
            stamp: Default::default(),
            scan: 0,
        };
        self.put_node_row(id, &row)?;
        self.put_entry(dir, name, id)?;
        if let Some(lost) = self.unlose(node)? {
            let journal = lost.journal.min(self.cause.journal);
            self.want_list(id, ListRow { journal, scan: 0 })?;
        }
        self.touched(id);
        self.roll(id, News::Time)?;
        Ok(true)
    }

    fn bind(&mut self, id: ObjectId, seen: &Seen) -> Result<(), CatalogError> {
        self.kv.put(&Key::Node(seen.node).bytes(), &id.0.to_be_bytes())?;
        let unread = seen.size() > 0;
        let row = NodeRow {
            node: seen.node,
            names: seen.names(),
            stamp: if unread {
                Default::default()
            } else {
                StampRow::of(seen.stamp, seen.doubt)
            },
            scan: 0,
        };
        self.put_node_row(id, &row)
    }

    /// What is in it is read or listed next.
    fn follow_up(&mut self, id: ObjectId, seen: &Seen, fresh: bool) -> Result<(), CatalogError> {
        let lost = self.unlose(&seen.node)?;
        if seen.kind == Type::Directory && (!fresh || lost.is_some()) {
            let journal = lost.map_or(self.cause.journal, |l| l.journal.min(self.cause.journal));
            self.want_list(id, ListRow { journal, scan: 0 })?;
        }
        if seen.size() > 0 {
            let due = if fresh { self.due() } else { self.now };
            self.add_dirt(id, &Dirt::of(WHOLE), seen.size(), due)?;
        }
        Ok(())
    }

    /// An object's properties as seen.
    pub(super) fn described(&self, seen: &Seen, details: &Details) -> Object {
        let kind = match seen.kind {
            Type::File => Kind::File,
            Type::Directory => Kind::Directory,
            Type::Symlink => Kind::Symlink {
                target: details.target.clone(),
            },
            Type::Fifo => Kind::Fifo,
            Type::Socket => Kind::Socket,
            Type::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            Type::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
        };
        Object {
            kind,
            mode: seen.mode,
            uid: seen.uid,
            gid: seen.gid,
            size: seen.size(),
            mtime: seen.stamp.mtime,
            atime: seen.atime,
            btime: seen.btime,
            layout: self.rules.layout,
        }
    }

    /// The inode is not this object any more, so the object is gone. Names that it still has are looked at.
    pub(super) fn forget_identity(&mut self, id: ObjectId, node: &NodeRef) -> Result<(), CatalogError> {
        delete(self.kv, &Key::Node(*node))?;
        for (dir, name) in self.tree().names(id)? {
            self.look_later(dir, &name, false);
        }
        self.displace(id, true)
    }

    /// The object of an inode that an event names; one that is not known yet is searched where the module believed it
    /// to be, and taken in with the directories on the way.
    pub(super) fn resolve(
        &mut self,
        node: &NodeRef,
        path_hint: &[u8],
    ) -> Result<Option<ObjectId>, CatalogError> {
        if let Some(id) = self.known(node)? {
            return Ok(Some(id));
        }
        let Some(path) = components(path_hint) else {
            return Ok(None);
        };
        if path.iter().any(|name| self.is_excluded(name)) {
            return Ok(None);
        }
        match self
            .share
            .pin(&path)
            .and_then(|pin| pin.map(|pin| self.share.see_handle(pin.as_fd())).transpose())
        {
            Ok(Some(seen)) if seen.node == *node => {}
            Ok(_) => return Ok(None),
            Err(e) => {
                self.memory
                    .note_error(format!("{}: {e}", String::from_utf8_lossy(path_hint)));
                return Ok(None);
            }
        }
        let mut dir = ObjectId::ROOT;
        for name in &path {
            self.look_now(dir, name)?;
            match self.lookup(dir, name)? {
                Some(child) => dir = child,
                None => return Ok(None),
            }
        }
        self.known(node)
    }
}

/// What the name leads to, all of one moment's inode. `None`: it leads to another one by now.
fn examine(share: &Share, dir: &OwnedFd, name: &[u8], seen: &Seen) -> io::Result<Option<(Seen, Details)>> {
    let Some(pin) = pin_in(dir.as_fd(), name)? else {
        return Ok(None);
    };
    let now = share.see_handle(pin.as_fd())?;
    if now.node != seen.node || now.kind != seen.kind {
        return Ok(None);
    }
    let details = details(pin.as_fd(), now.kind == Type::Symlink)?;
    Ok(Some((now, details)))
}
