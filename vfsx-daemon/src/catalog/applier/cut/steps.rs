//! A round's two ends in a transaction: what was read for it is taken in, and the next one's records are applied.

use super::super::work::Work;
use super::bridge::{Bridged, Found};
use super::round::Known;
use super::{Round, Window};
use crate::catalog::CatalogError;
use crate::catalog::dirt::Dirt;
use crate::catalog::reader::{Ending, Part};
use crate::catalog::store::{EndRow, IntentRow, Key, LogRow, Prefix, ScanPhase, get, page, put};
use crate::journal::{Body, Metadata, NodeRef, Record};
use restfs_lib::model::ObjectId;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Names that wait to be looked at; with more of them something is wrong that a round cannot put right.
const LOOKS: usize = 1000;
/// Open files of a session that has ended, taken up at once.
const PAGE: usize = 256;
/// Until an object is read that was not found where a rename has taken it from.
const AGAIN: Duration = Duration::from_millis(20);

/// How a round ended.
pub(in crate::catalog::applier) enum End {
    /// The tree is what the share was at the end of the round.
    Exact,
    /// Why it is not, and what the next round has to go on from.
    Fuzzy(String, Known),
}

impl Work<'_> {
    /// What the records touch that the next round will apply.
    pub(in crate::catalog::applier) fn window<'r>(
        &self,
        records: impl Iterator<Item = &'r Record>,
    ) -> Result<Window, CatalogError> {
        let mut window = Window::of(records, |node| self.share.known_node(node));
        for session in window.ended().to_vec() {
            let mut after: Option<Key> = None;
            loop {
                let rows = page::<IntentRow>(&*self.kv, Prefix::Intent, &session.0, after.as_ref(), PAGE)?;
                let Some((last, _)) = rows.last() else { break };
                after = Some(last.clone());
                for (_, row) in rows {
                    window.touch_whole(row.node);
                }
            }
        }
        Ok(window)
    }

    /// Takes in what was read for the round. `sure`: the window is all that was done since.
    pub(in crate::catalog::applier) fn close_round(
        &mut self,
        found: Vec<Found>,
        window: &Window,
        sure: bool,
    ) -> Result<End, CatalogError> {
        let bridged = match self.tell(&found, window, sure)? {
            Ok(bridged) => bridged,
            Err(why) => {
                let mut unread = HashSet::new();
                for found in found {
                    let id = found.object;
                    if self.take_as_found(found, window)? {
                        unread.insert(id);
                    }
                }
                return Ok(self.fuzzy(why, &unread));
            }
        };
        let mut made = Vec::new();
        for (found, bridged) in found.into_iter().zip(bridged) {
            let id = found.object;
            match bridged {
                Bridged::AsFound => {
                    for part in found.into_parts() {
                        self.take_part(part)?;
                    }
                }
                Bridged::Made(part) => {
                    made.push((id, read_of(&part)));
                    self.take_part(*part)?;
                }
            }
        }
        self.forget_explained_looks(window)?;
        if self.memory.dirty.len() > 0 {
            let why = "a file is not what the records say".to_owned();
            return Ok(self.fuzzy(why, &HashSet::new()));
        }
        self.memory.round = None;
        self.mark()?;
        // The disk has the last word on them, too. Most are touched by the records to come in any case.
        self.settle_cause(None);
        for (id, dirt) in made {
            if self.object(id)?.is_some() {
                let due = self.now + AGAIN;
                self.add_dirt(id, &dirt, 0, due)?;
            }
        }
        Ok(End::Exact)
    }

    /// Whether nothing was read of it, since it is on the move.
    fn take_as_found(&mut self, found: Found, window: &Window) -> Result<bool, CatalogError> {
        // Not lost: the records to come say where it is.
        if matches!(found.ending, Ending::Away) && self.is_on_the_move(found.object, window)? {
            let now = self.now;
            self.memory.dirty.put_off(found.object, now);
            return Ok(true);
        }
        found.into_parts().try_for_each(|part| self.take_part(part))?;
        Ok(false)
    }

    fn fuzzy(&mut self, why: String, unread: &HashSet<ObjectId>) -> End {
        let known = self
            .memory
            .round
            .take()
            .map(|round| round.known)
            .unwrap_or_default();
        // One that changed while it was read is what was read, and what the records to come say.
        End::Fuzzy(why, known.left(unread, self.memory.dirty.unread()))
    }

    /// What every object was at the end of the round; the inner error is why it cannot be told.
    fn tell(
        &mut self,
        found: &[Found],
        window: &Window,
        sure: bool,
    ) -> Result<Result<Vec<Bridged>, String>, CatalogError> {
        if let Some(why) = self.untold(found, window, sure)? {
            return Ok(Err(why));
        }
        let mut all = Vec::with_capacity(found.len());
        for one in found {
            match self.bridge(one, window)? {
                Ok(bridged) => all.push(bridged),
                Err(why) => {
                    let id = one.object;
                    return Ok(Err(format!("object {id} {why}")));
                }
            }
        }
        Ok(Ok(all))
    }

    /// Why the tree is not that of the end of the round, whatever was read.
    fn untold(&self, found: &[Found], window: &Window, sure: bool) -> Result<Option<String>, CatalogError> {
        let memory = &self.memory;
        let Some(round) = &memory.round else {
            return Ok(Some("there was no round".to_owned()));
        };
        let because = |why: &str| Ok(Some(why.to_owned()));
        if memory.gap.is_some() || window.has_gap() {
            return because("there is a gap");
        }
        if !sure {
            return because("a session did not say how far it is");
        }
        if !round.sure {
            return because("the state before was not exact");
        }
        if round.missing {
            return because("a new object was gone before it was seen");
        }
        let read: HashSet<ObjectId> = found.iter().map(|found| found.object).collect();
        if !memory.dirty.ids().all(|id| read.contains(&id)) {
            return because("a file is still being read");
        }
        if memory.scan.phase != ScanPhase::Done || memory.lists > 0 || !memory.lost.is_empty() {
            return because("directories are to be listed");
        }
        for (dir, name) in &round.looked {
            if let Some(row) = self.node_row(*dir)?
                && window.has_name(&row.node, name)
            {
                return because("a name changed while it was looked at");
            }
        }
        if memory.looks.len() > LOOKS {
            return because("many names are to be looked at");
        }
        for (dir, name) in memory.looks.keys() {
            if !self.is_explained(*dir, name, window)? {
                return because("a name is not what the records say");
            }
        }
        Ok(None)
    }

    /// The window says why the name is not what it was found to be.
    fn is_explained(&self, dir: ObjectId, name: &[u8], window: &Window) -> Result<bool, CatalogError> {
        let Some(row) = self.node_row(dir)? else {
            return Ok(true);
        };
        Ok(window.has_name(&row.node, name) || self.is_on_the_move(dir, window)?)
    }

    /// They are looked at again with the records that explain them.
    fn forget_explained_looks(&mut self, window: &Window) -> Result<(), CatalogError> {
        let looks: Vec<_> = self.memory.looks.keys().cloned().collect();
        for (dir, name) in looks {
            if let Some(row) = self.node_row(dir)?
                && window.has_name(&row.node, &name)
            {
                self.forget_look(dir, &name)?;
            }
        }
        Ok(())
    }

    /// Begins a round with its first records.
    pub(in crate::catalog::applier) fn open_round(
        &mut self,
        records: &[Record],
        round: Round,
        window_before: &Window,
    ) -> Result<(), CatalogError> {
        // What the last round could not explain is what the disk says it is.
        let mut doubtful = Vec::new();
        for ((dir, name), row) in &self.memory.looks {
            if doubtful.len() < LOOKS && !self.is_explained(*dir, name, window_before)? {
                doubtful.push((*dir, name.clone(), *row));
            }
        }
        self.memory.round = Some(round);
        self.take_records(records)?;
        for (dir, name, row) in doubtful {
            self.look_really(dir, &name, row)?;
        }
        self.resume_looks();
        self.look_and_refresh()
    }

    /// Applies further records of the round.
    pub(in crate::catalog::applier) fn apply_in_round(
        &mut self,
        records: &[Record],
    ) -> Result<(), CatalogError> {
        self.take_records(records)?;
        self.look_and_refresh()
    }

    fn take_records(&mut self, records: &[Record]) -> Result<(), CatalogError> {
        self.restart_covered();
        for record in records {
            self.take_record(record)?;
        }
        let first = records
            .iter()
            .min_by_key(|r| r.sequence)
            .map(|r| (r.sequence, r.time_ns));
        self.settle_cause(first);
        Ok(())
    }

    /// Whether the tree is exact as it is: nothing that the round did has to be read.
    pub(in crate::catalog::applier) fn close_unread_round(&mut self) -> Result<bool, CatalogError> {
        let nothing = Window::default();
        let looked = self
            .memory
            .round
            .as_ref()
            .is_none_or(|round| !round.looked.is_empty());
        if looked || !self.memory.looks.is_empty() || self.untold(&[], &nothing, true)?.is_some() {
            return Ok(false);
        }
        self.memory.round = None;
        self.mark()?;
        Ok(true)
    }

    /// The tree is exact as of the last change.
    fn mark(&mut self) -> Result<(), CatalogError> {
        let head = self.memory.head.change;
        if !self.mark_last_change() {
            let key = Key::Log(head);
            // It may be dropped already: then every site has it.
            if let Some(row) = get::<LogRow>(&*self.kv, &key)?
                && row.end != EndRow::Exact
            {
                let end = EndRow::Exact;
                put(self.kv, &key, &LogRow { end, ..row })?;
            }
        }
        self.marked = Some(head);
        self.memory.unmarked = 0;
        Ok(())
    }

    /// The newest that the records say of inodes.
    pub(in crate::catalog::applier) fn descriptions<'r>(
        &self,
        records: impl Iterator<Item = &'r Record>,
    ) -> HashMap<NodeRef, Metadata> {
        let mut described = HashMap::new();
        for record in records {
            if let Body::Metadata { node, metadata, .. } = &record.body {
                described.insert(self.share.known_node(node), metadata.clone());
            }
        }
        described
    }
}

fn read_of(part: &Part) -> Dirt {
    match &part.ending {
        Some(Ending::Read { read, .. }) => read.clone(),
        _ => Dirt::touched(),
    }
}
