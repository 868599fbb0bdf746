//! What the applier keeps in memory of the store. After a failed transaction it is loaded anew.

use super::cut::Round;
use super::unread::{Class, DirtyIndex};
use crate::catalog::CatalogError;
use crate::catalog::dirt::Unread;
use crate::catalog::exclude::Exclude;
use crate::catalog::store::{
    CutRow, DirtRow, DisplacedRow, ExcludeRow, GapRow, HeadRow, IntentRow, Key, LastGapRow, ListRow, LookRow,
    LostRow, Prefix, Row, ScanPhase, ScanRow, get, page,
};
use crate::journal::NodeRef;
use lru::LruCache;
use restfs_lib::kv::KvRead;
use restfs_lib::model::ObjectId;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Instant;
use vfsx_proto::ring::WRITE_ENDED_AFTER;

const PAGE: usize = 1024;
/// Far more removals than are under way between processes at a time.
const GRAVES: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

pub(super) struct Memory {
    pub(super) head: HeadRow,
    /// Weight of the changes since the tree was exact, in a commit. Not in the store.
    pub(super) unmarked: usize,
    pub(super) gap: Option<GapRow>,
    pub(super) last_gap: Option<LastGapRow>,
    pub(super) scan: ScanRow,
    /// Names that are not entered, and the row that says so.
    pub(super) exclude: Exclude,
    pub(super) exclude_row: ExcludeRow,
    pub(super) dirty: DirtyIndex,
    /// Journal sequences that are not covered because something of them waits: dirt, looks, lists, lost directories.
    pub(super) holds: Holds,
    pub(super) looks: BTreeMap<(ObjectId, Vec<u8>), LookRow>,
    /// Since when each of them waits.
    pub(super) looks_since: BTreeMap<(ObjectId, Vec<u8>), Instant>,
    pub(super) lost: BTreeMap<NodeRef, LostRow>,
    /// Names on the way to something that could not be reached, and when to look at them. Not in the store: what
    /// cannot be reached is tried again, and brings them back.
    pub(super) suspects: BTreeMap<(ObjectId, Vec<u8>), Instant>,
    /// Inodes that lost a name lately.
    pub(super) graves: LruCache<NodeRef, ()>,
    /// Directory -> inode that came into it, as an event said, and was not found there.
    pub(super) within: BTreeSet<(NodeRef, NodeRef)>,
    /// When the catalog asks for a scan by itself. Not in the store: the gap that it is to close stays shown.
    pub(super) scan_due: Option<Instant>,
    /// Where trying deferred looks again goes on.
    pub(super) look_cursor: Option<(ObjectId, Vec<u8>)>,
    /// Where looking through the displaced objects goes on; they were not all dropped that could be.
    pub(super) displaced_cursor: Option<Key>,
    pub(super) more_to_drop: bool,
    /// The newest trouble with the share, for `status`.
    pub(super) last_error: Option<String>,
    pub(super) errors: u64,
    /// Journal records behind the applied sequence that are applied, too: rounds take them in the order of their calls.
    pub(super) beyond: BTreeSet<u64>,
    /// The round that is being read for. Not in the store: after a failure or a restart there is none.
    pub(super) round: Option<Round>,
    /// Numbers of rows.
    pub(super) lists: u64,
    pub(super) displaced: u64,
    pub(super) intents: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            head: HeadRow::default(),
            unmarked: 0,
            gap: None,
            last_gap: None,
            scan: ScanRow::default(),
            exclude: Exclude::default(),
            exclude_row: ExcludeRow::default(),
            dirty: DirtyIndex::default(),
            holds: Holds::default(),
            looks: BTreeMap::new(),
            looks_since: BTreeMap::new(),
            lost: BTreeMap::new(),
            suspects: BTreeMap::new(),
            graves: LruCache::new(GRAVES),
            within: BTreeSet::new(),
            scan_due: None,
            look_cursor: None,
            displaced_cursor: None,
            more_to_drop: false,
            last_error: None,
            errors: 0,
            beyond: BTreeSet::new(),
            round: None,
            lists: 0,
            displaced: 0,
            intents: 0,
        }
    }
}

