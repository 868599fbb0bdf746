//! Digests of rows, groups and trees.

use crate::model::{Digest, Object, ObjectId, Segment};

/// Object ids in a group: the grain in which two trees are compared.
pub const GROUP_OBJECTS: u64 = 1024;

/// The group of an object, and of its rows. An entry is its directory's.
pub fn group_of(id: ObjectId) -> u64 {
    id.0 / GROUP_OBJECTS
}

/// Sums over a bucket's live rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub digest: Digest,
    pub objects: u64,
    /// Sum of the objects' sizes.
    pub bytes: u64,
}

/// Digest of a row: of its key and its value, without serials and without the bucket. `None` for a segment without
/// blocks, which is no row.
pub fn row_digest(row: &Row<'_>) -> Digest {
    let _ = row;
    todo!()
}

/// A live row.
#[derive(Debug, Clone, Copy)]
pub enum Row<'a> {
    Object { id: ObjectId, object: &'a Object },
    Attribute { id: ObjectId, name: &'a [u8], value: &'a [u8] },
    Entry { dir: ObjectId, name: &'a [u8], child: ObjectId },
    Segment { id: ObjectId, number: u64, segment: &'a Segment },
}
