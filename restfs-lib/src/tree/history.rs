//! What happened to an object.

use super::TreeError;
use crate::kv::KvRead;
use crate::model::{BucketId, ObjectId};

/// What one point changed of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub point: u64,
    /// Size, owner, mode or times were set.
    pub properties: bool,
    /// The object was removed.
    pub removed: bool,
    /// Segments whose blocks changed.
    pub segments: u64,
    /// Attributes set or removed.
    pub attributes: Vec<Vec<u8>>,
    /// Names given.
    pub named: Vec<(ObjectId, Vec<u8>)>,
    /// Names taken away.
    pub unnamed: Vec<(ObjectId, Vec<u8>)>,
}

/// The newest `limit` points below `before` that changed the object, newest first.
pub fn history(
    kv: &dyn KvRead,
    bucket: BucketId,
    id: ObjectId,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Changes>, TreeError> {
    let _ = (kv, bucket, id, before, limit);
    todo!()
}
