//! One edit -> ops.

use super::blocks::Written;
use super::{Made, new_object};
use crate::service::access::{find_object, no_object};
use crate::service::now;
use crate::service::object::show;
use restfs_lib::kv::KvWrite;
use restfs_lib::model::{Kind, Object, ObjectId, Op, Time};
use restfs_lib::tree::bucket::{self, Bucket};
use restfs_lib::tree::{MAX_SIZE, Tree};
use restfs_lib::wire::method::Edit;
use restfs_lib::wire::values::ObjectAt;
use restfs_lib::wire::{Code, Name, RpcError, check};

type Done = Result<(), RpcError>;

/// Mode of symbolic links: nobody looks at it.
const LINK_MODE: u32 = 0o777;

pub(super) struct Steps<'a> {
    pub(super) txn: &'a mut dyn KvWrite,
    pub(super) bucket: &'a Bucket,
    pub(super) written: &'a [Written],
    pub(super) made: &'a mut Made,
}

impl Steps<'_> {
    pub(super) fn take(&mut self, edit: &Edit) -> Done {
        match edit {
            Edit::Mkdir { path, mode } => self.create(path, Kind::Directory, *mode),
            Edit::Create { path, mode } => self.create(path, Kind::File, *mode),
            Edit::Symlink { path, target } => {
                let target = check::link_target(target.clone())?;
                self.create(path, Kind::Symlink { target }, LINK_MODE)
            }
            Edit::Link { object, path } => self.link(object, path),
            Edit::Write { object, offset, .. } => self.write(object, *offset),
            Edit::Truncate { object, size } => self.truncate(object, *size),
            Edit::Unlink { path } => self.unlink(path),
            Edit::Rename { from, to } => self.rename(from, to),
            Edit::Set {
                object,
                mode,
                uid,
                gid,
                mtime,
            } => {
                let mtime = mtime.map(Time::try_from).transpose()?;
                mode.map(check::mode).transpose()?;
                let (id, mut found) = self.object(object)?;
                found.mode = mode.unwrap_or(found.mode);
                found.uid = uid.unwrap_or(found.uid);
                found.gid = gid.unwrap_or(found.gid);
                found.mtime = mtime.unwrap_or(found.mtime);
                self.put(Op::PutObject { id, object: found })
            }
            Edit::SetAttribute { object, name, value } => {
                let (id, _) = self.object(object)?;
                let name = check::attribute_name(name.clone())?;
                let value = check::attribute_value(value.clone())?;
                self.put(Op::PutAttribute { id, name, value })
            }
            Edit::DeleteAttribute { object, name } => self.delete_attribute(object, name),
        }
    }

    fn create(&mut self, path: &Name, kind: Kind, mode: u32) -> Done {
        check::mode(mode)?;
        let (dir, name) = self.free_place(path)?;
        let id = bucket::allocate(self.txn, self.bucket.id, 1)?;
        let object = new_object(kind, mode, self.bucket.layout);
        self.made.created.push(id.0);
        self.put(Op::PutObject { id, object })?;
        self.put(Op::PutEntry { dir, name, child: id })
    }

    fn link(&mut self, at: &ObjectAt, path: &Name) -> Done {
        let (child, object) = self.object(at)?;
        if object.kind == Kind::Directory {
            return Err(invalid(format!("{}: a directory has one name only", show(at))));
        }
        let (dir, name) = self.free_place(path)?;
        self.put(Op::PutEntry { dir, name, child })
    }

    fn write(&mut self, at: &ObjectAt, offset: u64) -> Done {
        let (id, mut object) = self.file(at)?;
        let written = self.written.get(self.made.writes).ok_or_else(|| changed(at))?;
        self.made.writes += 1;
        if written.layout != object.layout {
            return Err(changed(at));
        }
        let length: u64 = written.blocks.iter().map(|block| u64::from(block.length)).sum();
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= MAX_SIZE)
            .ok_or_else(|| invalid(format!("{}: the write would end beyond {MAX_SIZE}", show(at))))?;
        let block_size = u64::from(object.layout.block_size);
        if !offset.is_multiple_of(block_size) || (!end.is_multiple_of(block_size) && end < object.size) {
            return Err(invalid(format!(
                "{}: writes start at a multiple of the block size {block_size}, and end at one or at the file's end",
                show(at)
            )));
        }
        object.size = object.size.max(end);
        object.mtime = now();
        let layout = object.layout;
        self.put(Op::PutObject { id, object })?;
        let first = layout.block_of(offset);
        for (index, block) in (first..).zip(&written.blocks) {
            let (segment, position) = layout.place_of(index);
            match self.made.ops.last_mut() {
                Some(Op::PutBlocks {
                    id: of,
                    segment: current,
                    blocks,
                }) if *of == id && *current == segment => {
                    blocks.push((position, Some(*block)));
                }
                _ => self.put(Op::PutBlocks {
                    id,
                    segment,
                    blocks: vec![(position, Some(*block))],
                })?,
            }
        }
        Ok(())
    }

    fn truncate(&mut self, at: &ObjectAt, size: u64) -> Done {
        let (id, mut object) = self.file(at)?;
        let block_size = u64::from(object.layout.block_size);
        if size > MAX_SIZE {
            return Err(invalid(format!("{}: {size} is more than {MAX_SIZE}", show(at))));
        }
        if size < object.size && !size.is_multiple_of(block_size) {
            let text = format!(
                "{}: a file is cut at a multiple of its block size {block_size}",
                show(at)
            );
            return Err(invalid(text));
        }
        object.size = size;
        object.mtime = now();
        self.put(Op::PutObject { id, object })
    }

    fn unlink(&mut self, path: &Name) -> Done {
        let (dir, name) = self.place(path)?;
        let id = self
            .tree()
            .lookup(dir, &name)?
            .ok_or_else(|| no_object(&ObjectAt::Path(path.clone())))?;
        self.put(Op::DropEntry { dir, name })?;
        self.drop_unnamed(id, path)
    }

    /// Removes an object whose last name goes.
    fn drop_unnamed(&mut self, id: ObjectId, path: &Name) -> Done {
        let tree = self.tree();
        let Some((object, _)) = tree.object(id)? else {
            return Ok(());
        };
        if object.kind == Kind::Directory && !tree.entries(id, None, 1)?.is_empty() {
            return Err(invalid(format!("{} is not empty", text(path))));
        }
        if tree.names(id)?.len() > 1 {
            return Ok(());
        }
        self.put(Op::DropObject { id })
    }

    fn rename(&mut self, from: &Name, to: &Name) -> Done {
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        let from_at = ObjectAt::Path(from.clone());
        let (child, object) = self.object(&from_at)?;
        let old = self.tree().lookup(to_dir, &to_name)?;
        // As rename(2): two names of one object stay as they are.
        if old == Some(child) {
            return Ok(());
        }
        if let Some(old) = old {
            let (replaced, _) = self
                .tree()
                .object(old)?
                .ok_or_else(|| no_object(&ObjectAt::Id(old.0)))?;
            if (replaced.kind == Kind::Directory) != (object.kind == Kind::Directory) {
                let text = format!(
                    "{}: a directory and something else cannot replace each other",
                    text(to)
                );
                return Err(invalid(text));
            }
        }
        self.put(Op::DropEntry {
            dir: from_dir,
            name: from_name,
        })?;
        self.put(Op::PutEntry {
            dir: to_dir,
            name: to_name,
            child,
        })?;
        match old {
            Some(old) => self.drop_unnamed(old, to),
            None => Ok(()),
        }
    }

    fn delete_attribute(&mut self, at: &ObjectAt, name: &Name) -> Done {
        let (id, _) = self.object(at)?;
        let name = check::attribute_name(name.clone())?;
        if self.tree().attribute(id, &name)?.is_none() {
            let text = format!("{} has no attribute {}", show(at), String::from_utf8_lossy(&name));
            return Err(RpcError::new(Code::NotFound, text));
        }
        self.put(Op::DropAttribute { id, name })
    }

    fn put(&mut self, op: Op) -> Done {
        self.made.ops.push(op);
        Ok(())
    }

    fn tree(&self) -> Tree<'_> {
        Tree::head(&*self.txn, self.bucket.id)
    }

    fn object(&self, at: &ObjectAt) -> Result<(ObjectId, Object), RpcError> {
        let tree = self.tree();
        let id = find_object(&tree, at)?;
        match tree.object(id)? {
            Some((object, _)) => Ok((id, object)),
            // The root that this very commit is about to make.
            None if id == ObjectId::ROOT => Ok((
                id,
                new_object(Kind::Directory, super::ROOT_MODE, self.bucket.layout),
            )),
            None => Err(no_object(at)),
        }
    }

    fn file(&self, at: &ObjectAt) -> Result<(ObjectId, Object), RpcError> {
        let (id, object) = self.object(at)?;
        if object.kind == Kind::File {
            return Ok((id, object));
        }
        Err(invalid(format!("{} is no file", show(at))))
    }

    /// Directory and name of a path, whether something is there or not.
    fn place(&self, path: &Name) -> Result<(ObjectId, Vec<u8>), RpcError> {
        let parts = check::path(path)?;
        let (name, parents) = parts
            .split_last()
            .ok_or_else(|| invalid("the root stays where it is".to_owned()))?;
        let parent = Name([&b"/"[..], &parents.join(&b'/')].concat());
        let (dir, object) = self.object(&ObjectAt::Path(parent.clone()))?;
        if object.kind == Kind::Directory {
            return Ok((dir, name.to_vec()));
        }
        Err(invalid(format!("{} is no directory", text(&parent))))
    }

    fn free_place(&self, path: &Name) -> Result<(ObjectId, Vec<u8>), RpcError> {
        let (dir, name) = self.place(path)?;
        match self.tree().lookup(dir, &name)? {
            None => Ok((dir, name)),
            Some(_) => Err(RpcError::new(Code::Exists, format!("{} exists", text(path)))),
        }
    }
}

fn text(path: &Name) -> String {
    String::from_utf8_lossy(&path.0).into_owned()
}

fn invalid(text: String) -> RpcError {
    RpcError::new(Code::Invalid, text)
}

fn changed(at: &ObjectAt) -> RpcError {
    RpcError::new(
        Code::Conflict,
        format!("{} was replaced meanwhile; try again", show(at)),
    )
}
