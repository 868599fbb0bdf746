//! Buckets of a store.

use super::TreeError;
use crate::kv::{KvRead, KvWrite};
use crate::model::{BucketId, Layout, ObjectId};

/// Longest name of a bucket in bytes.
pub const MAX_BUCKET_NAME: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub id: BucketId,
    /// Lower-case letters, digits, `-`, `_` and `.`, beginning with a letter or digit.
    pub name: String,
    /// For objects created without one of their own.
    pub layout: Layout,
    /// Nanoseconds since the epoch.
    pub created_ns: i64,
    /// Newest point; 0: no commit yet.
    pub head: u64,
    /// What [`allocate`] gives out next.
    pub next_object: ObjectId,
    /// Source that replicates into the bucket; `None`: clients write it.
    pub source: Option<String>,
    /// Newest epoch that wrote here: sources with an older one are fenced.
    pub epoch: u64,
    /// Deleted: without a name, its rows are on their way out.
    pub deleted: bool,
}

pub fn valid_bucket_name(name: &str) -> bool {
    let _ = name;
    todo!()
}

/// Makes an empty bucket: without commits, and without a root directory until an op puts one.
pub fn create(txn: &mut dyn KvWrite, name: &str, layout: Layout, created_ns: i64) -> Result<Bucket, TreeError> {
    let _ = (txn, name, layout, created_ns);
    todo!()
}

/// Makes the bucket with this id unless it is there: for a store whose only bucket it is.
pub fn open(
    txn: &mut dyn KvWrite,
    id: BucketId,
    name: &str,
    layout: Layout,
    created_ns: i64,
) -> Result<Bucket, TreeError> {
    let _ = (txn, id, name, layout, created_ns);
    todo!()
}

pub fn get(kv: &dyn KvRead, id: BucketId) -> Result<Option<Bucket>, TreeError> {
    let _ = (kv, id);
    todo!()
}

pub fn find(kv: &dyn KvRead, name: &str) -> Result<Option<Bucket>, TreeError> {
    let _ = (kv, name);
    todo!()
}

/// Buckets in the order of their names, after `after`.
pub fn list(kv: &dyn KvRead, after: Option<&str>, limit: usize) -> Result<Vec<Bucket>, TreeError> {
    let _ = (kv, after, limit);
    todo!()
}

/// Replaces the bucket's record. A new name must be free.
pub fn set(txn: &mut dyn KvWrite, bucket: &Bucket) -> Result<(), TreeError> {
    let _ = (txn, bucket);
    todo!()
}

/// Takes the bucket's name away and marks it deleted. [`purge`] removes the rows.
pub fn delete(txn: &mut dyn KvWrite, id: BucketId) -> Result<(), TreeError> {
    let _ = (txn, id);
    todo!()
}

/// Removes up to `limit` rows of a deleted bucket; whether there are more. The last one is the bucket's record.
pub fn purge(txn: &mut dyn KvWrite, id: BucketId, limit: usize) -> Result<bool, TreeError> {
    let _ = (txn, id, limit);
    todo!()
}

/// Buckets that [`purge`] has not finished with.
pub fn deleted(kv: &dyn KvRead) -> Result<Vec<BucketId>, TreeError> {
    let _ = kv;
    todo!()
}

/// `count` object ids that have not been given out; the first of them.
pub fn allocate(txn: &mut dyn KvWrite, id: BucketId, count: u64) -> Result<ObjectId, TreeError> {
    let _ = (txn, id, count);
    todo!()
}
