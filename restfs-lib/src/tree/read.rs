//! Reading a tree.

use super::keys::{self, Key, KeyParts};
use super::revision::{self, LiveRow};
use super::structure::MAX_DEPTH;
use super::{Totals, TreeError, codec, commit, valid};
use crate::kv::KvRead;
use crate::model::{BucketId, Digest, Object, ObjectId, Segment, valid_name};

/// Rows that a method reads at once which returns all of them.
const PAGE: usize = 256;

/// Which state of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Head,
    /// As of this point; only where history is kept.
    Point(u64),
}

/// Name and value.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// A bucket's tree at one moment. Numbers beside values are serials: the point that wrote the row.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    pub(super) kv: &'a dyn KvRead,
    pub(super) bucket: BucketId,
    pub(super) at: At,
}

impl<'a> Tree<'a> {
    pub fn new(kv: &'a dyn KvRead, bucket: BucketId, at: At) -> Self {
        Self { kv, bucket, at }
    }

    pub fn head(kv: &'a dyn KvRead, bucket: BucketId) -> Self {
        Self::new(kv, bucket, At::Head)
    }

    pub fn object(&self, id: ObjectId) -> Result<Option<(Object, u64)>, TreeError> {
        match self.live(&keys::object(self.bucket, id))? {
            Some((serial, value)) => Ok(Some((codec::decode_object(&value)?, serial))),
            None => Ok(None),
        }
    }

