//! What the applier keeps in memory of the store. After a failed transaction it is loaded anew.

use crate::catalog::CatalogError;
use crate::catalog::dirt::Dirt;
use crate::catalog::store::{
    DirtRow, DisplacedRow, GapRow, HeadRow, IntentRow, Key, ListRow, LookRow, LostRow, Prefix, Row, ScanRow,
    get, page,
};
use crate::journal::NodeRef;
use lru::LruCache;
use restfs_lib::kv::KvRead;
use restfs_lib::model::ObjectId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

const PAGE: usize = 1024;
/// Far more removals than are under way between processes at a time.
const GRAVES: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// Until an object that could not be read is tried again: twice this, doubled each time.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

pub(super) struct Memory {
    pub(super) head: HeadRow,
    pub(super) gap: Option<GapRow>,
    pub(super) scan: ScanRow,
    pub(super) dirty: DirtyIndex,
    /// Journal sequences that are not covered because something of them waits: dirt, looks, lists, lost directories.
    pub(super) holds: Holds,
    pub(super) looks: BTreeMap<(ObjectId, Vec<u8>), LookRow>,
    pub(super) lost: BTreeMap<NodeRef, LostRow>,
    /// Names on the way to something that could not be reached, and when to look at them. Not in the store: what
    /// cannot be reached is tried again, and brings them back.
    pub(super) suspects: BTreeMap<(ObjectId, Vec<u8>), Instant>,
    /// Inodes that lost a name lately.
    pub(super) graves: LruCache<NodeRef, ()>,
    /// When the catalog asks for a scan by itself. Not in the store: the gap that it is to close stays shown.
    pub(super) scan_due_ns: Option<i64>,
    /// Where trying deferred looks again goes on.
    pub(super) look_cursor: Option<(ObjectId, Vec<u8>)>,
    /// The newest trouble with the share, for `status`.
    pub(super) last_error: Option<String>,
    pub(super) errors: u64,
    /// Numbers of rows.
    pub(super) lists: u64,
    pub(super) displaced: u64,
    pub(super) intents: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            head: HeadRow::default(),
            gap: None,
            scan: ScanRow::default(),
            dirty: DirtyIndex::default(),
            holds: Holds::default(),
            looks: BTreeMap::new(),
            lost: BTreeMap::new(),
            suspects: BTreeMap::new(),
            graves: LruCache::new(GRAVES),
            scan_due_ns: None,
            look_cursor: None,
            last_error: None,
            errors: 0,
            lists: 0,
            displaced: 0,
            intents: 0,
        }
    }
}

