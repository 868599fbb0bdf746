//! Purging: what only points below a bucket's *floor* need goes, and they cannot be read any more.
//!
//! The floor is written first, so from then on nobody is given a point below it. Then the rows go, some at a time:
//!
//! - revisions at or below the floor that a newer one at or below it hides. The newest one stays: the floor and points
//!   above it are read from it.
//! - a tombstone that is this newest one, once nothing is left that it hides.
//! - commit records below the floor, and their rows in the index of times.
//!
//! Commits only write revisions above the head, which is not below the floor. So what may go once may go for ever, and it
//! is looked for in read transactions, beside which others write.

use super::codec::{self, TOMBSTONE};
use super::keys::{self, Key, KeyParts};
use super::{TreeError, bucket, commit};
use crate::kv::{KvRead, KvWrite};
use crate::model::BucketId;
use std::ops::Bound;

/// Pairs read at once: values may have tens of KiB.
const PAGE: usize = 256;

/// What is swept, in the order of the keys.
const KINDS: [u8; 7] = [
    keys::ATTRIBUTE,
    keys::COMMIT,
    keys::ENTRY,
    keys::BACK_LINK,
    keys::OBJECT,
    keys::SEGMENT,
    keys::COMMIT_TIME,
];

/// What is kept of a purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// The oldest point that can be read.
    pub point: u64,
    /// Where the sweep goes on; `None`: everything below has gone.
    pub sweep: Option<Place>,
}

/// Where a sweep goes on: a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub(super) Vec<u8>);

/// Rows that can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    floor: u64,
    keys: Vec<Vec<u8>>,
    /// `None`: these are the last.
    pub next: Option<Place>,
}

impl Found {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.keys.len()
    }
}

/// How much [`find`] does at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows looked at.
    pub looked: usize,
    /// Rows found, and a page of rows more.
    pub found: usize,
}

/// `None`: the bucket was never purged.
pub fn floor(kv: &dyn KvRead, bucket: BucketId) -> Result<Option<Floor>, TreeError> {
    let record = kv.get(&keys::of_bucket(keys::FLOOR, bucket))?;
    record.map(|value| codec::decode_floor(&value)).transpose()
}

/// The oldest point that can be read, once there is one.
pub fn oldest(kv: &dyn KvRead, bucket: BucketId) -> Result<u64, TreeError> {
    Ok(floor(kv, bucket)?.map_or(1, |floor| floor.point))
}

/// Makes `point` the oldest one, when it is not below it already. [`find`] and [`remove`] do the rest.
pub fn raise(txn: &mut dyn KvWrite, bucket: BucketId, point: u64) -> Result<(), TreeError> {
    let record = bucket::existing(txn, bucket)?;
    if !(1..=record.head).contains(&point) {
        return Err(TreeError::NoPoint(point));
    }
    if point > oldest(txn, bucket)? {
        let sweep = Some(Place(vec![KINDS[0]]));
        put(txn, bucket, &Floor { point, sweep })?;
    }
    Ok(())
}

/// Buckets whose purge has not come to its end.
pub fn unfinished(kv: &dyn KvRead) -> Result<Vec<BucketId>, TreeError> {
    let (first, end) = (Key::new(keys::FLOOR), Key::new(keys::FLOOR).end());
    let mut found = Vec::new();
    for (key, value) in kv.scan(Bound::Included(&first), Bound::Excluded(&end), usize::MAX)? {
        let id = BucketId(KeyParts::new(&key).number()?);
        let alive = bucket::get(kv, id)?.is_some_and(|bucket| !bucket.deleted);
        if alive && codec::decode_floor(&value)?.sweep.is_some() {
            found.push(id);
        }
    }
    Ok(found)
}

/// Rows that can go with `floor` as the oldest point, from `from` on; `None`: from the beginning.
pub fn find(
    kv: &dyn KvRead,
    bucket: BucketId,
    floor: u64,
    from: Option<&Place>,
    limits: Limits,
) -> Result<Found, TreeError> {
    let mut keys = Vec::new();
    let next = Search::new(kv, floor, limits, |key| keys.push(key)).all(bucket, from)?;
    Ok(Found { floor, keys, next })
}

/// How many rows [`find`] would find, and whether there are more behind the first `limit` that are looked at.
pub fn count(kv: &dyn KvRead, bucket: BucketId, floor: u64, limit: usize) -> Result<(u64, bool), TreeError> {
    let mut rows = 0;
    let limits = Limits {
        looked: limit,
        found: usize::MAX,
    };
    let next = Search::new(kv, floor, limits, |_| rows += 1).all(bucket, None)?;
    Ok((rows, next.is_some()))
}

/// Removes what was found, and keeps how far the sweep has come. False when the floor is another one by now, or the bucket
/// is gone: then nothing is done.
pub fn remove(txn: &mut dyn KvWrite, bucket: BucketId, found: &Found) -> Result<bool, TreeError> {
    let alive = bucket::get(txn, bucket)?.is_some_and(|bucket| !bucket.deleted);
    let same = floor(txn, bucket)?.is_some_and(|floor| floor.point == found.floor);
    if !alive || !same {
        return Ok(false);
    }
    found.keys.iter().try_for_each(|key| txn.delete(key))?;
    let sweep = found.next.clone();
    put(
        txn,
        bucket,
        &Floor {
            point: found.floor,
            sweep,
        },
    )?;
    Ok(true)
}

