//! One object: what the catalog says of it, and what is on the share.

use super::Reading;
use super::content::{self, ContentError};
use crate::catalog::CatalogError;
use crate::catalog::applier::BUCKET;
use crate::catalog::exclude::Exclude;
use crate::catalog::reader::Context;
use crate::catalog::share::{Details, Seen, Type, details, list, open_pinned};
use crate::catalog::shared::Shared;
use crate::catalog::store::{Key, NodeRow, get};
use restfs_lib::model::{Kind, Object, ObjectId};
use restfs_lib::tree::Tree;
use rustix::fd::{AsFd, OwnedFd};
use std::io;

/// Faults of one object that are kept one by one.
const LISTED: usize = 10_000;
/// Names of a directory compared at once.
const NAMES: usize = 512;

/// How an object differs from what the catalog says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The directory has a name that the catalog does not have.
    Unknown {
        name: Vec<u8>,
    },
    /// The catalog has one that the directory does not have.
    Gone {
        name: Vec<u8>,
    },
    /// The name leads to another inode.
    Other {
        name: Vec<u8>,
    },
    Metadata {
        what: &'static str,
    },
    Attribute {
        name: Vec<u8>,
    },
    /// From this byte on, and so many blocks.
    Content {
        first: u64,
        blocks: u64,
    },
    Unreadable {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    pub list: Vec<Fault>,
    /// Beyond those in the list.
    pub more: u64,
}

impl Faults {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn add(&mut self, fault: Fault) {
        if self.list.len() < LISTED {
            self.list.push(fault);
        } else {
            self.more += 1;
        }
    }
}

pub(super) struct Examiner<'a> {
    pub(super) shared: &'a Shared,
    pub(super) exclude: Exclude,
    /// Names are excluded: what happens to them moves the times of their directories, and is told to nobody.
    pub(super) excludes: bool,
    pub(super) reading: &'a Reading<'a>,
}

