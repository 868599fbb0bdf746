//! Commits: the points of a bucket, and how far its sources have come.

use super::keys::{self, Key, KeyParts};
use super::{Applied, Checks, History, Totals, Tree, TreeError, apply_all, bucket, codec, held};
use crate::kv::{KvRead, KvWrite};
use crate::model::{BucketId, ObjectId, Op};
use std::ops::{Bound, RangeInclusive};

/// Longest name of a source in bytes.
pub const MAX_SOURCE: usize = 255;
/// Rows of the index of times removed at once: they are a few bytes each.
const TIMES_PAGE: usize = 1024;

/// What a commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitInfo {
    /// When the newest change in its tree was noted, nanoseconds since the epoch. What [`commit`] is given is that of the
    /// changes in it, which may be older than those before it: a file is read long after it was changed.
    pub time_ns: i64,
    /// When the site took it in, nanoseconds since the epoch.
    pub committed_ns: i64,
    /// Name of the source; empty: a client of the site.
    pub source: String,
    pub epoch: u64,
    /// First and last change of the source that it covers. Of a part of a resync: its number, from 1 (0: its source did not
    /// count them), and the change that the source goes on from.
    pub first: u64,
    pub last: u64,
    /// One moment's state at the source; else some files may have been caught while they were written.
    pub exact: bool,
    /// Part of a resync by difference: what is between the parts is no state the source ever had.
    pub resync: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub point: u64,
    pub info: CommitInfo,
    /// Ops that it was made of.
    pub ops: u64,
    /// Of the tree after it.
    pub totals: Totals,
}

/// How far a source has come in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// [`Position::RELEASED`]: the source must not write here any more.
    pub epoch: u64,
    pub sequence: u64,
    /// The commit that brought it here.
    pub point: u64,
}

impl Position {
    /// After all epochs, so that none of the source's own is new enough.
    pub const RELEASED: u64 = u64::MAX;

    pub fn is_released(&self) -> bool {
        self.epoch == Self::RELEASED
    }
}

/// Applies the ops as the bucket's next point, with history, and moves its head. Its time is never before that of the
/// point below it, since its tree has those changes, too. The caller looks after order, fencing and [`set_position`].
pub fn commit(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    checks: Checks,
    mut info: CommitInfo,
    ops: &[Op],
) -> Result<(Commit, Applied), TreeError> {
    if info.source.len() > MAX_SOURCE {
        return Err(TreeError::Invalid(format!(
            "a source's name has at most {MAX_SOURCE} bytes"
        )));
    }
    let mut record = bucket::existing(txn, bucket)?;
    let point = record.head + 1;
    if let Some(before) = get(txn, bucket, record.head)? {
        // A clock that once ran ahead must not hold the times of all later points.
        info.time_ns = info.time_ns.max(before.info.time_ns.min(info.committed_ns));
    }
    forget_later_times(txn, bucket, info.time_ns)?;
    let applied = apply_all(txn, bucket, point, History::Keep, checks, ops)?;
    held::enter_commit(txn, bucket, point, ops)?;
    let totals = Tree::head(txn, bucket).totals()?;
    let commit = Commit {
        point,
        info,
        ops: ops.len() as u64,
        totals,
    };
    txn.put(&keys::commit(bucket, point), &codec::encode_commit(&commit))?;
    txn.put(
        &keys::commit_time(bucket, commit.info.time_ns, point),
        &codec::PRESENT,
    )?;
    record.head = point;
    record.epoch = record.epoch.max(commit.info.epoch);
    record.next_object = record.next_object.max(behind_last(ops));
    bucket::put(txn, &record)?;
    Ok((commit, applied))
}

pub fn get(kv: &dyn KvRead, bucket: BucketId, point: u64) -> Result<Option<Commit>, TreeError> {
    let record = kv.get(&keys::commit(bucket, point))?;
    record
        .map(|value| codec::decode_commit(point, &value))
        .transpose()
}

