//! Digests of a tree's parts, to find where two trees differ.

use super::digest::{GROUP_OBJECTS, Row, row_digest};
use super::keys::{self, Key, KeyParts};
use super::revision::{self, LiveRow};
use super::valid::MAX_SIZE;
use super::{Tree, TreeError, codec};
use crate::model::{Digest, ObjectId, RowKey};
use std::ops::Bound;

/// Rows read at once to be counted.
const RECOUNT_PAGE: usize = 1024;
/// In the order of [`RowKey`].
const ROW_KINDS: [u8; 4] = [keys::OBJECT, keys::ATTRIBUTE, keys::ENTRY, keys::SEGMENT];

impl Tree<'_> {
    /// Sum of the digests of the object's own rows: properties, attributes, content, and a directory's entries.
    pub fn object_digest(&self, id: ObjectId) -> Result<Digest, TreeError> {
        let mut sum = Digest::ZERO;
        for first in ROW_KINDS {
            self.each(first, id, |live| {
                sum = sum.plus(digest_of(first, live)?.1);
                Ok(())
            })?;
        }
        Ok(sum)
    }

    /// Digests of groups that have rows, in order, after `after`. Always of the head.
    pub fn groups(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, Digest)>, TreeError> {
        let first = keys::group(self.bucket, after.unwrap_or_default());
        let start = match after {
            Some(_) => Bound::Excluded(&*first),
            None => Bound::Included(&*first),
        };
        let end = keys::of_bucket(keys::GROUP, self.bucket).end();
        let rows = self.kv.scan(start, Bound::Excluded(&end), limit)?;
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let mut parts = KeyParts::new(key);
            parts.number()?;
            Ok((parts.number()?, codec::decode_group(value)?))
        };
        rows.iter().map(read).collect()
    }

    /// What a group's rows add up to, whatever digest is kept of it.
    pub fn recount(&self, group: u64) -> Result<Digest, TreeError> {
        let (mut sum, mut after) = (Digest::ZERO, None);
        loop {
            let rows = self.rows(group, after.as_ref(), RECOUNT_PAGE)?;
            let ended = rows.len() < RECOUNT_PAGE;
            for (row, digest) in rows {
                sum = sum.plus(digest);
                after = Some(row);
            }
            if ended {
                return Ok(sum);
            }
        }
    }

    /// Digests of a group's rows in the order of [`RowKey`], after `after`.
    pub fn rows(
        &self,
        group: u64,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, TreeError> {
        let Some(first_id) = group.checked_mul(GROUP_OBJECTS).filter(|id| *id <= MAX_SIZE) else {
            return Ok(Vec::new());
        };
        let after = after.map(|row| (kind_index(row), self.end_of(row)));
        let mut found = Vec::new();
        for (index, first) in ROW_KINDS.into_iter().enumerate() {
            let of_bucket = keys::of_bucket(first, self.bucket);
            let mut start = of_bucket.clone().number(first_id);
            let end = of_bucket.number(first_id + GROUP_OBJECTS);
            match &after {
                Some((done, _)) if index < *done => continue,
                Some((reached, row_end)) if index == *reached => start = start.max(row_end.clone()),
                _ => {}
            }
            for live in revision::live_rows(self.kv, &start, &end, self.at, limit - found.len())? {
                found.push(digest_of(first, &live)?);
            }
        }
        Ok(found)
    }

    /// Where the row behind this one may start.
    fn end_of(&self, row: &RowKey) -> Key {
        let bucket = self.bucket;
        let row = match row {
            RowKey::Object { id } => keys::object(bucket, *id),
            RowKey::Attribute { id, name } => keys::attribute(bucket, *id, keys::until_nul(name)),
            RowKey::Entry { dir, name } => keys::entry(bucket, *dir, keys::until_nul(name)),
            RowKey::Segment { id, segment } => keys::segment(bucket, *id, *segment),
        };
        row.end()
    }
}

fn kind_index(row: &RowKey) -> usize {
    match row {
        RowKey::Object { .. } => 0,
        RowKey::Attribute { .. } => 1,
        RowKey::Entry { .. } => 2,
        RowKey::Segment { .. } => 3,
    }
}

fn digest_of(first: u8, live: &LiveRow) -> Result<(RowKey, Digest), TreeError> {
    let mut parts = KeyParts::new(&live.row);
    parts.number()?;
    let id = parts.object()?;
    let value = &live.value;
    Ok(match first {
        keys::OBJECT => {
            let object = codec::decode_object(value)?;
            (
                RowKey::Object { id },
                row_digest(&Row::Object { id, object: &object }),
            )
        }
        keys::ATTRIBUTE => {
            let (name, value) = (parts.name()?, codec::decode_attribute(value)?);
            (
                RowKey::Attribute {
                    id,
                    name: name.to_vec(),
                },
                row_digest(&Row::Attribute { id, name, value }),
            )
        }
        keys::ENTRY => {
            let (name, child) = (parts.name()?, codec::decode_child(value)?);
            (
                RowKey::Entry {
                    dir: id,
                    name: name.to_vec(),
                },
                row_digest(&Row::Entry { dir: id, name, child }),
            )
        }
        _ => {
            let (number, segment) = (parts.number()?, codec::decode_segment(value)?);
            let digest = row_digest(&Row::Segment {
                id,
                number,
                segment: &segment,
            });
            (RowKey::Segment { id, segment: number }, digest)
        }
    })
}
