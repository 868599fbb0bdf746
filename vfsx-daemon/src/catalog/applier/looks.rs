//! "Trust, then look": what a name leads to on disk is what it leads to in the catalog.

use super::dirs::ReachError;
use super::work::{Cause, Work};
use crate::catalog::CatalogError;
use crate::catalog::dirt::{Dirt, WHOLE};
use crate::catalog::share::{Doubt, Seen, Stamp, Type};
use crate::catalog::store::{LookRow, NodeRow, StampRow};
use restfs_lib::model::ObjectId;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::{HashSet, VecDeque};
use std::ops::Bound;

/// Deferred looks tried again in one transaction.
const RETRIES: usize = 256;
/// Rounds in which looks that could not be made profit from what others of the batch found.
const ROUNDS: usize = 4;
/// Part of the grace that passes before a name is suspected because something behind it could not be reached: the event
/// that explains it is usually on its way from another smbd process.
const SUSPICION: u32 = 4;
/// Ancestors suspected at once, and names suspected in all.
const SUSPECTED_ABOVE: usize = 64;
const SUSPECTS: usize = 10_000;

/// A name to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) dir: ObjectId,
    pub(super) name: Vec<u8>,
    /// Compare the stat with the one last seen, too: there may be changes without events.
    pub(super) check: bool,
    /// No event asks for it: something behind the name could not be reached, and is tried again.
    pub(super) suspected: bool,
    pub(super) cause: Cause,
}

/// What a batch has to look at; every name once.
#[derive(Default)]
pub(super) struct Agenda {
    queue: VecDeque<Look>,
    queued: HashSet<(ObjectId, Vec<u8>, bool)>,
    deferred: Vec<Look>,
}

impl Agenda {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.deferred.is_empty()
    }
}

enum Outcome {
    Settled,
    /// The directory is not where the catalog believes it to be.
    Away,
    /// The share's file system did not answer.
    Failed,
    /// The disk says something else than the round's records: it may be ahead of them.
    Differs,
}