impl Memory {
    pub(super) fn load(kv: &dyn KvRead) -> Result<Self, CatalogError> {
        let mut memory = Self {
            head: get(kv, &Key::meta("head"))?.unwrap_or_default(),
            gap: get(kv, &Key::meta("gap"))?,
            scan: get(kv, &Key::meta("scan"))?.unwrap_or_default(),
            ..Self::default()
        };
        let now = Instant::now();
        each::<DirtRow>(kv, Prefix::Dirt, |key, row| {
            if let Key::Dirt(id) = key {
                memory.holds.add(row.journal);
                memory.dirty.set(id, &row, now);
            }
        })?;
        each::<LookRow>(kv, Prefix::Look, |key, row| {
            if let Key::Look(dir, name) = key {
                memory.holds.add(row.journal);
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

/// A read that is under way.
pub(super) struct Flight {
    pub(super) id: u64,
    /// What became dirty after it began, and the records that say so: it may or may not have been seen.
    pub(super) fresh: Dirt,
    pub(super) journal: u64,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
    /// Read what is fresh at once.
    pub(super) urgent: bool,
}

impl Flight {
    fn new(id: u64) -> Self {
        Self {
            id,
            fresh: Dirt::default(),
            journal: u64::MAX,
            first_ns: i64::MAX,
            last_ns: i64::MIN,
            urgent: false,
        }
    }

    pub(super) fn add(&mut self, dirt: &Dirt, journal: u64, time_ns: i64) {
        self.fresh.merge(dirt);
        self.journal = self.journal.min(journal);
        self.first_ns = self.first_ns.min(time_ns);
        self.last_ns = self.last_ns.max(time_ns);
    }
}

pub(super) struct DirtyObject {
    /// As in its row.
    pub(super) first_ns: i64,
    pub(super) bytes: u64,
    /// When it is to be read.
    pub(super) due: Instant,
    pub(super) failures: u32,
    /// It changed while it was read, and is read once more for that.
    pub(super) again: bool,
    pub(super) flight: Option<Flight>,
}

/// Objects with a `D` row.
#[derive(Default)]
pub(super) struct DirtyIndex {
    objects: HashMap<ObjectId, DirtyObject>,
    due: BTreeSet<(Instant, ObjectId)>,
    oldest: BTreeSet<(i64, ObjectId)>,
    bytes: u64,
    in_flight: usize,
    next_flight: u64,
}

impl DirtyIndex {
    pub(super) fn get(&self, id: ObjectId) -> Option<&DirtyObject> {
        self.objects.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn oldest_ns(&self) -> Option<i64> {
        self.oldest.first().map(|(ns, _)| *ns)
    }

    /// When the next one is to be read.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Notes the row; an object that is dirty already is not read later than it was to be.
    pub(super) fn set(&mut self, id: ObjectId, row: &DirtRow, due: Instant) {
        let bytes = Dirt::from_row(row).bytes(row.size);
        let old = self.take(id);
        let object = match old {
            Some(old) => DirtyObject {
                first_ns: row.first_ns,
                bytes,
                due: old.due.min(due),
                ..old
            },
            None => DirtyObject {
                first_ns: row.first_ns,
                bytes,
                due,
                failures: 0,
                again: false,
                flight: None,
            },
        };
        self.insert(id, object);
    }

    pub(super) fn remove(&mut self, id: ObjectId) {
        self.take(id);
    }

    /// Puts a read off, or brings it forward.
    pub(super) fn set_due(&mut self, id: ObjectId, due: Instant) {
        if let Some(mut object) = self.take(id) {
            object.due = due;
            self.insert(id, object);
        }
    }

    /// The object that has been due longest, with a read begun; `None`: none is due.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(ObjectId, u64)> {
        let (due, id) = *self.due.first()?;
        if due > now {
            return None;
        }
        let mut object = self.take(id)?;
        self.next_flight += 1;
        let flight = self.next_flight;
        object.flight = Some(Flight::new(flight));
        self.insert(id, object);
        Some((id, flight))
    }

    pub(super) fn flight_mut(&mut self, id: ObjectId) -> Option<&mut Flight> {
        self.objects.get_mut(&id)?.flight.as_mut()
    }

    /// The read has ended with nothing read. Due again after a while, longer each time; how often it was so in a row.
    pub(super) fn fail(&mut self, id: ObjectId, now: Instant) -> u32 {
        let Some(mut object) = self.take(id) else { return 0 };
        object.flight = None;
        object.failures = object.failures.saturating_add(1);
        let failures = object.failures;
        object.due = now + BACKOFF.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
        self.insert(id, object);
        failures
    }

    /// The read has ended. What was being read.
    pub(super) fn end(&mut self, id: ObjectId, due: Instant) -> Option<Flight> {
        let mut object = self.take(id)?;
        let flight = object.flight.take();
        object.due = due;
        object.failures = 0;
        self.insert(id, object);
        flight
    }

    /// Notes whether the object is to be read once more; what was noted before.
    pub(super) fn read_again(&mut self, id: ObjectId, again: bool) -> bool {
        self.objects
            .get_mut(&id)
            .is_some_and(|o| std::mem::replace(&mut o.again, again))
    }

    /// After loading anew, so that results of older reads are told from newer ones.
    pub(super) fn continue_from(&mut self, old: &Self) {
        self.next_flight = old.next_flight;
    }

    fn insert(&mut self, id: ObjectId, object: DirtyObject) {
        self.bytes = self.bytes.saturating_add(object.bytes);
        self.oldest.insert((object.first_ns, id));
        if object.flight.is_some() {
            self.in_flight += 1;
        } else {
            self.due.insert((object.due, id));
        }
        self.objects.insert(id, object);
    }

    fn take(&mut self, id: ObjectId) -> Option<DirtyObject> {
        let object = self.objects.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(object.bytes);
        self.oldest.remove(&(object.first_ns, id));
        if object.flight.is_some() {
            self.in_flight -= 1;
        } else {
            self.due.remove(&(object.due, id));
        }
        Some(object)
    }
}
