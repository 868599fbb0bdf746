//! Buckets, commits, floors, positions, sums.

use super::row::LayoutRow;
use super::{damaged, decode, encode};
use crate::model::{BucketId, Digest, Layout, ObjectId};
use crate::tree::bucket::Bucket;
use crate::tree::commit::{Commit, CommitInfo, Position};
use crate::tree::purge::{Floor, Place};
use crate::tree::{Totals, TreeError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct BucketRecord {
    name: String,
    layout: LayoutRow,
    created_ns: i64,
    head: u64,
    next_object: u64,
    source: Option<String>,
    epoch: u64,
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
struct CommitRecord {
    time_ns: i64,
    committed_ns: i64,
    source: String,
    epoch: u64,
    first: u64,
    last: u64,
    exact: bool,
    resync: bool,
    ops: u64,
    totals: TotalsRecord,
}

#[derive(Serialize, Deserialize)]
struct TotalsRecord {
    digest: [u8; 32],
    objects: u64,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct PositionRecord {
    epoch: u64,
    sequence: u64,
    point: u64,
}

#[derive(Serialize, Deserialize)]
struct FloorRecord {
    point: u64,
    sweep: Option<Vec<u8>>,
}

pub(in crate::tree) fn encode_bucket(bucket: &Bucket) -> Vec<u8> {
    encode(&BucketRecord {
        name: bucket.name.clone(),
        layout: bucket.layout.into(),
        created_ns: bucket.created_ns,
        head: bucket.head,
        next_object: bucket.next_object.0,
        source: bucket.source.clone(),
        epoch: bucket.epoch,
        deleted: bucket.deleted,
    })
}

pub(in crate::tree) fn decode_bucket(id: BucketId, bytes: &[u8]) -> Result<Bucket, TreeError> {
    let what = "a bucket's record";
    let record: BucketRecord = decode(bytes, what)?;
    let layout = Layout::from(record.layout);
    layout
        .validate()
        .map_err(|why| damaged(what, &format!("says what none can be: {why}")))?;
    Ok(Bucket {
        id,
        name: record.name,
        layout,
        created_ns: record.created_ns,
        head: record.head,
        next_object: ObjectId(record.next_object),
        source: record.source,
        epoch: record.epoch,
        deleted: record.deleted,
    })
}

pub(in crate::tree) fn encode_bucket_id(id: BucketId) -> Vec<u8> {
    encode(&id.0)
}

pub(in crate::tree) fn decode_bucket_id(bytes: &[u8]) -> Result<BucketId, TreeError> {
    decode(bytes, "a bucket's id").map(BucketId)
}

pub(in crate::tree) fn encode_commit(commit: &Commit) -> Vec<u8> {
    let info = &commit.info;
    encode(&CommitRecord {
        time_ns: info.time_ns,
        committed_ns: info.committed_ns,
        source: info.source.clone(),
        epoch: info.epoch,
        first: info.first,
        last: info.last,
        exact: info.exact,
        resync: info.resync,
        ops: commit.ops,
        totals: commit.totals.into(),
    })
}

pub(in crate::tree) fn decode_commit(point: u64, bytes: &[u8]) -> Result<Commit, TreeError> {
    let record: CommitRecord = decode(bytes, "a commit's record")?;
    let info = CommitInfo {
        time_ns: record.time_ns,
        committed_ns: record.committed_ns,
        source: record.source,
        epoch: record.epoch,
        first: record.first,
        last: record.last,
        exact: record.exact,
        resync: record.resync,
    };
    Ok(Commit {
        point,
        info,
        ops: record.ops,
        totals: record.totals.into(),
    })
}

pub(in crate::tree) fn encode_position(position: Position) -> Vec<u8> {
    encode(&PositionRecord {
        epoch: position.epoch,
        sequence: position.sequence,
        point: position.point,
    })
}

pub(in crate::tree) fn decode_position(bytes: &[u8]) -> Result<Position, TreeError> {
    let record: PositionRecord = decode(bytes, "a source's position")?;
    Ok(Position {
        epoch: record.epoch,
        sequence: record.sequence,
        point: record.point,
    })
}

pub(in crate::tree) fn encode_floor(floor: &Floor) -> Vec<u8> {
    encode(&FloorRecord {
        point: floor.point,
        sweep: floor.sweep.as_ref().map(|place| place.0.clone()),
    })
}

pub(in crate::tree) fn decode_floor(bytes: &[u8]) -> Result<Floor, TreeError> {
    let record: FloorRecord = decode(bytes, "a bucket's floor")?;
    Ok(Floor {
        point: record.point,
        sweep: record.sweep.map(Place),
    })
}

pub(in crate::tree) fn encode_point(point: u64) -> Vec<u8> {
    encode(&point)
}

pub(in crate::tree) fn decode_point(bytes: &[u8]) -> Result<u64, TreeError> {
    decode(bytes, "a point")
}

pub(in crate::tree) fn encode_totals(totals: Totals) -> Vec<u8> {
    encode(&TotalsRecord::from(totals))
}

pub(in crate::tree) fn decode_totals(bytes: &[u8]) -> Result<Totals, TreeError> {
    decode::<TotalsRecord>(bytes, "a bucket's sums").map(Totals::from)
}

pub(in crate::tree) fn encode_group(digest: Digest) -> Vec<u8> {
    encode(&digest.to_bytes())
}

pub(in crate::tree) fn decode_group(bytes: &[u8]) -> Result<Digest, TreeError> {
    decode(bytes, "a group's digest").map(Digest::from_bytes)
}

impl From<Totals> for TotalsRecord {
    fn from(totals: Totals) -> Self {
        Self {
            digest: totals.digest.to_bytes(),
            objects: totals.objects,
            bytes: totals.bytes,
        }
    }
}

impl From<TotalsRecord> for Totals {
    fn from(record: TotalsRecord) -> Self {
        Self {
            digest: Digest::from_bytes(record.digest),
            objects: record.objects,
            bytes: record.bytes,
        }
    }
}
