//! The share against the catalog, content included: what `vfsxctl verify --deep` reads. It changes nothing.
//!
//! Clients work on meanwhile, so a difference at first sight is only a suspicion. It counts when the inode has not changed
//! since before everything that clients had done was in the catalog: then nothing is on its way that could explain it.

mod content;
mod examine;

pub use examine::{Fault, Faults};

use super::applier::{BUCKET, Page, ReachError, Request, reach};
use super::exclude::Exclude;
use super::share::Stamp;
use super::store::{ExcludeRow, Key, get};
use super::{Catalog, CatalogError};
use crate::journal::NodeRef;
use examine::Examiner;
use restfs_lib::model::{ObjectId, RowKey};
use restfs_lib::tree::Tree;
use rustix::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Rows read at once.
const PAGE: usize = 1024;
/// Two changes within a tick of the kernel's clock may leave the same times. Twice the slowest there is.
const TICK: Duration = Duration::from_millis(20);

/// What reading asks for: how fast, and whether to go on.
pub struct Reading<'a> {
    /// Called behind every read with its bytes; takes as long as the reader has to wait.
    pub pace: &'a dyn Fn(u64),
    /// The reader gives up at the next block.
    pub stop: &'a AtomicBool,
}

/// What one look at some objects saw.
#[derive(Debug, Default)]
pub struct Audited {
    pub files: u64,
    pub bytes: u64,
    /// Objects that are not as the catalog says, at first sight.
    pub suspects: Vec<ObjectId>,
}

/// An inode at a moment, so that it can be told whether it has changed since.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    pub object: ObjectId,
    node: NodeRef,
    stamp: Stamp,
}

/// What a look says of an object that had been steady until then.
#[derive(Debug)]
pub enum Judgement {
    Equal,
    Differs(Faults),
    /// It has changed meanwhile, or is not where it was.
    InChange,
}

impl Catalog {
    /// Groups of objects that there are, after `after`.
    pub fn audit_groups(&self, after: Option<u64>) -> Result<Vec<u64>, CatalogError> {
        let kv = self.shared().kv.read()?;
        let groups = Tree::head(&*kv, BUCKET).groups(after, PAGE)?;
        Ok(groups.into_iter().map(|(group, _)| group).collect())
    }

    /// Compares the objects of a group with the share. Blocks for as long as reading them takes.
    pub fn audit_group(&self, group: u64, reading: &Reading<'_>) -> Result<Audited, CatalogError> {
        let examiner = self.examiner(reading)?;
        let (mut seen, mut after) = (Audited::default(), None);
        loop {
            let (ids, last) = self.objects_of(group, after.as_ref())?;
            for id in ids {
                if reading.stop.load(Ordering::Relaxed) {
                    return Err(CatalogError::Stopped);
                }
                self.audit_one(&examiner, id, &mut seen)?;
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(seen),
            }
        }
    }

    /// The object as it is now. `None`: it is not where the catalog has it, or changed just now.
    pub fn steady(&self, object: ObjectId) -> Result<Option<Steady>, CatalogError> {
        let kv = self.shared().kv.read()?;
        let found = match reach(&*kv, &self.shared().share, object) {
            Ok(found) => found,
            Err(ReachError::Catalog(e)) => return Err(e),
            Err(ReachError::Io(_)) => None,
        };
        Ok(found
            .filter(|(_, seen, _)| has_settled(&seen.stamp))
            .map(|(_, seen, _)| Steady {
                object,
                node: seen.node,
                stamp: seen.stamp,
            }))
    }

