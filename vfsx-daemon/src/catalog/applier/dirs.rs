//! Ways from objects to the share: where the catalog believes them to be, and handles on directories there.

use super::work::Work;
use crate::catalog::CatalogError;
use crate::catalog::share::{Components, Seen, Share};
use crate::catalog::store::{Key, NodeRow, get};
use restfs_lib::kv::KvRead;
use restfs_lib::model::ObjectId;
use restfs_lib::tree::Tree;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;

use super::work::BUCKET;

/// Names of an object that are tried before it is taken to be elsewhere.
const NAMES_TRIED: usize = 16;
/// Directories visited on the way up. Far more than a tree is deep; a bound for one that is in disorder.
const STEPS: usize = 100_000;
/// Handles kept open during a batch.
const HANDLES: usize = 128;

/// Where the catalog believes an object to be: for each of its names a path from the root. None while a rename that
/// the catalog has not seen keeps it apart.
pub(in crate::catalog) fn paths(kv: &dyn KvRead, id: ObjectId) -> Result<Vec<Components>, CatalogError> {
    if id == ObjectId::ROOT {
        return Ok(vec![Vec::new()]);
    }
    let tree = Tree::head(kv, BUCKET);
    let mut found = Vec::new();
    for (dir, name) in tree.names(id)?.into_iter().take(NAMES_TRIED) {
        if let Some(mut path) = way_down(&tree, dir)? {
            path.push(name);
            found.push(path);
        }
    }
    Ok(found)
}

/// Path of a directory. Depth first over its names, since in disorder it may have several, or be its own ancestor.
fn way_down(tree: &Tree<'_>, dir: ObjectId) -> Result<Option<Components>, CatalogError> {
    let mut visited = HashSet::from([dir]);
    // The way from `dir` up to the one on top, with the names of each that are not tried yet.
    let mut way = vec![(dir, tree.names(dir)?)];
    let mut path: Components = Vec::new();
    for _ in 0..STEPS {
        let Some((at, untried)) = way.last_mut() else {
            return Ok(None);
        };
        if *at == ObjectId::ROOT {
            path.reverse();
            return Ok(Some(path));
        }
        match untried.pop() {
            Some((parent, name)) if visited.insert(parent) => {
                path.push(name);
                way.push((parent, tree.names(parent)?));
            }
            Some(_) => {}
            None => {
                way.pop();
                path.pop();
            }
        }
    }
    Ok(None)
}

/// A handle on the object, its identity checked. `None`: it is not where the catalog believes it to be.
pub(in crate::catalog) fn reach(
    kv: &dyn KvRead,
    share: &Share,
    id: ObjectId,
) -> Result<Option<(OwnedFd, Seen, NodeRow)>, ReachError> {
    let Some(row) = get::<NodeRow>(kv, &Key::Object(id))? else {
        return Ok(None);
    };
    for path in paths(kv, id)? {
        let Some(pin) = share.pin(&path)? else { continue };
        let seen = share.see_handle(pin.as_fd())?;
        if seen.node == row.node {
            return Ok(Some((pin, seen, row)));
        }
    }
    Ok(None)
}

#[derive(Debug, thiserror::Error)]
pub(in crate::catalog) enum ReachError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Of the share's file system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Directories reached in this batch. A handle stays on its directory whatever is renamed.
#[derive(Default)]
pub(super) struct Dirs {
    handles: HashMap<ObjectId, Rc<OwnedFd>>,
}

impl Work<'_> {
    /// `None`: the directory is not where the catalog believes it to be.
    pub(super) fn dir(&mut self, id: ObjectId) -> Result<Option<Rc<OwnedFd>>, ReachError> {
        if let Some(handle) = self.dirs.handles.get(&id) {
            return Ok(Some(Rc::clone(handle)));
        }
        let Some((pin, ..)) = reach(&*self.kv, self.share, id)? else {
            return Ok(None);
        };
        if self.dirs.handles.len() >= HANDLES {
            self.dirs.handles.clear();
        }
        let handle = Rc::new(pin);
        self.dirs.handles.insert(id, Rc::clone(&handle));
        Ok(Some(handle))
    }
}