/// Commits with a point in the range, newest first.
pub fn list(
    kv: &dyn KvRead,
    bucket: BucketId,
    points: RangeInclusive<u64>,
    limit: usize,
) -> Result<Vec<Commit>, TreeError> {
    let (newest, oldest) = (
        keys::commit(bucket, *points.end()),
        keys::commit(bucket, *points.start()),
    );
    let rows = kv.scan(Bound::Included(&newest), Bound::Included(&oldest), limit)?;
    let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let mut parts = KeyParts::new(key);
        parts.number()?;
        codec::decode_commit(parts.falling()?, value)
    };
    rows.iter().map(read).collect()
}

/// The newest point whose tree has no change after this time; `None` when all have. Times that a clock which ran ahead
/// gave are forgotten once points with earlier times follow.
pub fn point_at(kv: &dyn KvRead, bucket: BucketId, time_ns: i64) -> Result<Option<u64>, TreeError> {
    let end = keys::of_bucket(keys::COMMIT_TIME, bucket).end();
    let newest = keys::commit_time(bucket, time_ns, u64::MAX);
    let found = kv.scan(Bound::Included(&newest), Bound::Excluded(&end), 1)?;
    let Some((key, _)) = found.first() else {
        return Ok(None);
    };
    let mut parts = KeyParts::new(key);
    parts.number()?;
    parts.falling()?;
    Ok(Some(parts.falling()?))
}

pub fn position(kv: &dyn KvRead, bucket: BucketId, source: &str) -> Result<Option<Position>, TreeError> {
    let value = kv.get(&position_key(bucket, source)?)?;
    value.map(|value| codec::decode_position(&value)).transpose()
}

pub fn set_position(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    source: &str,
    position: Position,
) -> Result<(), TreeError> {
    Ok(txn.put(&position_key(bucket, source)?, &codec::encode_position(position))?)
}

/// Takes the bucket from its source, which is kept out from now on, and lets every other one in that was kept out before.
/// `record` is the caller's to store.
pub fn release(txn: &mut dyn KvWrite, record: &mut bucket::Bucket) -> Result<(), TreeError> {
    let released = record.source.take();
    // The next one begins at epoch 1.
    record.epoch = 0;
    for (source, mut position) in positions(txn, record.id)? {
        if Some(&source) == released.as_ref() {
            position.epoch = Position::RELEASED;
        } else if position.is_released() {
            position.epoch = 0;
        }
        set_position(txn, record.id, &source, position)?;
    }
    Ok(())
}

/// All sources that ever wrote into the bucket.
pub fn positions(kv: &dyn KvRead, bucket: BucketId) -> Result<Vec<(String, Position)>, TreeError> {
    let rows = keys::of_bucket(keys::POSITION, bucket);
    let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let mut parts = KeyParts::new(key);
        parts.number()?;
        Ok((
            String::from_utf8_lossy(parts.name()?).into_owned(),
            codec::decode_position(value)?,
        ))
    };
    let found = kv.scan(Bound::Included(&rows), Bound::Excluded(&rows.end()), usize::MAX)?;
    found.iter().map(read).collect()
}

/// Takes points with a time after this one out of the index, so that their order by time is that by number. There are some
/// only when a clock ran ahead of the site's.
fn forget_later_times(txn: &mut dyn KvWrite, bucket: BucketId, time_ns: i64) -> Result<(), TreeError> {
    let first = keys::of_bucket(keys::COMMIT_TIME, bucket);
    let end = keys::commit_time(bucket, time_ns, u64::MAX);
    loop {
        let page = txn.scan(Bound::Included(&first), Bound::Excluded(&end), TIMES_PAGE)?;
        if page.is_empty() {
            return Ok(());
        }
        page.iter().try_for_each(|(key, _)| txn.delete(key))?;
    }
}

fn position_key(bucket: BucketId, source: &str) -> Result<Key, TreeError> {
    if source.is_empty() || source.len() > MAX_SOURCE || source.contains('\0') {
        return Err(TreeError::Invalid(format!(
            "a source's name has 1 to {MAX_SOURCE} bytes, none of them NUL"
        )));
    }
    Ok(keys::position(bucket, source))
}

/// The first object id behind those that the ops use.
fn behind_last(ops: &[Op]) -> ObjectId {
    let used = ops.iter().map(|op| match op {
        Op::PutObject { id, .. } => id.0,
        _ => 0,
    });
    ObjectId(used.max().unwrap_or_default() + 1)
}
