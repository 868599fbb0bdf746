//! Which blocks a bucket holds: those that a commit of it ever named. Derived from the segments of all points, so that it can be
//! told of one block without looking through them.
//!
//! Each commit enters what it names. A program that does not know these rows leaves them behind; so they say up to which
//! point they are whole, and what is missing is entered anew from the segments.

use super::keys::{self, Key};
use super::{TreeError, bucket, codec};
use crate::kv::{KvRead, KvWrite};
use crate::model::{BlockKey, BucketId, Op};
use std::ops::Bound;

/// Blocks that the op names.
pub fn named(op: &Op) -> impl Iterator<Item = BlockKey> + '_ {
    let blocks = match op {
        Op::PutBlocks { blocks, .. } => &blocks[..],
        _ => &[],
    };
    blocks
        .iter()
        .filter_map(|(_, block)| block.map(|block| block.key))
}

pub fn holds(kv: &dyn KvRead, bucket: BucketId, block: &BlockKey) -> Result<bool, TreeError> {
    Ok(kv.get(&keys::held(bucket, block))?.is_some())
}

/// Whether the rows have all that the bucket's commits named.
pub fn is_whole(kv: &dyn KvRead, record: &bucket::Bucket) -> Result<bool, TreeError> {
    Ok(whole_to(kv, record.id)? >= record.head)
}

/// Enters blocks of points that are there already.
pub fn enter(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    blocks: impl IntoIterator<Item = BlockKey>,
) -> Result<(), TreeError> {
    for block in blocks {
        let row = keys::held(bucket, &block);
        if txn.get(&row)?.is_none() {
            txn.put(&row, &codec::PRESENT)?;
        }
    }
    Ok(())
}

/// All that the bucket's commits named has been entered.
pub fn set_whole(txn: &mut dyn KvWrite, bucket: BucketId) -> Result<(), TreeError> {
    match bucket::get(txn, bucket)? {
        Some(record) => set_whole_to(txn, bucket, record.head),
        None => Ok(()),
    }
}

/// Enters what the commit of this point names.
pub(super) fn enter_commit(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    point: u64,
    ops: &[Op],
) -> Result<(), TreeError> {
    enter(txn, bucket, ops.iter().flat_map(named))?;
    match whole_to(txn, bucket)? {
        whole if whole + 1 == point => set_whole_to(txn, bucket, point),
        _ => Ok(()),
    }
}

/// Blocks in the order of their keys, behind `after`.
pub fn list(
    kv: &dyn KvRead,
    bucket: BucketId,
    after: Option<&BlockKey>,
    limit: usize,
) -> Result<Vec<BlockKey>, TreeError> {
    let all = keys::of_bucket(keys::HELD, bucket);
    let from = after.map_or_else(|| all.clone(), |after| keys::held(bucket, after));
    let rows = kv.scan(Bound::Excluded(&from), Bound::Excluded(&all.end()), limit)?;
    rows.iter().map(|(key, _)| keys::held_block(key)).collect()
}

/// No point needs the block any more, and it has left the store.
pub fn remove(txn: &mut dyn KvWrite, bucket: BucketId, block: &BlockKey) -> Result<(), TreeError> {
    Ok(txn.delete(&keys::held(bucket, block))?)
}

fn whole_to(kv: &dyn KvRead, bucket: BucketId) -> Result<u64, TreeError> {
    let value = kv.get(&whole_key(bucket))?;
    value.map_or(Ok(0), |value| codec::decode_point(&value))
}

fn set_whole_to(txn: &mut dyn KvWrite, bucket: BucketId, point: u64) -> Result<(), TreeError> {
    Ok(txn.put(&whole_key(bucket), &codec::encode_point(point))?)
}

/// Shorter than the blocks' keys, so that it sorts before them.
fn whole_key(bucket: BucketId) -> Key {
    keys::of_bucket(keys::HELD, bucket)
}