impl Memory {
    pub(super) fn load(kv: &dyn KvRead) -> Result<Self, CatalogError> {
        let exclude_row = get(kv, &Key::meta("exclude"))?.unwrap_or_default();
        let mut memory = Self {
            head: get(kv, &Key::meta("head"))?.unwrap_or_default(),
            gap: get(kv, &Key::meta("gap"))?,
            last_gap: get(kv, &Key::meta("last-gap"))?,
            scan: get(kv, &Key::meta("scan"))?.unwrap_or_default(),
            exclude: Exclude::new(&exclude_row),
            exclude_row,
            ..Self::default()
        };
        let cut: Option<CutRow> = get(kv, &Key::meta("cut"))?;
        // Writes among the last records may not have ended, and who announced them does not say it again for a while.
        let due = Instant::now();
        let not_before = cut.is_some().then(|| due + WRITE_ENDED_AFTER);
        memory.beyond = cut.unwrap_or_default().beyond.into_iter().collect();
        // What a scan finds waits under the sequence after those that were applied when it began.
        let found = match memory.scan.phase {
            ScanPhase::Walking | ScanPhase::Reading => Some(memory.scan.began + 1),
            ScanPhase::Needed | ScanPhase::Done => None,
        };
        each::<DirtRow>(kv, Prefix::Dirt, |key, row| {
            if let Key::Dirt(id) = key {
                let unread = Unread::from(row);
                let class = match found == Some(unread.journal) {
                    true => Class::Scan,
                    false => Class::Client,
                };
                memory.holds.add(unread.journal);
                memory.dirty.set(id, unread.first_ns, due, class);
                memory.dirty.set_bytes(id, unread.bytes());
            }
        })?;
        not_before.into_iter().for_each(|at| memory.dirty.none_before(at));
        each::<LookRow>(kv, Prefix::Look, |key, row| {
            if let Key::Look(dir, name) = key {
                memory.holds.add(row.journal);
                memory.looks_since.insert((dir, name.clone()), due);
                memory.looks.insert((dir, name), row);
            }
        })?;
        each::<LostRow>(kv, Prefix::Lost, |key, row| {
            if let Key::Lost(node) = key {
                memory.holds.add(row.journal);
                memory.lost.insert(node, row);
            }
        })?;
        each::<ListRow>(kv, Prefix::List, |_, row| {
            memory.holds.add(row.journal);
            memory.lists += 1;
        })?;
        each::<DisplacedRow>(kv, Prefix::Displaced, |_, _| memory.displaced += 1)?;
        each::<IntentRow>(kv, Prefix::Intent, |_, _| memory.intents += 1)?;
        Ok(memory)
    }

    pub(super) fn note_error(&mut self, text: String) {
        tracing::warn!("{text}");
        self.last_error = Some(text);
        self.errors += 1;
    }

    pub(super) fn is_applied(&self, sequence: u64) -> bool {
        sequence <= self.head.applied || self.beyond.contains(&sequence)
    }

    pub(super) fn note_applied(&mut self, sequence: u64) {
        if sequence > self.head.applied + 1 && self.round.is_some() {
            self.beyond.insert(sequence);
            return;
        }
        self.head.applied = self.head.applied.max(sequence);
        while self.beyond.remove(&(self.head.applied + 1)) {
            self.head.applied += 1;
        }
    }

    /// Everything from journal records up to here is in the change log, content included.
    pub(super) fn covered(&self) -> u64 {
        match self.holds.oldest() {
            Some(oldest) => self.head.applied.min(oldest.saturating_sub(1)),
            None => self.head.applied,
        }
    }
}

fn each<R: Row>(kv: &dyn KvRead, prefix: Prefix, mut take: impl FnMut(Key, R)) -> Result<(), CatalogError> {
    let mut after: Option<Key> = None;
    loop {
        let rows = page::<R>(kv, prefix, &[], after.as_ref(), PAGE)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (key, row) in rows {
            take(key, row);
        }
    }
}

/// A multiset of journal sequences.
#[derive(Default)]
pub(super) struct Holds(BTreeMap<u64, u64>);

impl Holds {
    pub(super) fn add(&mut self, journal: u64) {
        *self.0.entry(journal).or_default() += 1;
    }

    pub(super) fn remove(&mut self, journal: u64) {
        if let Some(count) = self.0.get_mut(&journal) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&journal);
            }
        }
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.0.first_key_value().map(|(journal, _)| *journal)
    }
}
