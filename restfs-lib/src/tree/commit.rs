//! Commits: the points of a bucket, and how far its sources have come.

use super::{Applied, Checks, History, Totals, TreeError};
use crate::kv::{KvRead, KvWrite};
use crate::model::{BucketId, Op};
use std::ops::RangeInclusive;

/// What a commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitInfo {
    /// When the newest change in it was noted at the source, nanoseconds since the epoch.
    pub time_ns: i64,
    /// When the site took it in, nanoseconds since the epoch.
    pub committed_ns: i64,
    /// Name of the source; empty: a client of the site.
    pub source: String,
    pub epoch: u64,
    /// First and last change of the source that it covers.
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
    pub epoch: u64,
    pub sequence: u64,
    /// The commit that brought it here.
    pub point: u64,
}

/// Applies the ops as the bucket's next point, with history, and moves its head. The caller looks after order,
/// fencing and [`set_position`].
pub fn commit(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    checks: Checks,
    info: CommitInfo,
    ops: &[Op],
) -> Result<(Commit, Applied), TreeError> {
    let _ = (txn, bucket, checks, info, ops, History::Keep);
    todo!()
}

pub fn get(kv: &dyn KvRead, bucket: BucketId, point: u64) -> Result<Option<Commit>, TreeError> {
    let _ = (kv, bucket, point);
    todo!()
}

/// Commits with a point in the range, newest first.
pub fn list(
    kv: &dyn KvRead,
    bucket: BucketId,
    points: RangeInclusive<u64>,
    limit: usize,
) -> Result<Vec<Commit>, TreeError> {
    let _ = (kv, bucket, points, limit);
    todo!()
}

/// The point that shows the tree as it was at this time: of all commits not later than it the latest, of several
/// with that time the newest. `None` when all are later.
pub fn point_at(kv: &dyn KvRead, bucket: BucketId, time_ns: i64) -> Result<Option<u64>, TreeError> {
    let _ = (kv, bucket, time_ns);
    todo!()
}

pub fn position(kv: &dyn KvRead, bucket: BucketId, source: &str) -> Result<Option<Position>, TreeError> {
    let _ = (kv, bucket, source);
    todo!()
}

pub fn set_position(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    source: &str,
    position: Position,
) -> Result<(), TreeError> {
    let _ = (txn, bucket, source, position);
    todo!()
}

/// All sources that ever wrote into the bucket.
pub fn positions(kv: &dyn KvRead, bucket: BucketId) -> Result<Vec<(String, Position)>, TreeError> {
    let _ = (kv, bucket);
    todo!()
}
