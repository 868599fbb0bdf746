//! Buckets of a store.

use super::keys::{self, KeyParts};
use super::valid::MAX_SIZE;
use super::{TreeError, codec};
use crate::kv::{KvRead, KvWrite};
use crate::model::{BucketId, Layout, ObjectId};
use std::ops::Bound;

/// Longest name of a bucket in bytes.
pub const MAX_BUCKET_NAME: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub id: BucketId,
    /// See [`valid_bucket_name`].
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

/// 1 to 63 lower-case letters, digits, `-`, `_` and `.`, the first a letter or digit: nothing that means something
/// in a path, a URL or `BUCKET@POINT:/PATH`.
pub fn valid_bucket_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_BUCKET_NAME
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || b"-_.".contains(&byte))
}

/// Makes an empty bucket: without commits, and without a root directory until an op puts one.
pub fn create(
    txn: &mut dyn KvWrite,
    name: &str,
    layout: Layout,
    created_ns: i64,
) -> Result<Bucket, TreeError> {
    let id = next_id(txn)?;
    insert(txn, id, name, layout, created_ns)
}

/// The bucket with this id, made when it is not there: for a store whose only bucket it is.
pub fn open(
    txn: &mut dyn KvWrite,
    id: BucketId,
    name: &str,
    layout: Layout,
    created_ns: i64,
) -> Result<Bucket, TreeError> {
    match get(txn, id)? {
        Some(bucket) => Ok(bucket),
        None => insert(txn, id, name, layout, created_ns),
    }
}

pub fn get(kv: &dyn KvRead, id: BucketId) -> Result<Option<Bucket>, TreeError> {
    let record = kv.get(&keys::bucket(id))?;
    record.map(|value| codec::decode_bucket(id, &value)).transpose()
}

pub fn find(kv: &dyn KvRead, name: &str) -> Result<Option<Bucket>, TreeError> {
    if !valid_bucket_name(name) {
        return Ok(None);
    }
    match kv.get(&keys::bucket_name(name))? {
        Some(value) => Ok(Some(named(kv, name, &value)?)),
        None => Ok(None),
    }
}

/// Buckets in the order of their names, after `after`.
pub fn list(kv: &dyn KvRead, after: Option<&str>, limit: usize) -> Result<Vec<Bucket>, TreeError> {
    let start = keys::bucket_name(after.unwrap_or_default());
    let end = keys::bucket_name("").end();
    let names = kv.scan(Bound::Excluded(&start), Bound::Excluded(&end), limit)?;
    names
        .iter()
        .map(|(key, value)| {
            named(
                kv,
                &String::from_utf8_lossy(key.get(1..).unwrap_or_default()),
                value,
            )
        })
        .collect()
}

/// Replaces the bucket's record. A new name must be free.
pub fn set(txn: &mut dyn KvWrite, bucket: &Bucket) -> Result<(), TreeError> {
    let old = existing(txn, bucket.id)?;
    check(&bucket.name, &bucket.layout)?;
    if bucket.name != old.name {
        claim_name(txn, &bucket.name, bucket.id)?;
        txn.delete(&keys::bucket_name(&old.name))?;
    }
    put(txn, bucket)
}

/// Takes the bucket's name away and marks it deleted. [`purge`] removes the rows.
pub fn delete(txn: &mut dyn KvWrite, id: BucketId) -> Result<(), TreeError> {
    let bucket = existing(txn, id)?;
    txn.delete(&keys::bucket_name(&bucket.name))?;
    put(
        txn,
        &Bucket {
            deleted: true,
            ..bucket
        },
    )
}

/// Removes up to `limit` rows of a deleted bucket; whether there are more. The last one is the bucket's record.
pub fn purge(txn: &mut dyn KvWrite, id: BucketId, limit: usize) -> Result<bool, TreeError> {
    match get(txn, id)? {
        None => return Ok(false),
        Some(bucket) if !bucket.deleted => {
            return Err(TreeError::Invalid(format!("bucket {id} is not deleted")));
        }
        Some(_) => {}
    }
    let mut left = limit;
    for first in keys::OF_BUCKET {
        let rows = keys::of_bucket(first, id);
        while left > 0 {
            let page = txn.scan(
                Bound::Included(&rows),
                Bound::Excluded(&rows.end()),
                left.min(PURGE_PAGE),
            )?;
            if page.is_empty() {
                break;
            }
            left -= page.len();
            page.iter().try_for_each(|(key, _)| txn.delete(key))?;
        }
    }
    if left > 0 {
        txn.delete(&keys::bucket(id))?;
    }
    Ok(left == 0)
}