impl Work<'_> {
    pub(super) fn look_later(&mut self, dir: ObjectId, name: &[u8], check: bool) {
        if self.agenda.queued.insert((dir, name.to_vec(), check)) {
            let look = Look {
                dir,
                name: name.to_vec(),
                check,
                suspected: false,
                cause: self.cause,
            };
            self.agenda.queue.push_back(look);
        }
    }

    /// Puts looks of earlier batches, and suspected names that are due, on the agenda.
    pub(super) fn resume_looks(&mut self) {
        let cursor = self.memory.look_cursor.take();
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let due: Vec<_> = self
            .memory
            .looks
            .range((from, Bound::Unbounded))
            .take(RETRIES)
            .collect();
        let due: Vec<_> = due.into_iter().map(|(key, row)| (key.clone(), *row)).collect();
        if due.len() == RETRIES {
            self.memory.look_cursor = due.last().map(|(key, _)| key.clone());
        }
        for ((dir, name), row) in due {
            if self.agenda.queued.insert((dir, name.clone(), row.check)) {
                let cause = match row.check {
                    true => Cause::scan(row.journal, row.time_ns),
                    false => Cause::client(row.journal, row.time_ns),
                };
                self.agenda.queue.push_back(Look {
                    dir,
                    name,
                    check: row.check,
                    suspected: false,
                    cause,
                });
            }
        }
        let now = self.now;
        let due: Vec<_> = self
            .memory
            .suspects
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(k, _)| k.clone())
            .collect();
        for (dir, name) in due {
            self.memory.suspects.remove(&(dir, name.clone()));
            // Beside one that an event asks for.
            self.agenda.queue.push_back(Look {
                dir,
                name,
                check: false,
                suspected: true,
                cause: self.cause,
            });
        }
    }

    /// Makes all looks of the agenda; those that cannot be made wait in the store.
    pub(super) fn run_agenda(&mut self) -> Result<(), CatalogError> {
        let before = self.cause;
        for _ in 0..ROUNDS {
            let changes = self.memory.head.change;
            while let Some(look) = self.agenda.queue.pop_front() {
                self.cause = look.cause;
                let believing = self.memory.round.is_none();
                match self.look_at(&look, believing)? {
                    Outcome::Settled => self.forget_look(look.dir, &look.name)?,
                    Outcome::Differs => self.keep_look(&look)?,
                    Outcome::Away | Outcome::Failed => self.agenda.deferred.push(look),
                }
            }
            if self.agenda.deferred.is_empty() || self.memory.head.change == changes {
                break;
            }
            self.agenda.queue.extend(self.agenda.deferred.drain(..));
        }
        let left: Vec<Look> = self
            .agenda
            .queue
            .drain(..)
            .chain(self.agenda.deferred.drain(..))
            .collect();
        for look in left {
            self.cause = look.cause;
            self.defer(&look)?;
        }
        self.cause = before;
        self.agenda = Agenda::default();
        Ok(())
    }

    /// Looks at a name at once.
    pub(super) fn look_now(&mut self, dir: ObjectId, name: &[u8]) -> Result<(), CatalogError> {
        let look = Look {
            dir,
            name: name.to_vec(),
            check: false,
            suspected: false,
            cause: self.cause,
        };
        self.look_believing(&look)
    }

    /// Looks at a name that is not what records said, and that none explains.
    pub(super) fn look_really(
        &mut self,
        dir: ObjectId,
        name: &[u8],
        row: LookRow,
    ) -> Result<(), CatalogError> {
        let before = self.cause;
        self.cause = Cause::client(row.journal, row.time_ns);
        let look = Look {
            dir,
            name: name.to_vec(),
            check: row.check,
            suspected: false,
            cause: self.cause,
        };
        self.look_believing(&look)?;
        self.cause = before;
        Ok(())
    }

    /// Whatever the disk says now counts.
    fn look_believing(&mut self, look: &Look) -> Result<(), CatalogError> {
        if let Some(round) = &mut self.memory.round {
            round.look(look.dir, &look.name);
        }
        match self.look_at(look, true)? {
            Outcome::Settled => self.forget_look(look.dir, &look.name),
            Outcome::Differs => self.keep_look(look),
            Outcome::Away | Outcome::Failed => self.defer(look),
        }
    }

    fn keep_look(&mut self, look: &Look) -> Result<(), CatalogError> {
        let row = LookRow {
            journal: look.cause.journal,
            time_ns: look.cause.time_ns,
            check: look.check,
        };
        self.put_look(look.dir, &look.name, row)
    }

    fn defer(&mut self, look: &Look) -> Result<(), CatalogError> {
        // Nothing is lost with a suspicion: it comes again as long as there is a reason.
        if look.suspected {
            return Ok(());
        }
        if self.relist_when_found(look.dir)? {
            return self.forget_look(look.dir, &look.name);
        }
        self.keep_look(look)?;
        self.suspect(look.dir)
    }

    /// Something cannot be reached: one of the names on the way to it is not true any more. If no event says so soon,
    /// they are looked at.
    pub(super) fn suspect(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        let due = self.now + self.rules.grace / SUSPICION;
        let mut above = vec![id];
        let mut visited = HashSet::new();
        while let Some(id) = above.pop() {
            if !visited.insert(id) || visited.len() > SUSPECTED_ABOVE {
                continue;
            }
            for (dir, name) in self.tree().names(id)?.into_iter().take(SUSPECTED_ABOVE) {
                above.push(dir);
                if self.memory.suspects.len() < SUSPECTS {
                    self.memory.suspects.entry((dir, name)).or_insert(due);
                }
            }
        }
        Ok(())
    }

    /// `believing`: what is found is what is true. Else it only is when the catalog says the same.
    fn look_at(&mut self, look: &Look, believing: bool) -> Result<Outcome, CatalogError> {
        if !self.is_directory(look.dir)? {
            return Ok(Outcome::Settled);
        }
        if self.is_excluded(&look.name) {
            return self.leave_out(look);
        }
        let found = match self.dir(look.dir) {
            Ok(Some(handle)) => self
                .share
                .see(handle.as_fd(), &look.name)
                .map(|seen| (handle, seen)),
            Ok(None) => return Ok(Outcome::Away),
            Err(ReachError::Catalog(e)) => return Err(e),
            Err(ReachError::Io(e)) => Err(e),
        };
        match found {
            Ok((_, seen)) if !believing && !self.agrees(look, seen.as_ref())? => Ok(Outcome::Differs),
            Ok((handle, seen)) => self.settle(look, &handle, seen),
            Err(e) => {
                let name = String::from_utf8_lossy(&look.name).into_owned();
                self.memory.note_error(format!("{name}: {e}"));
                Ok(Outcome::Failed)
            }
        }
    }

    /// Whatever an excluded name leads to: not in the catalog.
    fn leave_out(&mut self, look: &Look) -> Result<Outcome, CatalogError> {
        if let Some(id) = self.lookup(look.dir, &look.name)? {
            self.drop_entry(look.dir, &look.name, id)?;
            self.exclude(id)?;
        }
        Ok(Outcome::Settled)
    }

    /// The name leads to the same object on disk and in the catalog, or to none.
    fn agrees(&self, look: &Look, seen: Option<&Seen>) -> Result<bool, CatalogError> {
        let entry = self.lookup(look.dir, &look.name)?;
        let Some(seen) = seen else {
            return Ok(entry.is_none());
        };
        let Some(id) = self.known(&seen.node)?.filter(|id| entry == Some(*id)) else {
            return Ok(false);
        };
        Ok(self.object(id)?.is_some_and(|object| seen.kind.is(&object.kind)))
    }

    fn settle(&mut self, look: &Look, dir: &OwnedFd, seen: Option<Seen>) -> Result<Outcome, CatalogError> {
        let entry = self.lookup(look.dir, &look.name)?;
        let Some(seen) = seen else {
            if let Some(id) = entry {
                self.drop_entry(look.dir, &look.name, id)?;
                self.displace(id, false)?;
            }
            return Ok(Outcome::Settled);
        };
        match self.known_as(&seen)? {
            Some(id) => {
                self.settle_known(look, entry, id, &seen)?;
                Ok(Outcome::Settled)
            }
            None if self.adopt(look.dir, dir, &look.name, &seen, false)?.is_some() => {
                self.count_found(look, &seen);
                Ok(Outcome::Settled)
            }
            None => Ok(Outcome::Failed),
        }
    }

    /// What the scan found new; what was known is counted by the scanner.
    fn count_found(&mut self, look: &Look, seen: &Seen) {
        if look.check {
            let scan = &mut self.memory.scan;
            scan.differences += 1;
            scan.files += u64::from(seen.kind != Type::Directory);
            scan.bytes = scan.bytes.saturating_add(seen.size());
        }
    }

    fn settle_known(
        &mut self,
        look: &Look,
        entry: Option<ObjectId>,
        id: ObjectId,
        seen: &Seen,
    ) -> Result<(), CatalogError> {
        let moved = entry != Some(id);
        if moved {
            self.put_entry(look.dir, &look.name, id)?;
            self.count_found(look, seen);
        }
        let Some(row) = self.node_row(id)? else {
            return Ok(());
        };
        if moved || row.names > seen.names() {
            self.look_at_other_names(id, seen, look)?;
        }
        let row = NodeRow {
            names: seen.names(),
            ..row
        };
        self.put_node_row(id, &self.explained(row, seen, look.check))?;
        if !look.check {
            return Ok(());
        }
        let differs = Stamp::from(row.stamp) != seen.stamp;
        let gap = self.memory.gap.as_ref();
        let doubtful = row.stamp.doubt() == Doubt::Content || gap.is_some_and(|gap| gap.doubts(row.stamp));
        if differs || doubtful {
            self.memory.scan.differences += u64::from(differs && !moved);
            self.changed_unseen(id, seen)?;
        } else if row.stamp.doubt() == Doubt::Metadata {
            self.touched(id);
        }
        Ok(())
    }

    /// More names than the inode has: some are not true any more.
    fn look_at_other_names(&mut self, id: ObjectId, seen: &Seen, look: &Look) -> Result<(), CatalogError> {
        let names = self.tree().names(id)?;
        if names.len() as u64 <= u64::from(seen.names()) {
            return Ok(());
        }
        for (dir, name) in names {
            if (dir, &name) != (look.dir, &look.name) {
                self.look_later(dir, &name, false);
            }
        }
        Ok(())
    }

    /// A rename, link or unlink moves only the change time, and its event explains it: the content is as it was. The metadata
    /// may not be, unless it is read, too. After a scan nothing explains it.
    fn explained(&self, row: NodeRow, seen: &Seen, check: bool) -> NodeRow {
        let old = Stamp::from(row.stamp);
        if !check && old != seen.stamp && old.size == seen.stamp.size && old.mtime == seen.stamp.mtime {
            return NodeRow {
                stamp: StampRow::of(seen.stamp, row.stamp.doubt().max(Doubt::Metadata)),
                ..row
            };
        }
        row
    }

    /// The inode changed without an event.
    fn changed_unseen(&mut self, id: ObjectId, seen: &Seen) -> Result<(), CatalogError> {
        if seen.kind != Type::File {
            self.touched(id);
            return Ok(());
        }
        let now = self.now;
        self.add_dirt(id, &Dirt::of(WHOLE), seen.size(), now)
    }

    /// The object that the inode is. One of another kind is not it: the inode's number, and its birth time too, were
    /// used again within the file system's clock tick.
    pub(super) fn known_as(&mut self, seen: &Seen) -> Result<Option<ObjectId>, CatalogError> {
        let Some(id) = self.known(&seen.node)? else {
            return Ok(None);
        };
        let same = self.object(id)?.is_some_and(|o| seen.kind.is(&o.kind));
        if same {
            return Ok(Some(id));
        }
        self.forget_identity(id, &seen.node)?;
        Ok(None)
    }
}
