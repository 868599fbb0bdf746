//! Reading a tree.

use super::{Totals, TreeError};
use crate::kv::KvRead;
use crate::model::{BucketId, Digest, Object, ObjectId, RowKey, Segment};

/// Which state of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Head,
    /// As of this point; only where history is kept.
    Point(u64),
}

/// A bucket's tree at one moment. Numbers beside values are serials: the point that wrote the row.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    kv: &'a dyn KvRead,
    bucket: BucketId,
    at: At,
}

impl<'a> Tree<'a> {
    pub fn new(kv: &'a dyn KvRead, bucket: BucketId, at: At) -> Self {
        Self { kv, bucket, at }
    }

    pub fn head(kv: &'a dyn KvRead, bucket: BucketId) -> Self {
        Self::new(kv, bucket, At::Head)
    }

    pub fn object(&self, id: ObjectId) -> Result<Option<(Object, u64)>, TreeError> {
        let _ = (self.kv, self.bucket, self.at, id);
        todo!()
    }

    /// The child may not be there (see [`crate::tree`]).
    pub fn lookup(&self, dir: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, TreeError> {
        let _ = (dir, name);
        todo!()
    }

    /// Entries of a directory in the order of their names, after `after`.
    pub fn entries(
        &self,
        dir: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, TreeError> {
        let _ = (dir, after, limit);
        todo!()
    }

    /// All names of an object: directory and name in it.
    pub fn names(&self, id: ObjectId) -> Result<Vec<(ObjectId, Vec<u8>)>, TreeError> {
        let _ = id;
        todo!()
    }

    pub fn attribute(&self, id: ObjectId, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let _ = (id, name);
        todo!()
    }

    /// All attributes of an object with their values, by name.
    pub fn attributes(&self, id: ObjectId) -> Result<Vec<(Vec<u8>, Vec<u8>)>, TreeError> {
        let _ = id;
        todo!()
    }

    pub fn segment(&self, id: ObjectId, segment: u64) -> Result<Option<(Segment, u64)>, TreeError> {
        let _ = (id, segment);
        todo!()
    }

    /// Segments from number `from` on: number, blocks, serial. One that is all holes is left out.
    pub fn segments(
        &self,
        id: ObjectId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Segment, u64)>, TreeError> {
        let _ = (id, from, limit);
        todo!()
    }

    /// Follows a path from the root by names; symbolic links are not followed. Empty components count for nothing,
    /// `.` and `..` are not found.
    pub fn resolve(&self, path: &[u8]) -> Result<Option<ObjectId>, TreeError> {
        let _ = path;
        todo!()
    }

    /// A path from the root that leads to the object, without a leading `/` (empty for the root itself). `None` when
    /// there is none.
    pub fn path_of(&self, id: ObjectId) -> Result<Option<Vec<u8>>, TreeError> {
        let _ = id;
        todo!()
    }

    /// Digest, number of objects and their bytes.
    pub fn totals(&self) -> Result<Totals, TreeError> {
        todo!()
    }

    pub fn digest(&self) -> Result<Digest, TreeError> {
        Ok(self.totals()?.digest)
    }

    /// Sum of the digests of the object's own rows: properties, attributes, content, and a directory's entries.
    pub fn object_digest(&self, id: ObjectId) -> Result<Digest, TreeError> {
        let _ = id;
        todo!()
    }

    /// Digests of groups that have rows, after `after`. Of the head only.
    pub fn groups(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, Digest)>, TreeError> {
        let _ = (after, limit);
        todo!()
    }

    /// Digests of a group's rows in the order of [`RowKey`], after `after`.
    pub fn rows(
        &self,
        group: u64,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, TreeError> {
        let _ = (group, after, limit);
        todo!()
    }
}