    /// Compares an object with the share once more. Between `before` and this call all that clients had done has to have come
    /// into the catalog.
    pub fn audit_again(&self, before: &Steady, reading: &Reading<'_>) -> Result<Judgement, CatalogError> {
        let examiner = self.examiner(reading)?;
        let kv = self.shared().kv.read()?;
        let found = match reach(&*kv, &self.shared().share, before.object) {
            Ok(found) => found,
            Err(ReachError::Catalog(e)) => return Err(e),
            Err(ReachError::Io(_)) => None,
        };
        drop(kv);
        let is_same = |node: NodeRef, stamp: Stamp| node == before.node && stamp == before.stamp;
        let Some((pin, seen, _)) = found.filter(|(_, seen, _)| is_same(seen.node, seen.stamp)) else {
            return Ok(Judgement::InChange);
        };
        let faults = examiner.examine(before.object, &pin, &seen)?;
        let steady = self
            .shared()
            .share
            .see_handle(pin.as_fd())
            .is_ok_and(|after| is_same(after.node, after.stamp));
        Ok(match faults {
            _ if !steady => Judgement::InChange,
            faults if faults.is_empty() => Judgement::Equal,
            faults => Judgement::Differs(faults),
        })
    }

    /// The objects are read again whole, as if they had changed without an event. Returns when that is noted; a scan asked
    /// for behind it has ended when they are read.
    pub fn read_again(&self, objects: Vec<ObjectId>) -> Result<(), CatalogError> {
        let page = Page {
            again: objects,
            ..Page::default()
        };
        self.ask(|reply| Request::Page(page, reply))
    }

    /// Where the catalog has an object, without a leading `/`. `None`: it does not know it, or it has no name.
    pub fn path_of(&self, object: ObjectId) -> Result<Option<Vec<u8>>, CatalogError> {
        let kv = self.shared().kv.read()?;
        Ok(Tree::head(&*kv, BUCKET).path_of(object)?)
    }

    fn examiner<'a>(&'a self, reading: &'a Reading<'a>) -> Result<Examiner<'a>, CatalogError> {
        let kv = self.shared().kv.read()?;
        let exclude: ExcludeRow = get(&*kv, &Key::meta("exclude"))?.unwrap_or_default();
        Ok(Examiner {
            shared: self.shared(),
            excludes: !exclude.text.is_empty(),
            exclude: Exclude::new(&exclude),
            reading,
        })
    }

    /// A page of a group's objects, and the row behind which there may be more.
    fn objects_of(
        &self,
        group: u64,
        after: Option<&RowKey>,
    ) -> Result<(Vec<ObjectId>, Option<RowKey>), CatalogError> {
        let kv = self.shared().kv.read()?;
        let rows = Tree::head(&*kv, BUCKET).rows(group, after, PAGE)?;
        let whole = rows.len() == PAGE;
        let objects: Vec<_> = rows
            .iter()
            .map_while(|(row, _)| match row {
                RowKey::Object { id } => Some(*id),
                _ => None,
            })
            .collect();
        // Objects come before all other rows.
        let more = whole && objects.len() == rows.len();
        let last = rows.into_iter().next_back().map(|(row, _)| row);
        Ok((objects, last.filter(|_| more)))
    }

    fn audit_one(
        &self,
        examiner: &Examiner<'_>,
        object: ObjectId,
        seen: &mut Audited,
    ) -> Result<(), CatalogError> {
        let kv = self.shared().kv.read()?;
        let found = match reach(&*kv, &self.shared().share, object) {
            Ok(found) => found,
            Err(ReachError::Catalog(e)) => return Err(e),
            Err(ReachError::Io(e)) => {
                tracing::debug!("verify: object {object} cannot be reached: {e}");
                None
            }
        };
        drop(kv);
        // One that is elsewhere is found out where its name is.
        let Some((pin, inode, _)) = found else {
            return Ok(());
        };
        if !examiner.examine(object, &pin, &inode)?.is_empty() {
            seen.suspects.push(object);
        }
        seen.files += 1;
        seen.bytes = seen.bytes.saturating_add(inode.size());
        Ok(())
    }
}

/// Whoever changes the inode from now on changes its times.
fn has_settled(stamp: &Stamp) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::from_nanos(u64::try_from(stamp.ctime.ns()).unwrap_or_default());
    // Times ahead of a clock that was set back are no times of now.
    now.checked_sub(changed).is_none_or(|age| age >= TICK)
}
