//! Where a restore reads from: one point of one bucket.

use bytes::Bytes;
use restfs_lib::model::{BlockKey, Object, ObjectId, Segment};

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No such path, object or block at this point.
    #[error("{0} does not exist")]
    Missing(String),
    /// This block or row cannot be read; others may.
    #[error("{0}")]
    Damaged(String),
    /// Nothing more can be read: connection lost, no permission.
    #[error("{0}")]
    Failed(String),
}

/// A name in a directory, with what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub child: ObjectId,
    pub object: Object,
}

/// Name and value.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// Part of a list; `more` says that it goes on after the last item. A page with `more` is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub more: bool,
}

/// A tree as of one moment. Calls block (an asynchronous client waits inside) and come from several threads at
/// once. What it answers is not trusted: names, sizes and content are checked by the restore.
pub trait ContentSource: Send + Sync {
    /// The object at a path from the bucket's root; empty or `/`: the root.
    fn resolve(&self, path: &[u8]) -> Result<ObjectId, SourceError>;

    fn object(&self, id: ObjectId) -> Result<Object, SourceError>;

    /// Up to `limit` entries after the name `after`, in ascending order of names' bytes.
    fn entries(&self, dir: ObjectId, after: Option<&[u8]>, limit: usize) -> Result<Page<Entry>, SourceError>;

    /// All of them.
    fn attributes(&self, id: ObjectId) -> Result<Vec<Attribute>, SourceError>;

    /// Up to `limit` segments with blocks, number `from` and above, in ascending order.
    fn segments(&self, id: ObjectId, from: u64, limit: usize) -> Result<Page<(u64, Segment)>, SourceError>;

    /// Plain content of a block.
    fn block(&self, key: BlockKey) -> Result<Bytes, SourceError>;

    /// Several blocks, one answer for each in order; at most [`MAX_FETCH`] bytes together. A source behind a
    /// network answers them in one round trip.
    fn blocks(&self, keys: &[BlockKey]) -> Vec<Result<Bytes, SourceError>> {
        keys.iter().map(|key| self.block(*key)).collect()
    }
}

/// Plain bytes that a restore asks for with one [`ContentSource::blocks`], unless one block alone is longer.
pub const MAX_FETCH: usize = 4 * 1024 * 1024;