fn put(txn: &mut dyn KvWrite, bucket: BucketId, floor: &Floor) -> Result<(), TreeError> {
    Ok(txn.put(&keys::of_bucket(keys::FLOOR, bucket), &codec::encode_floor(floor))?)
}

type Rows = (Key, Key);

fn commits_below(bucket: BucketId, floor: u64) -> Rows {
    let end = keys::of_bucket(keys::COMMIT, bucket).end();
    (keys::commit(bucket, floor.saturating_sub(1)), end)
}

/// When the floor's commit was made it took all later times out, and so did every commit behind it: what is left of points
/// below has its time at most.
fn times_below(kv: &dyn KvRead, bucket: BucketId, floor: u64) -> Result<Rows, TreeError> {
    let all = keys::of_bucket(keys::COMMIT_TIME, bucket);
    let first = match commit::get(kv, bucket, floor)? {
        Some(commit) => keys::commit_time(bucket, commit.info.time_ns, floor.saturating_sub(1)),
        None => all.clone(),
    };
    Ok((first, all.end()))
}

struct Search<'a, F> {
    kv: &'a dyn KvRead,
    floor: u64,
    limits: Limits,
    looked: usize,
    found: usize,
    see: F,
}

/// What is known of the row whose revisions are being looked at.
struct Row {
    row: Key,
    /// The newest revision at or below the floor was seen: those behind it are hidden.
    decided: bool,
    /// It is a tombstone: it goes when everything behind it was found, never before.
    tombstone: Option<Vec<u8>>,
}

impl<'a, F: FnMut(Vec<u8>)> Search<'a, F> {
    fn new(kv: &'a dyn KvRead, floor: u64, limits: Limits, see: F) -> Self {
        Self {
            kv,
            floor,
            limits,
            looked: 0,
            found: 0,
            see,
        }
    }

    fn all(mut self, bucket: BucketId, from: Option<&Place>) -> Result<Option<Place>, TreeError> {
        let from = from.map_or(&[][..], |place| &place.0);
        for first in KINDS {
            let rows = keys::of_bucket(first, bucket);
            if from >= &*rows.end() {
                continue;
            }
            let next = match first {
                keys::COMMIT => self.below(&commits_below(bucket, self.floor), from)?,
                keys::COMMIT_TIME => self.below(&times_below(self.kv, bucket, self.floor)?, from)?,
                _ => self.rows(&rows, from)?,
            };
            if next.is_some() {
                return Ok(next.map(Place));
            }
        }
        Ok(None)
    }

    fn found(&mut self, key: Vec<u8>) {
        self.found += 1;
        (self.see)(key);
    }

    fn is_enough(&self) -> bool {
        self.looked >= self.limits.looked || self.found >= self.limits.found
    }

    /// Revisions of one kind's rows from the key `from` on. Where to go on, unless this was the end.
    fn rows(&mut self, rows: &Key, from: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let end = rows.end();
        let mut start = Bound::Included(from.max(&**rows).to_vec());
        let mut current: Option<Row> = None;
        loop {
            let page = self
                .kv
                .scan(start.as_ref().map(Vec::as_slice), Bound::Excluded(&end), PAGE)?;
            self.looked += page.len();
            let is_last = page.len() < PAGE;
            let mut last = None;
            for (key, value) in page {
                let (row, point) = keys::split_revision(key.clone())?;
                if current.as_ref().is_none_or(|current| current.row != row) {
                    self.row_ended(current.take());
                    current = Some(Row {
                        row,
                        decided: false,
                        tombstone: None,
                    });
                }
                last = Some((key.clone(), point));
                if let Some(row) = current.as_mut().filter(|_| point <= self.floor) {
                    match row.decided {
                        true => self.found(key),
                        false if value == TOMBSTONE => row.tombstone = Some(key),
                        false => {}
                    }
                    row.decided = true;
                }
            }
            let (Some((key, point)), Some(row), false) = (last, &current, is_last) else {
                self.row_ended(current);
                return Ok(None);
            };
            // Where the row's revisions begin that the floor covers: whoever goes on there sees the same as who never stopped.
            let covered = keys::revision(&row.row, self.floor);
            if self.is_enough() {
                return Ok(Some(covered.to_vec()));
            }
            start = match point > self.floor {
                true => Bound::Included(covered.to_vec()),
                false => Bound::Excluded(key),
            };
        }
    }

    fn row_ended(&mut self, row: Option<Row>) {
        if let Some(key) = row.and_then(|row| row.tombstone) {
            self.found(key);
        }
    }

    /// Rows of points below the floor, which are the last part of these keys.
    fn below(&mut self, (first, end): &Rows, from: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let mut start = Bound::Included(from.max(&**first).to_vec());
        loop {
            let page = self
                .kv
                .scan(start.as_ref().map(Vec::as_slice), Bound::Excluded(end), PAGE)?;
            self.looked += page.len();
            let next = page.last().map(|(key, _)| key.clone());
            let is_last = page.len() < PAGE;
            for (key, _) in page {
                let (_, point) = keys::split_revision(key.clone())?;
                if point < self.floor {
                    self.found(key);
                }
            }
            match next {
                Some(next) if !is_last && self.is_enough() => return Ok(Some(next)),
                Some(next) if !is_last => start = Bound::Excluded(next),
                _ => return Ok(None),
            }
        }
    }
}
