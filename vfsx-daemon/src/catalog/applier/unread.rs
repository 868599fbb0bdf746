//! Objects that are to be read: which is due, which is under way.

use super::work::Cause;
use crate::catalog::dirt::Dirt;
use restfs_lib::model::ObjectId;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::time::{Duration, Instant};

/// Until an object that could not be read is tried again: twice this, doubled each time.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Who wants an object read. What clients change is not to wait for an initial sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::catalog) enum Class {
    Client,
    Scan,
}

/// A read that is under way.
pub(super) struct Flight {
    pub(super) id: u64,
    /// What became dirty after it began, and the records that say so: it may or may not have been seen.
    pub(super) fresh: Dirt,
    pub(super) journal: u64,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
    /// Who wants what is fresh.
    pub(super) class: Class,
    /// A scan does, and it waits for it.
    pub(super) for_scan: bool,
    /// Read what is fresh at once.
    pub(super) urgent: bool,
    /// But not before: a write among it may not have ended.
    pub(super) not_before: Option<Instant>,
}

impl Flight {
    fn new(id: u64) -> Self {
        Self {
            id,
            fresh: Dirt::default(),
            journal: u64::MAX,
            first_ns: i64::MAX,
            last_ns: i64::MIN,
            class: Class::Scan,
            for_scan: false,
            urgent: false,
            not_before: None,
        }
    }

    pub(super) fn add(&mut self, dirt: &Dirt, cause: Cause) {
        self.fresh.merge(dirt);
        self.journal = self.journal.min(cause.journal);
        self.first_ns = self.first_ns.min(cause.time_ns);
        self.last_ns = self.last_ns.max(cause.time_ns);
        self.class = self.class.min(cause.class);
        self.for_scan |= cause.class == Class::Scan;
    }
}

pub(super) struct DirtyObject {
    /// As in its row.
    pub(super) first_ns: i64,
    pub(super) bytes: u64,
    /// When it is to be read.
    pub(super) due: Instant,
    /// A write that was announced may not have ended before.
    not_before: Option<Instant>,
    pub(super) class: Class,
    pub(super) failures: u32,
    /// It changed while it was read, and is read once more for that.
    pub(super) again: bool,
    /// For that alone: nothing is known to be unread.
    alone: bool,
    /// A client has closed or flushed it since it was read last.
    rests: bool,
    pub(super) flight: Option<Flight>,
}

/// Objects with a `D` row.
#[derive(Default)]
pub(super) struct DirtyIndex {
    objects: HashMap<ObjectId, DirtyObject>,
    /// By class.
    due: [BTreeSet<(Instant, ObjectId)>; 2],
    in_flight: [usize; 2],
    oldest: BTreeSet<(i64, ObjectId)>,
    bytes: u64,
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

    /// Reads under way.
    pub(super) fn in_flight(&self, class: Class) -> usize {
        self.in_flight[class as usize]
    }

    pub(super) fn oldest_ns(&self) -> Option<i64> {
        self.oldest.first().map(|(ns, _)| *ns)
    }

    /// When the next one is to be read.
    pub(super) fn next_due(&self, class: Class) -> Option<Instant> {
        self.due[class as usize].first().map(|(due, _)| *due)
    }

    /// Notes that it is dirty, since `first_ns`; an object that is so already is not read later than it was to be.
    pub(super) fn set(&mut self, id: ObjectId, first_ns: i64, due: Instant, class: Class) {
        let old = self.take(id);
        let object = match old {
            Some(old) => DirtyObject {
                first_ns,
                due: old.due.min(old.not_before.map_or(due, |at| due.max(at))),
                class: old.class.min(class),
                ..old
            },
            None => DirtyObject {
                first_ns,
                bytes: 0,
                due,
                not_before: None,
                class,
                failures: 0,
                again: false,
                alone: false,
                rests: false,
                flight: None,
            },
        };
        self.insert(id, object);
    }

    /// How much of it is to be read.
    pub(super) fn set_bytes(&mut self, id: ObjectId, bytes: u64) {
        if let Some(object) = self.objects.get_mut(&id) {
            let old = std::mem::replace(&mut object.bytes, bytes);
            self.bytes = self.bytes.saturating_sub(old).saturating_add(bytes);
        }
    }

    pub(super) fn remove(&mut self, id: ObjectId) {
        self.take(id);
    }

