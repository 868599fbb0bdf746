//! Which blocks a bucket names, now or at any earlier point.

use super::keys::{self, Key};
use super::{TreeError, codec, revision};
use crate::kv::KvRead;
use crate::model::{BlockKey, BucketId, ObjectId, Segment};
use std::ops::Bound;

/// Where a walk goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After(Vec<u8>);

/// A segment as a commit wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRevision {
    pub object: ObjectId,
    pub number: u64,
    /// The commit that wrote it.
    pub point: u64,
    /// No later commit wrote or removed it: it is in the head's tree.
    pub newest: bool,
    pub segment: Segment,
}

impl SegmentRevision {
    pub fn keys(&self) -> impl Iterator<Item = BlockKey> + '_ {
        self.segment.blocks.iter().map(|(_, block, _)| block.key)
    }
}

/// All revisions of all segments of a bucket, the newest of each first, up to `limit` rows after `after`. `None` for the
/// next walk: this was the end. A deleted bucket has them as long as its rows are there.
pub fn revisions(
    kv: &dyn KvRead,
    bucket: BucketId,
    after: Option<&After>,
    limit: usize,
) -> Result<(Vec<SegmentRevision>, Option<After>), TreeError> {
    let all = keys::of_bucket(keys::SEGMENT, bucket);
    let from = after.map_or(Bound::Included(&all[..]), |after| Bound::Excluded(&after.0[..]));
    let page = kv.scan(from, Bound::Excluded(&all.end()), limit)?;
    let next = page.last().map(|(key, _)| After(key.clone()));
    let mut before: Option<Key> = match after {
        Some(after) => Some(keys::split_revision(after.0.clone())?.0),
        None => None,
    };
    let mut found = Vec::new();
    for (key, value) in page {
        let (row, point) = keys::split_revision(key)?;
        let newest = before.as_ref() != Some(&row);
        if let Some(value) = revision::live(value) {
            found.push(SegmentRevision {
                object: object_of(&row)?,
                number: keys::last_number(&row)?,
                point,
                newest,
                segment: codec::decode_segment(&value)?,
            });
        }
        before = Some(row);
    }
    Ok((found, next))
}

fn object_of(row: &Key) -> Result<ObjectId, TreeError> {
    let mut parts = keys::KeyParts::new(row);
    parts.number()?;
    parts.object()
}