/// Rows read at once to be removed: with their values, which may be tens of KiB.
const PURGE_PAGE: usize = 256;

/// Buckets that [`purge`] has not finished with.
pub fn deleted(kv: &dyn KvRead) -> Result<Vec<BucketId>, TreeError> {
    ids(kv, |bucket| bucket.deleted)
}

/// All buckets that are not deleted.
pub fn alive(kv: &dyn KvRead) -> Result<Vec<BucketId>, TreeError> {
    ids(kv, |bucket| !bucket.deleted)
}

fn ids(kv: &dyn KvRead, which: impl Fn(&Bucket) -> bool) -> Result<Vec<BucketId>, TreeError> {
    let first = keys::bucket(BucketId(0));
    let end = keys::next_bucket().end();
    let mut found = Vec::new();
    for (key, value) in kv.scan(Bound::Included(&first), Bound::Excluded(&end), usize::MAX)? {
        let id = BucketId(KeyParts::new(&key).number()?);
        if which(&codec::decode_bucket(id, &value)?) {
            found.push(id);
        }
    }
    Ok(found)
}

/// `count` object ids that have not been given out; the first of them.
pub fn allocate(txn: &mut dyn KvWrite, id: BucketId, count: u64) -> Result<ObjectId, TreeError> {
    let mut bucket = existing(txn, id)?;
    let first = bucket.next_object;
    let next = first.0.checked_add(count).filter(|next| *next <= MAX_SIZE);
    bucket.next_object = ObjectId(
        next.ok_or_else(|| TreeError::Invalid(format!("bucket {id} has no {count} object ids left")))?,
    );
    put(txn, &bucket)?;
    Ok(first)
}

pub(super) fn existing(kv: &dyn KvRead, id: BucketId) -> Result<Bucket, TreeError> {
    get(kv, id)?
        .filter(|bucket| !bucket.deleted)
        .ok_or(TreeError::NoBucket(id))
}

pub(super) fn put(txn: &mut dyn KvWrite, bucket: &Bucket) -> Result<(), TreeError> {
    Ok(txn.put(&keys::bucket(bucket.id), &codec::encode_bucket(bucket))?)
}

fn insert(
    txn: &mut dyn KvWrite,
    id: BucketId,
    name: &str,
    layout: Layout,
    created_ns: i64,
) -> Result<Bucket, TreeError> {
    check(name, &layout)?;
    claim_name(txn, name, id)?;
    let next = next_id(txn)?.max(BucketId(id.0.saturating_add(1)));
    txn.put(&keys::next_bucket(), &codec::encode_bucket_id(next))?;
    let bucket = Bucket {
        id,
        name: name.into(),
        layout,
        created_ns,
        head: 0,
        next_object: ObjectId(ObjectId::ROOT.0 + 1),
        source: None,
        epoch: 0,
        deleted: false,
    };
    put(txn, &bucket)?;
    Ok(bucket)
}

fn check(name: &str, layout: &Layout) -> Result<(), TreeError> {
    if !valid_bucket_name(name) {
        return Err(TreeError::Invalid(format!(
            "{name:?} is no bucket's name: 1 to {MAX_BUCKET_NAME} of a-z, 0-9, '-', '_', '.', a letter or digit first"
        )));
    }
    layout
        .validate()
        .map_err(|error| TreeError::Invalid(error.to_string()))
}

fn claim_name(txn: &mut dyn KvWrite, name: &str, id: BucketId) -> Result<(), TreeError> {
    let key = keys::bucket_name(name);
    if txn.get(&key)?.is_some() {
        return Err(TreeError::BucketExists(name.into()));
    }
    Ok(txn.put(&key, &codec::encode_bucket_id(id))?)
}

fn next_id(kv: &dyn KvRead) -> Result<BucketId, TreeError> {
    let next = kv.get(&keys::next_bucket())?;
    next.map_or(Ok(BucketId(1)), |value| codec::decode_bucket_id(&value))
}

fn named(kv: &dyn KvRead, name: &str, value: &[u8]) -> Result<Bucket, TreeError> {
    let id = codec::decode_bucket_id(value)?;
    get(kv, id)?.ok_or_else(|| TreeError::Corrupt(format!("bucket {name:?} has no record {id}")))
}