    /// The child may not be there (see [`crate::tree`]).
    pub fn lookup(&self, dir: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, TreeError> {
        if !valid_name(name) {
            return Ok(None);
        }
        let live = self.live(&keys::entry(self.bucket, dir, name))?;
        live.map(|(_, value)| codec::decode_child(&value)).transpose()
    }

    /// Entries of a directory in the order of their names, after `after`.
    pub fn entries(
        &self,
        dir: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, TreeError> {
        let prefix = keys::of_object(keys::ENTRY, self.bucket, dir);
        let from = match after {
            Some(name) => keys::entry(self.bucket, dir, keys::until_nul(name)).end(),
            None => prefix.clone(),
        };
        let rows = revision::live_rows(self.kv, &from, &prefix.end(), self.at, limit)?;
        rows.iter()
            .map(|live| {
                Ok((
                    keys::last_name(&live.row)?.to_vec(),
                    codec::decode_child(&live.value)?,
                ))
            })
            .collect()
    }

    /// All names of an object: directory and name in it.
    pub fn names(&self, id: ObjectId) -> Result<Vec<(ObjectId, Vec<u8>)>, TreeError> {
        let mut names = Vec::new();
        self.each(keys::BACK_LINK, id, |live| {
            let (dir, name) = back_link(&live.row)?;
            names.push((dir, name.to_vec()));
            Ok(())
        })?;
        Ok(names)
    }

    pub fn attribute(&self, id: ObjectId, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        if !valid::valid_attribute_name(name) {
            return Ok(None);
        }
        let live = self.live(&keys::attribute(self.bucket, id, name))?;
        live.map(|(_, value)| Ok(codec::decode_attribute(&value)?.to_vec()))
            .transpose()
    }

    /// All attributes of an object with their values, by name.
    pub fn attributes(&self, id: ObjectId) -> Result<Vec<Attribute>, TreeError> {
        let mut attributes = Vec::new();
        self.each(keys::ATTRIBUTE, id, |live| {
            let name = keys::last_name(&live.row)?.to_vec();
            attributes.push((name, codec::decode_attribute(&live.value)?.to_vec()));
            Ok(())
        })?;
        Ok(attributes)
    }

    pub fn segment(&self, id: ObjectId, segment: u64) -> Result<Option<(Segment, u64)>, TreeError> {
        match self.live(&keys::segment(self.bucket, id, segment))? {
            Some((serial, value)) => Ok(Some((codec::decode_segment(&value)?, serial))),
            None => Ok(None),
        }
    }

    /// Segments from number `from` on: number, blocks, serial. One that is all holes is left out.
    pub fn segments(
        &self,
        id: ObjectId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Segment, u64)>, TreeError> {
        let prefix = keys::of_object(keys::SEGMENT, self.bucket, id);
        let from = keys::segment(self.bucket, id, from);
        let rows = revision::live_rows(self.kv, &from, &prefix.end(), self.at, limit)?;
        let read = |live: &LiveRow| {
            Ok((
                keys::last_number(&live.row)?,
                codec::decode_segment(&live.value)?,
                live.point,
            ))
        };
        rows.iter().map(read).collect()
    }

    /// Follows a path from the root by names; symbolic links are not followed. Empty components count for nothing,
    /// `.` and `..` are not found.
    pub fn resolve(&self, path: &[u8]) -> Result<Option<ObjectId>, TreeError> {
        let mut id = ObjectId::ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match self.lookup(id, name)? {
                Some(child) => id = child,
                None => return Ok(None),
            }
        }
        Ok(Some(id))
    }

    /// A path from the root that leads to the object, without a leading `/` (empty for the root itself). `None` when
    /// there is none.
    pub fn path_of(&self, id: ObjectId) -> Result<Option<Vec<u8>>, TreeError> {
        let mut names = Vec::new();
        let mut below = id;
        while below != ObjectId::ROOT {
            let Some((dir, name)) = self.first_name(below)? else {
                return Ok(None);
            };
            if names.len() == MAX_DEPTH {
                return Ok(None);
            }
            names.push(name);
            below = dir;
        }
        names.reverse();
        Ok(Some(names.join(&b'/')))
    }

    /// Digest, number of objects and their bytes.
    pub fn totals(&self) -> Result<Totals, TreeError> {
        match self.at {
            At::Head => {
                let sums = self.kv.get(&keys::totals(self.bucket))?;
                sums.map_or(Ok(Totals::default()), |value| codec::decode_totals(&value))
            }
            At::Point(0) => Ok(Totals::default()),
            At::Point(point) => {
                let commit = commit::list(self.kv, self.bucket, 0..=point, 1)?
                    .into_iter()
                    .next();
                commit
                    .map(|commit| commit.totals)
                    .ok_or(TreeError::NoPoint(point))
            }
        }
    }

    pub fn digest(&self) -> Result<Digest, TreeError> {
        Ok(self.totals()?.digest)
    }

    /// Whether an object or directory has any rows of this kind.
    pub(super) fn has_rows(&self, first: u8, id: ObjectId) -> Result<bool, TreeError> {
        let prefix = keys::of_object(first, self.bucket, id);
        Ok(!revision::live_rows(self.kv, &prefix, &prefix.end(), self.at, 1)?.is_empty())
    }

    fn first_name(&self, id: ObjectId) -> Result<Option<(ObjectId, Vec<u8>)>, TreeError> {
        let prefix = keys::of_object(keys::BACK_LINK, self.bucket, id);
        let rows = revision::live_rows(self.kv, &prefix, &prefix.end(), self.at, 1)?;
        let name = rows.first().map(|live| back_link(&live.row)).transpose()?;
        Ok(name.map(|(dir, name)| (dir, name.to_vec())))
    }

    fn live(&self, row: &Key) -> Result<Option<(u64, Vec<u8>)>, TreeError> {
        revision::live_value(self.kv, row, self.at)
    }

    /// Sees all live rows of one kind that belong to an object or directory, page by page.
    pub(super) fn each(
        &self,
        first: u8,
        id: ObjectId,
        mut see: impl FnMut(&LiveRow) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        let prefix = keys::of_object(first, self.bucket, id);
        let mut from = prefix.clone();
        loop {
            let page = revision::live_rows(self.kv, &from, &prefix.end(), self.at, PAGE)?;
            page.iter().try_for_each(&mut see)?;
            match page.last() {
                Some(last) if page.len() == PAGE => from = last.row.end(),
                _ => return Ok(()),
            }
        }
    }
}

/// Directory and name that a back link's row speaks of.
pub(super) fn back_link(row: &Key) -> Result<(ObjectId, &[u8]), TreeError> {
    let mut parts = KeyParts::new(row);
    parts.number()?;
    parts.number()?;
    Ok((parts.object()?, parts.name()?))
}
