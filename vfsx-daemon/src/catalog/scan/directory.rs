//! One directory of the share against the catalog.

use super::Ended;
use super::fingerprint::{Fingerprint, Hasher};
use super::nodes::nodes;
use crate::catalog::CatalogError;
use crate::catalog::applier::{BUCKET, Page, Request, reach};
use crate::catalog::exclude::Exclude;
use crate::catalog::share::{Doubt, Seen, Stamp, Type, list, open_pinned};
use crate::catalog::shared::Shared;
use crate::catalog::store::{GapRow, Key, ListRow, NodeRow, get};
use crossbeam_channel::{Sender, bounded};
use restfs_lib::model::ObjectId;
use restfs_lib::tree::Tree;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Names in a page, and entries of the catalog walked at once.
const NAMES: usize = 512;
/// Objects that wait to be read before the scan waits for them: it must not fill the store with what it finds.
const UNREAD: u64 = 4096;
/// Longest wait for readers; beyond, something keeps them from reading, and the scan may be what helps.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Comparison<'a> {
    shared: &'a Shared,
    applier: Sender<Request>,
    /// Names that are not looked at, and looked at when the catalog has them.
    exclude: &'a Exclude,
    hasher: Hasher,
    /// Of directories that are done with, until it is worth a transaction.
    pending: Mutex<Page>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(shared: &'a Shared, applier: Sender<Request>, exclude: &'a Exclude) -> Self {
        Self {
            shared,
            applier,
            exclude,
            hasher: Hasher::default(),
            pending: Mutex::default(),
        }
    }

    pub(super) fn run(&self, dir: ObjectId, row: ListRow) -> Result<(), Ended> {
        let found = self.compare(dir, row)?;
        let full = {
            let mut pending = self.pending();
            pending.append(found);
            pending.listed.push((dir, row));
            is_full(&pending).then(|| std::mem::take(&mut *pending))
        };
        full.map_or(Ok(()), |full| self.send(full))
    }

    /// All directories were compared. `last`: what else there is to say.
    pub(super) fn finish(self, last: Page) -> Result<(), Ended> {
        let mut pending = std::mem::take(&mut *self.pending());
        pending.append(last);
        match pending.is_empty() {
            true => Ok(()),
            false => self.send(pending),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Page> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the catalog's entries with the disk, then the disk's names with the catalog. Gives what it has not sent yet.
    fn compare(&self, dir: ObjectId, row: ListRow) -> Result<Page, Ended> {
        let kv = self.shared.kv.read().map_err(CatalogError::from)?;
        let reached = reach(&*kv, &self.shared.share, dir)?;
        drop(kv);
        let Some((pin, seen, _)) = reached else {
            return Err(Ended::Away);
        };
        if seen.kind != Type::Directory {
            return Err(Ended::Away);
        }
        let mut found = Page::default();
        let there = self.compare_entries(dir, &pin, row, &mut found)?;
        if there != self.names(pin.as_fd())? {
            self.find_new(dir, pin.as_fd(), row, &mut found)?;
        }
        Ok(found)
    }

    /// Which of the catalog's entries there are on disk.
    fn compare_entries(
        &self,
        dir: ObjectId,
        pin: &OwnedFd,
        row: ListRow,
        found: &mut Page,
    ) -> Result<Fingerprint, Ended> {
        let mut there = Fingerprint::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let kv = self.shared.kv.read().map_err(CatalogError::from)?;
            let entries = Tree::head(&*kv, BUCKET)
                .entries(dir, after.as_deref(), NAMES)
                .map_err(CatalogError::from)?;
            let Some((last, _)) = entries.last() else {
                return Ok(there);
            };
            after = Some(last.clone());
            let gap = get::<GapRow>(&*kv, &Key::meta("gap"))?;
            let nodes = nodes(&*kv, entries.iter().map(|(_, child)| *child).collect())?;
            drop(kv);
            for (name, child) in entries {
                if self.exclude.matches(&name) {
                    found.looks.push((dir, name, row));
                    continue;
                }
                let seen = self.shared.share.see(pin.as_fd(), &name)?;
                if seen.is_some() {
                    there.add(self.hasher.hash(&name));
                }
                match (seen, nodes.get(&child)) {
                    (Some(seen), Some(node)) if seen.node == node.node => {
                        count(&seen, (child, node), row, found);
                        if differs(&seen, node, gap.as_ref()) {
                            found.looks.push((dir, name, row));
                        }
                    }
                    _ => found.looks.push((dir, name, row)),
                }
            }
            self.send_full(found)?;
        }
    }

    /// Which names there are on disk.
    fn names(&self, pin: BorrowedFd<'_>) -> Result<Fingerprint, Ended> {
        let mut names = Fingerprint::default();
        list::<Ended>(open_pinned(pin, true)?.as_fd(), |name| {
            if !self.exclude.matches(name) {
                names.add(self.hasher.hash(name));
            }
            Ok(())
        })?;
        Ok(names)
    }

    fn find_new(
        &self,
        dir: ObjectId,
        pin: BorrowedFd<'_>,
        row: ListRow,
        found: &mut Page,
    ) -> Result<(), Ended> {
        let listing = open_pinned(pin, true)?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        list::<Ended>(listing.as_fd(), |name| {
            names.push(name.to_vec());
            if names.len() >= NAMES {
                self.find_unknown(dir, std::mem::take(&mut names), row, found)?;
            }
            Ok(())
        })?;
        self.find_unknown(dir, names, row, found)
    }

    fn find_unknown(
        &self,
        dir: ObjectId,
        names: Vec<Vec<u8>>,
        row: ListRow,
        found: &mut Page,
    ) -> Result<(), Ended> {
        let kv = self.shared.kv.read().map_err(CatalogError::from)?;
        let tree = Tree::head(&*kv, BUCKET);
        for name in names {
            if self.exclude.matches(&name) {
                continue;
            }
            if tree.lookup(dir, &name).map_err(CatalogError::from)?.is_none() {
                found.looks.push((dir, name, row));
            }
        }
        drop(kv);
        self.send_full(found)
    }

    fn send_full(&self, found: &mut Page) -> Result<(), Ended> {
        if is_full(found) {
            return self.send(std::mem::take(found));
        }
        match self.shared.stopping() {
            true => Err(Ended::Stopped),
            false => Ok(()),
        }
    }

    /// Hands a page to the applier and waits until it is in the store.
    fn send(&self, page: Page) -> Result<(), Ended> {
        let until = Instant::now() + PATIENCE;
        while self.shared.unread() > UNREAD && Instant::now() < until {
            if self.shared.stopping() {
                return Err(Ended::Stopped);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (reply, done) = bounded(1);
        self.applier
            .send(Request::Page(page, reply))
            .map_err(|_| Ended::Stopped)?;
        match self.shared.answer(&done) {
            Ok(()) => Ok(()),
            Err(_) if self.shared.stopping() => Err(Ended::Stopped),
            Err(e) => Err(Ended::Error(e.to_string())),
        }
    }
}

fn is_full(page: &Page) -> bool {
    page.looks.len() + page.below.len() >= NAMES
}

fn count(seen: &Seen, (child, node): (ObjectId, &NodeRow), row: ListRow, found: &mut Page) {
    if row.scan == 0 {
        return;
    }
    found.files += u64::from(seen.kind != Type::Directory);
    found.bytes = found.bytes.saturating_add(seen.size());
    if seen.kind == Type::Directory && node.scan != row.scan {
        found.below.push((child, row));
    }
}

/// Whether the inode may be another one than the catalog says, by what a look shows.
fn differs(seen: &Seen, node: &NodeRow, gap: Option<&GapRow>) -> bool {
    let doubtful = seen.kind == Type::File && gap.is_some_and(|gap| gap.doubts(node.stamp));
    doubtful
        || node.stamp.doubt() != Doubt::None
        || Stamp::from(node.stamp) != seen.stamp
        || node.names != seen.names()
}

#[cfg(test)]
mod tests;
