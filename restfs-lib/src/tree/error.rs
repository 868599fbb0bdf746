//! What can go wrong with a tree.

use crate::kv::KvError;
use crate::model::{BucketId, ObjectId};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A row of the store that cannot be read.
    #[error("metadata store is damaged: {0}")]
    Corrupt(String),
    /// An op, name or value that can never be right.
    #[error("{0}")]
    Invalid(String),
    /// Right in itself, but not in this tree: see [`crate::tree::Checks`].
    #[error("{0}")]
    Structure(String),
    #[error("object {0} does not exist")]
    NoObject(ObjectId),
    #[error("bucket {0} does not exist")]
    NoBucket(BucketId),
    #[error("bucket {0:?} exists already")]
    BucketExists(String),
    /// The bucket has no such commit.
    #[error("point {0} does not exist")]
    NoPoint(u64),
    /// A row has been written at a later point than the one of this change.
    #[error("point {point} is older than revision {revision} of the row")]
    OldPoint { point: u64, revision: u64 },
}
