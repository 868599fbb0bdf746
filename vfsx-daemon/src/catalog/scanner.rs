//! The scan: compares directories with the catalog, while clients work, and says which names differ. Which directories
//! are to be listed is in the store, so a scan that is stopped goes on where it was, and costs no memory however large the
//! share is.

use super::applier::{BUCKET, Page, ReachError, Request, reach};
use super::exclude::Exclude;
use super::share::{Share, Type, list, open_pinned};
use super::shared::Shared;
use super::store::{GapRow, Key, ListRow, NodeRow, Prefix, get, page};
use super::{CatalogError, store};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use restfs_lib::kv::KvRead;
use restfs_lib::model::ObjectId;
use restfs_lib::tree::Tree;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

/// Directories taken up at once.
const DIRECTORIES: usize = 64;
/// Names in a page, and entries of the catalog walked at once.
const NAMES: usize = 512;
/// Objects that wait to be read before the scan waits for them: it must not fill the store with what it finds.
const UNREAD: u64 = 4096;
/// Longest wait for readers; beyond, something keeps them from reading, and the scan may be what helps.
const PATIENCE: Duration = Duration::from_secs(60);
/// Until directories that could not be listed are tried again; doubled each time.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

enum Ended {
    /// The catalog stops.
    Stopped,
    /// The directory could not be listed.
    Away,
    Error(String),
}

impl From<CatalogError> for Ended {
    fn from(e: CatalogError) -> Self {
        Self::Error(e.to_string())
    }
}

impl From<io::Error> for Ended {
    fn from(e: io::Error) -> Self {
        Self::Error(e.to_string())
    }
}

impl From<ReachError> for Ended {
    fn from(e: ReachError) -> Self {
        Self::Error(e.to_string())
    }
}