impl Examiner<'_> {
    /// Compares the object with the inode that the handle is on.
    pub(super) fn examine(&self, id: ObjectId, pin: &OwnedFd, seen: &Seen) -> Result<Faults, CatalogError> {
        let mut faults = Faults::default();
        let kv = self.shared.kv.read()?;
        let tree = Tree::head(&*kv, BUCKET);
        // What is not in the catalog any more is nobody's fault.
        let Some((object, _)) = tree.object(id)? else {
            return Ok(faults);
        };
        let attributes = tree.attributes(id)?;
        drop(kv);
        match details(pin.as_fd(), seen.kind == Type::Symlink) {
            Ok(details) => {
                let times = !(self.excludes && seen.kind == Type::Directory);
                compare_metadata(&object, (seen, &details), times, &mut faults);
                compare_attributes(&attributes, &details.attributes, &mut faults);
            }
            Err(e) => faults.add(unreadable(&e)),
        }
        match seen.kind {
            Type::File if object.kind == Kind::File => {
                self.compare_content(id, &object, pin, seen, &mut faults)?
            }
            Type::Directory if object.kind == Kind::Directory => {
                self.compare_names(id, pin, &mut faults)?;
                self.find_unknown(id, pin, &mut faults)?;
            }
            _ => {}
        }
        Ok(faults)
    }

    fn compare_content(
        &self,
        id: ObjectId,
        object: &Object,
        pin: &OwnedFd,
        seen: &Seen,
        faults: &mut Faults,
    ) -> Result<(), CatalogError> {
        let shared = self.shared;
        let context = Context {
            kv: &*shared.kv,
            share: &shared.share,
            cache: &shared.cache,
            clones: &shared.clones,
            bytes_read: &shared.bytes_read,
        };
        let compared = open_pinned(pin.as_fd(), false)
            .map_err(ContentError::from)
            .and_then(|file| {
                content::compare(&context, id, (&file, seen.size()), object.layout, self.reading)
            });
        match compared {
            Ok(None) => {}
            Ok(Some(other)) => faults.add(Fault::Content {
                first: other.first,
                blocks: other.blocks,
            }),
            Err(ContentError::Catalog(e)) => return Err(e),
            Err(ContentError::Io(e)) => faults.add(unreadable(&e)),
        }
        Ok(())
    }

    /// Names of the catalog that lead elsewhere, or nowhere.
    fn compare_names(&self, dir: ObjectId, pin: &OwnedFd, faults: &mut Faults) -> Result<(), CatalogError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let kv = self.shared.kv.read()?;
            let entries = Tree::head(&*kv, BUCKET).entries(dir, after.as_deref(), NAMES)?;
            let Some((last, _)) = entries.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (name, child) in entries {
                if self.exclude.matches(&name) {
                    continue;
                }
                let Some(node) = get::<NodeRow>(&*kv, &Key::Object(child))? else {
                    continue;
                };
                match self.shared.share.see(pin.as_fd(), &name) {
                    Ok(Some(seen)) if seen.node == node.node => {}
                    Ok(Some(_)) => faults.add(Fault::Other { name }),
                    Ok(None) => faults.add(Fault::Gone { name }),
                    Err(e) => faults.add(unreadable(&e)),
                }
            }
        }
    }

    fn find_unknown(&self, dir: ObjectId, pin: &OwnedFd, faults: &mut Faults) -> Result<(), CatalogError> {
        let listing = match open_pinned(pin.as_fd(), true) {
            Ok(listing) => listing,
            Err(e) => {
                faults.add(unreadable(&e));
                return Ok(());
            }
        };
        let mut names = Vec::new();
        let listed = list::<ContentError>(listing.as_fd(), |name| {
            names.push(name.to_vec());
            if names.len() >= NAMES {
                self.look_up(dir, std::mem::take(&mut names), faults)?;
            }
            Ok(())
        });
        match listed {
            Ok(()) => {}
            Err(ContentError::Catalog(e)) => return Err(e),
            Err(ContentError::Io(e)) => faults.add(unreadable(&e)),
        }
        self.look_up(dir, names, faults)
    }

    fn look_up(&self, dir: ObjectId, names: Vec<Vec<u8>>, faults: &mut Faults) -> Result<(), CatalogError> {
        let kv = self.shared.kv.read()?;
        let tree = Tree::head(&*kv, BUCKET);
        for name in names {
            if !self.exclude.matches(&name) && tree.lookup(dir, &name)?.is_none() {
                faults.add(Fault::Unknown { name });
            }
        }
        Ok(())
    }
}

fn unreadable(error: &io::Error) -> Fault {
    Fault::Unreadable {
        why: error.to_string(),
    }
}

/// An access time alone is no change, so it is no difference either.
fn compare_metadata(object: &Object, (seen, details): (&Seen, &Details), times: bool, faults: &mut Faults) {
    let same_target = match &object.kind {
        Kind::Symlink { target } => *target == details.target,
        _ => true,
    };
    let same = [
        ("kind", seen.kind.is(&object.kind)),
        ("target", same_target),
        ("mode", object.mode == seen.mode),
        ("owner", object.uid == seen.uid && object.gid == seen.gid),
        ("size", object.size == seen.size()),
        ("modification time", !times || object.mtime == seen.stamp.mtime),
        ("birth time", object.btime == seen.btime),
    ];
    for (what, _) in same.into_iter().filter(|(_, same)| !same) {
        faults.add(Fault::Metadata { what });
    }
}

/// Both are sorted by name.
fn compare_attributes(known: &[(Vec<u8>, Vec<u8>)], found: &[(Vec<u8>, Vec<u8>)], faults: &mut Faults) {
    let differs = |one: &(Vec<u8>, Vec<u8>), others: &[(Vec<u8>, Vec<u8>)]| !others.contains(one);
    let mut names: Vec<_> = known
        .iter()
        .filter(|a| differs(a, found))
        .map(|(n, _)| n)
        .collect();
    names.extend(found.iter().filter(|a| differs(a, known)).map(|(n, _)| n));
    names.sort();
    names.dedup();
    for name in names {
        faults.add(Fault::Attribute { name: name.clone() });
    }
}
