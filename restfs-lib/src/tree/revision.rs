//! Revisions of rows: which one is in force at a point.

use super::codec::TOMBSTONE;
use super::keys::{self, Key};
use super::{At, TreeError};
use crate::kv::KvRead;
use std::ops::Bound;

/// Pairs read at once: values may have tens of KiB.
const PAGE: usize = 256;
/// Pages start small, and grow while most of what they hold is newest revisions. Where rows have long histories they
/// shrink, so that little is read to be stepped over.
const FIRST_PAGE: usize = 16;
const MIN_PAGE: usize = 2;

/// A live row: its key without revision, the point that wrote it, the value.
pub(super) struct LiveRow {
    pub(super) row: Key,
    pub(super) point: u64,
    pub(super) value: Vec<u8>,
}

/// The revision in force: its point, and the value unless the row is gone by then.
pub(super) type InForce = Option<(u64, Option<Vec<u8>>)>;

pub(super) fn in_force(kv: &dyn KvRead, row: &Key, at: At) -> Result<InForce, TreeError> {
    let found = kv.scan(Bound::Included(&newest(row, at)), Bound::Excluded(&row.end()), 1)?;
    let Some((key, value)) = found.into_iter().next() else {
        return Ok(None);
    };
    let (_, point) = keys::split_revision(key)?;
    Ok(Some((point, live(value))))
}

/// The row's live value with the point that wrote it.
pub(super) fn live_value(kv: &dyn KvRead, row: &Key, at: At) -> Result<Option<(u64, Vec<u8>)>, TreeError> {
    Ok(in_force(kv, row, at)?.and_then(|(point, value)| Some((point, value?))))
}

/// Live rows in order: from the row `from` on, before the row `end`.
pub(super) fn live_rows(
    kv: &dyn KvRead,
    from: &Key,
    end: &Key,
    at: At,
    limit: usize,
) -> Result<Vec<LiveRow>, TreeError> {
    let mut found = Vec::new();
    let mut start = from.clone();
    let mut decided = Key::new(0);
    let mut size = FIRST_PAGE;
    while found.len() < limit {
        let page = kv.scan(Bound::Included(&start), Bound::Excluded(end), size)?;
        let last_page = page.len() < size;
        let mut undecided = None;
        let mut rows = 0;
        for (key, value) in page {
            let (row, point) = keys::split_revision(key)?;
            if row == decided {
                continue;
            }
            if !at.covers(point) {
                undecided = Some(row);
                continue;
            }
            undecided = None;
            decided = row.clone();
            rows += 1;
            found.extend(live(value).map(|value| LiveRow { row, point, value }));
        }
        if last_page {
            break;
        }
        start = undecided.map_or_else(|| decided.end(), |row| newest(&row, at));
        size = if 2 * rows >= size {
            (2 * size).min(PAGE)
        } else {
            (size / 2).max(MIN_PAGE)
        };
    }
    found.truncate(limit);
    Ok(found)
}

/// All revisions of rows whose key starts with `prefix`, in the order of their keys: row, point, value if live.
pub(super) fn each_revision(
    kv: &dyn KvRead,
    prefix: &Key,
    mut see: impl FnMut(Key, u64, Option<Vec<u8>>) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let end = prefix.end();
    let mut start = Bound::Included(prefix.to_vec());
    loop {
        let page = kv.scan(start.as_ref().map(Vec::as_slice), Bound::Excluded(&end), PAGE)?;
        let next = page
            .last()
            .filter(|_| page.len() == PAGE)
            .map(|(key, _)| key.clone());
        for (key, value) in page {
            let (row, point) = keys::split_revision(key)?;
            see(row, point, live(value))?;
        }
        match next {
            Some(key) => start = Bound::Excluded(key),
            None => return Ok(()),
        }
    }
}

/// Where the revisions that may be in force start.
fn newest(row: &Key, at: At) -> Key {
    match at {
        At::Head => row.clone(),
        At::Point(point) => keys::revision(row, point),
    }
}

pub(super) fn live(value: Vec<u8>) -> Option<Vec<u8>> {
    (value != TOMBSTONE).then_some(value)
}

impl At {
    fn covers(self, point: u64) -> bool {
        match self {
            Self::Head => true,
            Self::Point(at) => point <= at,
        }
    }
}