pub(super) struct Scanner<'a> {
    shared: &'a Shared,
    /// There may be directories to list.
    wake: Receiver<()>,
    applier: Sender<Request>,
    /// Names that are not looked at, and looked at when the catalog has them.
    exclude: Exclude,
    /// Directories that could not be listed: when to try again, and how often it was tried.
    away: HashMap<ObjectId, (Instant, u32)>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(shared: &'a Shared, wake: Receiver<()>, applier: Sender<Request>) -> Self {
        Self {
            shared,
            wake,
            applier,
            exclude: Exclude::default(),
            away: HashMap::new(),
        }
    }

    /// Lists directories as long as the catalog runs.
    pub(super) fn run(&mut self) {
        loop {
            let listed = match self.round() {
                Ok(listed) => listed,
                Err(Ended::Stopped) => return,
                Err(Ended::Away) => 0,
                Err(Ended::Error(text)) => {
                    tracing::warn!("scan: {text}");
                    0
                }
            };
            if listed == 0 && !self.wait() {
                return;
            }
        }
    }

    /// Waits until there may be something to list. `false`: the catalog stops.
    fn wait(&self) -> bool {
        let due = self.away.values().map(|(due, _)| *due).min();
        let woken = match due {
            Some(due) => self.wake.recv_deadline(due),
            None => self.wake.recv_timeout(RETRY_MAX),
        };
        woken != Err(RecvTimeoutError::Disconnected)
    }

    /// Lists the directories that can be. How many were.
    fn round(&mut self) -> Result<usize, Ended> {
        let mut after: Option<Key> = None;
        let mut listed = 0;
        loop {
            let kv = self.shared.kv.read().map_err(CatalogError::from)?;
            let rows = page::<ListRow>(&*kv, Prefix::List, &[], after.as_ref(), DIRECTORIES)?;
            // As of the same moment: a scan that other patterns have asked for is made with these.
            let exclude = get(&*kv, &Key::meta("exclude"))?.unwrap_or_default();
            self.exclude = Exclude::new(&exclude);
            drop(kv);
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            let mut found = Page::default();
            for (key, row) in rows {
                let Key::List(dir) = key else { continue };
                if self.away.get(&dir).is_some_and(|(due, _)| *due > Instant::now()) {
                    continue;
                }
                self.list_one(dir, row, &mut found)?;
            }
            listed += found.listed.len();
            if !found.is_empty() {
                self.send(found)?;
            }
        }
        if after.is_none() {
            self.away.clear();
        }
        Ok(listed)
    }

    fn list_one(&mut self, dir: ObjectId, row: ListRow, found: &mut Page) -> Result<(), Ended> {
        match self.list(dir, row, found) {
            Ok(()) => {
                self.away.remove(&dir);
                found.listed.push((dir, row));
                return Ok(());
            }
            Err(Ended::Away) => found.away.push(dir),
            Err(Ended::Error(text)) => {
                found.error = Some(format!("directory {dir} cannot be listed: {text}"));
            }
            Err(Ended::Stopped) => return Err(Ended::Stopped),
        }
        let (_, failures) = self.away.get(&dir).copied().unwrap_or((Instant::now(), 0));
        let wait = RETRY.saturating_mul(1 << failures.min(16)).min(RETRY_MAX);
        self.away
            .insert(dir, (Instant::now() + wait, failures.saturating_add(1)));
        Ok(())
    }

    /// Compares one directory: the catalog's entries with the disk, then the disk's names with the catalog.
    fn list(&self, dir: ObjectId, row: ListRow, found: &mut Page) -> Result<(), Ended> {
        let kv = self.shared.kv.read().map_err(CatalogError::from)?;
        let reached = reach(&*kv, &self.shared.share, dir)?;
        drop(kv);
        let Some((pin, seen, _)) = reached else {
            return Err(Ended::Away);
        };
        if seen.kind != Type::Directory {
            return Err(Ended::Away);
        }
        self.compare_entries(dir, &pin, row, found)?;
        self.find_new(dir, pin.as_fd(), row, found)
    }

    fn compare_entries(
        &self,
        dir: ObjectId,
        pin: &OwnedFd,
        row: ListRow,
        found: &mut Page,
    ) -> Result<(), Ended> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let kv = self.shared.kv.read().map_err(CatalogError::from)?;
            let entries = Tree::head(&*kv, BUCKET)
                .entries(dir, after.as_deref(), NAMES)
                .map_err(CatalogError::from)?;
            let Some((last, _)) = entries.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            let gap = get::<GapRow>(&*kv, &Key::meta("gap"))?;
            for (name, child) in entries {
                if self.exclude.matches(&name) {
                    found.looks.push((dir, name, row));
                    continue;
                }
                compare(
                    (&*kv, gap.as_ref()),
                    &self.shared.share,
                    pin.as_fd(),
                    (dir, name),
                    child,
                    row,
                    found,
                )?;
            }
            drop(kv);
            self.send_full(found)?;
        }
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
        if found.looks.len() + found.below.len() < NAMES {
            return if self.shared.stopping() {
                Err(Ended::Stopped)
            } else {
                Ok(())
            };
        }
        let counted = Page {
            looks: std::mem::take(&mut found.looks),
            below: std::mem::take(&mut found.below),
            files: std::mem::take(&mut found.files),
            bytes: std::mem::take(&mut found.bytes),
            ..Page::default()
        };
        self.send(counted)
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

/// One entry of the catalog against the disk.
fn compare(
    (kv, gap): (&dyn KvRead, Option<&GapRow>),
    share: &Share,
    pin: BorrowedFd<'_>,
    (dir, name): (ObjectId, Vec<u8>),
    child: ObjectId,
    row: ListRow,
    found: &mut Page,
) -> Result<(), Ended> {
    let seen = share.see(pin, &name)?;
    let node = get::<NodeRow>(kv, &store::Key::Object(child))?;
    match (seen, node) {
        (Some(seen), Some(node)) if seen.node == node.node => {
            if row.scan != 0 {
                found.files += u64::from(seen.kind != Type::Directory);
                found.bytes = found.bytes.saturating_add(seen.size());
                if seen.kind == Type::Directory && node.scan != row.scan {
                    found.below.push((child, row));
                }
            }
            let doubtful = seen.kind == Type::File && gap.is_some_and(|gap| gap.doubts(node.stamp));
            if doubtful || node.stamp != seen.stamp.into() || node.names != seen.names() {
                found.looks.push((dir, name, row));
            }
        }
        _ => found.looks.push((dir, name, row)),
    }
    Ok(())
}
