//! Where a restore reads from: one point of one bucket.

use bytes::Bytes;
use restfs_lib::model::{BlockKey, Object, ObjectId, Segment};

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No such object or block at this point.
    #[error("{0} does not exist")]
    Missing(String),
    #[error("{0}")]
    Failed(String),
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub child: ObjectId,
}

/// A tree as of one moment. Calls block (an asynchronous client waits inside) and come from several threads at
/// once. What it answers is not trusted: names, sizes and content are checked by the restore.
pub trait ContentSource: Send + Sync {
    fn object(&self, id: ObjectId) -> Result<Object, SourceError>;

    fn lookup(&self, dir: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, SourceError>;

    /// Up to `limit` entries after the name `after`, in ascending order of names; fewer only at the end.
    fn entries(&self, dir: ObjectId, after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, SourceError>;

    /// All attributes, name and value.
    fn attributes(&self, id: ObjectId) -> Result<Vec<(Vec<u8>, Vec<u8>)>, SourceError>;

    /// Up to `limit` segments with blocks, number `from` and above, in ascending order; fewer only at the end.
    fn segments(&self, id: ObjectId, from: u64, limit: usize) -> Result<Vec<(u64, Segment)>, SourceError>;

    /// Plain content of a block.
    fn block(&self, key: BlockKey) -> Result<Bytes, SourceError>;
}