    /// Puts a read off, or brings it forward.
    pub(super) fn set_due(&mut self, id: ObjectId, due: Instant) {
        if let Some(mut object) = self.take(id) {
            object.due = object.not_before.map_or(due, |at| due.max(at));
            self.insert(id, object);
        }
    }

    /// It is not to be read earlier, whoever wants it; of one that is being read, what has become dirty since.
    pub(super) fn not_before(&mut self, id: ObjectId, at: Instant) {
        if let Some(mut object) = self.take(id) {
            let at = object.not_before.map_or(at, |old| old.max(at));
            object.not_before = Some(at);
            object.due = object.due.max(at);
            if let Some(flight) = &mut object.flight {
                flight.not_before = Some(at);
            }
            self.insert(id, object);
        }
    }

    /// Nothing is to be read earlier.
    pub(super) fn none_before(&mut self, at: Instant) {
        let all: Vec<ObjectId> = self.ids().collect();
        all.into_iter().for_each(|id| self.not_before(id, at));
    }

    /// All is to be read now; of what is being read, what has become dirty since.
    pub(super) fn all_due(&mut self, now: Instant) {
        let all: Vec<ObjectId> = self.ids().collect();
        for id in all {
            if let Some(mut object) = self.take(id) {
                object.not_before = None;
                object.due = object.due.min(now);
                if let Some(flight) = &mut object.flight {
                    flight.not_before = None;
                }
                self.insert(id, object);
            }
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ObjectId> {
        self.objects.keys().copied()
    }

    /// Those of them of which something is known to be unread; the others are to be looked at once more, no more.
    pub(super) fn unread(&self) -> impl Iterator<Item = ObjectId> {
        let unread = self.objects.iter().filter(|(_, object)| !object.alone);
        unread.map(|(id, _)| *id)
    }

    /// All is due, but for what failed and waits for its next try.
    pub(super) fn hurry(&mut self, now: Instant) {
        let later = (now, ObjectId(u64::MAX));
        let ids: Vec<ObjectId> = self
            .due
            .iter()
            .flat_map(|due| due.range((Bound::Excluded(later), Bound::Unbounded)))
            .map(|(_, id)| *id)
            .filter(|id| self.objects.get(id).is_some_and(|o| o.failures == 0))
            .collect();
        for id in ids {
            self.set_due(id, now);
        }
    }

    /// The object of the class that has been due longest, with a read begun; `None`: none is due.
    pub(super) fn begin(&mut self, class: Class, now: Instant) -> Option<(ObjectId, u64)> {
        let (due, id) = *self.due[class as usize].first()?;
        if due > now {
            return None;
        }
        let mut object = self.take(id)?;
        self.next_flight += 1;
        let flight = self.next_flight;
        object.not_before = None;
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
        let due = now + BACKOFF.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
        object.due = object.not_before.map_or(due, |at| due.max(at));
        self.insert(id, object);
        failures
    }

    /// The read has ended with nothing read, and is to begin anew then: earlier nobody can have it, so this counts as a
    /// failure, which no hurry brings forward.
    pub(super) fn put_off(&mut self, id: ObjectId, due: Instant) {
        if let Some(mut object) = self.take(id) {
            object.flight = None;
            object.failures = object.failures.max(1);
            object.due = object.not_before.map_or(due, |at| due.max(at));
            self.insert(id, object);
        }
    }

    /// The read has ended. What was being read.
    pub(super) fn end(&mut self, id: ObjectId, due: Instant) -> Option<Flight> {
        let mut object = self.take(id)?;
        let flight = object.flight.take();
        object.due = due;
        object.failures = 0;
        object.rests = false;
        self.insert(id, object);
        flight
    }

    /// A client has closed or flushed the file: what is read of it next is to be one moment's content.
    pub(super) fn come_to_rest(&mut self, id: ObjectId) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.rests = true;
        }
    }

    pub(super) fn rests(&self, id: ObjectId) -> bool {
        self.objects.get(&id).is_some_and(|object| object.rests)
    }

    /// Notes whether the object is to be read once more; what was noted before.
    pub(super) fn read_again(&mut self, id: ObjectId, again: bool) -> bool {
        self.objects.get_mut(&id).is_some_and(|object| {
            object.alone = again;
            std::mem::replace(&mut object.again, again)
        })
    }

