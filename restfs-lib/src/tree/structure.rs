//! What a client's own write may not do to the tree's shape.

use super::read::{At, Tree};
use super::write::Rows;
use super::{TreeError, keys};
use crate::model::{Kind, ObjectId, Op};
use std::collections::BTreeSet;

/// Directories between an object and the root: far more than a path of 4,096 bytes can name.
pub(super) const MAX_DEPTH: usize = 4096;

/// What the ops touched, to look at when all are done.
#[derive(Default)]
pub(super) struct Structure {
    entries: BTreeSet<(ObjectId, Vec<u8>)>,
    dropped: BTreeSet<ObjectId>,
}

impl Structure {
    /// Before the op is applied.
    pub(super) fn note(&mut self, rows: &Rows<'_>, op: &Op) -> Result<(), TreeError> {
        match op {
            Op::PutEntry {
                child: ObjectId::ROOT,
                ..
            } => fails("the root directory has no name".into()),
            Op::DropObject { id: ObjectId::ROOT } => fails("the root directory cannot be removed".into()),
            Op::PutEntry { dir, name, .. } => {
                self.entries.insert((*dir, name.clone()));
                Ok(())
            }
            Op::DropObject { id } => match rows.object(*id)? {
                Some(_) => {
                    self.dropped.insert(*id);
                    Ok(())
                }
                None => Err(TreeError::NoObject(*id)),
            },
            _ => Ok(()),
        }
    }

    /// After the last op.
    pub(super) fn check(&self, rows: &Rows<'_>) -> Result<(), TreeError> {
        let tree = Tree::new(rows.kv(), rows.bucket(), At::Head);
        for (dir, name) in &self.entries {
            if let Some(child) = tree.lookup(*dir, name)? {
                check_entry(&tree, *dir, child)?;
            }
        }
        for id in &self.dropped {
            if tree.object(*id)?.is_none() {
                check_dropped(&tree, *id)?;
            }
        }
        Ok(())
    }
}

fn check_entry(tree: &Tree<'_>, dir: ObjectId, child: ObjectId) -> Result<(), TreeError> {
    let (parent, _) = tree.object(dir)?.ok_or(TreeError::NoObject(dir))?;
    if parent.kind != Kind::Directory {
        return fails(format!("object {dir} is no directory"));
    }
    let (object, _) = tree.object(child)?.ok_or(TreeError::NoObject(child))?;
    if object.kind != Kind::Directory {
        return Ok(());
    }
    if tree.names(child)?.len() > 1 {
        return fails(format!("directory {child} cannot have two names"));
    }
    check_ancestors(tree, dir, child)
}

/// With one name for each directory, the way up is one line.
fn check_ancestors(tree: &Tree<'_>, dir: ObjectId, child: ObjectId) -> Result<(), TreeError> {
    let mut ancestor = dir;
    for _ in 0..MAX_DEPTH {
        if ancestor == child {
            return fails(format!("directory {child} cannot be moved into itself"));
        }
        match tree.names(ancestor)?.first() {
            Some((above, _)) => ancestor = *above,
            None => return Ok(()),
        }
    }
    fails(format!(
        "directory {dir} has more than {MAX_DEPTH} directories above it"
    ))
}

fn check_dropped(tree: &Tree<'_>, id: ObjectId) -> Result<(), TreeError> {
    if !tree.names(id)?.is_empty() {
        return fails(format!("object {id} still has a name"));
    }
    if !tree.has_rows(keys::ENTRY, id)? {
        return Ok(());
    }
    fails(format!("directory {id} is not empty"))
}

fn fails(text: String) -> Result<(), TreeError> {
    Err(TreeError::Structure(text))
}