    /// Something of it is known to be unread.
    pub(super) fn note_unread(&mut self, id: ObjectId) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.alone = false;
        }
    }

    /// What a scan has found and left behind is not to wait for all that clients change from now on.
    pub(super) fn end_scan(&mut self) {
        self.put_in(&self.of_class(Class::Scan), Class::Client);
    }

    fn of_class(&self, class: Class) -> Vec<ObjectId> {
        let of_it = self.objects.iter().filter(|(_, object)| object.class == class);
        of_it.map(|(id, _)| *id).collect()
    }

    fn put_in(&mut self, ids: &[ObjectId], class: Class) {
        for id in ids {
            if let Some(mut object) = self.take(*id) {
                object.class = class;
                self.insert(*id, object);
            }
        }
    }

    /// After loading anew: results of older reads are told from newer ones, and what a scan wanted is not wanted by clients.
    pub(super) fn continue_from(&mut self, old: &Self) {
        self.next_flight = old.next_flight;
        self.put_in(&old.of_class(Class::Scan), Class::Scan);
    }

    fn insert(&mut self, id: ObjectId, object: DirtyObject) {
        self.bytes = self.bytes.saturating_add(object.bytes);
        self.oldest.insert((object.first_ns, id));
        if object.flight.is_some() {
            self.in_flight[object.class as usize] += 1;
        } else {
            self.due[object.class as usize].insert((object.due, id));
        }
        self.objects.insert(id, object);
    }

    fn take(&mut self, id: ObjectId) -> Option<DirtyObject> {
        let object = self.objects.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(object.bytes);
        self.oldest.remove(&(object.first_ns, id));
        if object.flight.is_some() {
            self.in_flight[object.class as usize] -= 1;
        } else {
            self.due[object.class as usize].remove(&(object.due, id));
        }
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_client_changes_leaves_the_queue_of_the_scan() {
        let now = Instant::now();
        let mut index = DirtyIndex::default();
        for id in 1..=3 {
            index.set(ObjectId(id), id as i64, now, Class::Scan);
        }
        assert_eq!(index.begin(Class::Client, now), None);
        index.set(ObjectId(2), 2, now + BACKOFF, Class::Client);
        let (id, flight) = index.begin(Class::Client, now).unwrap();
        assert_eq!(
            (id, index.in_flight(Class::Client), index.in_flight(Class::Scan)),
            (ObjectId(2), 1, 0)
        );
        // What a scan finds of it later does not make it wait.
        index.set(ObjectId(2), 2, now, Class::Scan);
        assert_eq!(index.flight_mut(id).unwrap().id, flight);
        assert!(index.end(id, now).is_some());
        assert_eq!(index.begin(Class::Client, now).unwrap().0, ObjectId(2));
        assert_eq!(index.begin(Class::Scan, now).unwrap().0, ObjectId(1));
    }

    #[test]
    fn what_is_looked_at_once_more_is_unread_as_soon_as_something_else_is() {
        let mut index = DirtyIndex::default();
        let id = ObjectId(1);
        let unread = |index: &DirtyIndex| index.unread().collect::<Vec<_>>();
        index.set(id, 1, Instant::now(), Class::Client);
        assert_eq!(unread(&index), [id]);
        assert!(!index.read_again(id, true));
        assert_eq!(unread(&index), []);
        assert_eq!(index.ids().collect::<Vec<_>>(), [id]);
        index.set(id, 1, Instant::now(), Class::Client);
        index.note_unread(id);
        assert_eq!(unread(&index), [id]);
        assert!(index.read_again(id, false), "it is not read for ever for that");
    }

    #[test]
    fn in_a_hurry_nothing_waits_but_what_has_failed() {
        let now = Instant::now();
        let mut index = DirtyIndex::default();
        for id in 1..=3 {
            index.set(ObjectId(id), id as i64, now + BACKOFF_MAX, Class::Client);
        }
        index.set(ObjectId(4), 4, now + BACKOFF_MAX, Class::Scan);
        index.fail(ObjectId(3), now);
        index.hurry(now);
        assert!(index.begin(Class::Client, now).is_some());
        assert!(index.begin(Class::Client, now).is_some());
        assert_eq!(index.begin(Class::Client, now), None);
        assert_eq!(index.begin(Class::Scan, now).unwrap().0, ObjectId(4));
    }

    #[test]
    fn what_a_scan_leaves_is_for_clients_and_what_it_wanted_before_a_failure_it_still_wants() {
        let now = Instant::now();
        let mut old = DirtyIndex::default();
        old.set(ObjectId(1), 1, now, Class::Client);
        old.set(ObjectId(2), 2, now, Class::Scan);
        old.begin(Class::Scan, now).unwrap();
        let mut index = DirtyIndex::default();
        for id in 1..=3 {
            index.set(ObjectId(id), id as i64, now, Class::Client);
        }
        index.continue_from(&old);
        let (id, flight) = index.begin(Class::Scan, now).unwrap();
        assert_eq!((id, flight), (ObjectId(2), 2));
        assert_eq!(index.begin(Class::Scan, now), None);
        index.end_scan();
        assert_eq!(
            (index.in_flight(Class::Client), index.in_flight(Class::Scan)),
            (1, 0)
        );
        index.end(id, now).unwrap();
        for _ in 1..=3 {
            index.begin(Class::Client, now).unwrap();
        }
    }

    #[test]
    fn what_is_put_off_waits_whoever_is_in_a_hurry_and_is_then_one_moments_content_still() {
        let (now, id) = (Instant::now(), ObjectId(1));
        let mut index = DirtyIndex::default();
        index.set(id, 1, now, Class::Client);
        index.come_to_rest(id);
        index.begin(Class::Client, now).unwrap();
        let due = now + Duration::from_millis(500);
        index.put_off(id, due);
        index.hurry(now);
        assert_eq!(
            (index.next_due(Class::Client), index.in_flight(Class::Client)),
            (Some(due), 0)
        );
        assert!(index.rests(id));
        index.begin(Class::Client, due).unwrap();
        index.end(id, due).unwrap();
        assert!(!index.rests(id), "the next read has to be asked for anew");
        assert_eq!(index.fail(id, due), 1);
    }

    #[test]
    fn a_write_announced_while_its_file_is_read_puts_off_the_next_read_whatever_becomes_of_this_one() {
        let (now, id) = (Instant::now(), ObjectId(1));
        let at = now + BACKOFF_MAX;
        let begun = || {
            let mut index = DirtyIndex::default();
            index.set(id, 1, now, Class::Client);
            index.begin(Class::Client, now).unwrap();
            index.not_before(id, at);
            index
        };
        assert_eq!(begun().end(id, now).unwrap().not_before, Some(at));
        let ends: [fn(&mut DirtyIndex, Instant); 2] = [
            |index, now| _ = index.fail(ObjectId(1), now),
            |index, now| index.put_off(ObjectId(1), now),
        ];
        for end in ends {
            let mut index = begun();
            end(&mut index, now);
            assert_eq!(index.next_due(Class::Client), Some(at));
            index.all_due(now);
            assert_eq!(index.next_due(Class::Client), Some(now));
        }
    }

    #[test]
    fn what_becomes_dirty_while_it_is_read_is_for_whoever_wants_it_soonest() {
        let (client, scan) = (Cause::client(5, 50), Cause::scan(7, 70));
        let dirt = Dirt::of(0..1);
        for (causes, class, for_scan) in [
            (&[client][..], Class::Client, false),
            (&[scan][..], Class::Scan, true),
            (&[client, scan][..], Class::Client, true),
            (&[scan, client][..], Class::Client, true),
        ] {
            let mut flight = Flight::new(1);
            causes.iter().for_each(|cause| flight.add(&dirt, *cause));
            assert_eq!((flight.class, flight.for_scan), (class, for_scan), "{causes:?}");
            let journals = causes.iter().map(|cause| cause.journal);
            assert_eq!(Some(flight.journal), journals.min());
            assert!(!flight.fresh.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_read_is_tried_ever_more_rarely_and_counted_right() {
        let now = Instant::now();
        let mut index = DirtyIndex::default();
        index.set(ObjectId(1), 1, now, Class::Client);
        let mut wait = Duration::ZERO;
        for failures in 1..20 {
            let due = index.next_due(Class::Client).unwrap();
            index.begin(Class::Client, due).unwrap();
            assert_eq!(index.fail(ObjectId(1), due), failures);
            let next = index.next_due(Class::Client).unwrap() - due;
            assert!(next >= wait && next <= BACKOFF_MAX);
            wait = next;
        }
        assert_eq!(wait, BACKOFF_MAX);
        index.remove(ObjectId(1));
        assert_eq!(
            (
                index.len(),
                index.bytes(),
                index.oldest_ns(),
                index.in_flight(Class::Client)
            ),
            (0, 0, None, 0)
        );
    }
}
