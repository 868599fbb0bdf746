//! The rows of one transaction: the one place that writes them, with back links, digests and sums.

use super::codec::{self, PRESENT, TOMBSTONE};
use super::digest::{Row, Totals, group_of, row_digest};
use super::keys::{self, Key};
use super::revision::{self, InForce, LiveRow};
use super::{At, TreeError};
use crate::kv::{KvRead, KvWrite};
use crate::model::{BlockRef, BucketId, Digest, Layout, Object, ObjectId, Segment};
use std::collections::BTreeMap;

/// What becomes of a row's older revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// They stay: every earlier point can be read.
    Keep,
    /// They go: only the head can be read.
    HeadOnly,
}

/// Rows that a removal works on at once.
const SWEEP: usize = 256;

/// Rows are written at once, digests and sums with [`Rows::finish`].
pub(super) struct Rows<'a> {
    txn: &'a mut dyn KvWrite,
    bucket: BucketId,
    point: u64,
    history: History,
    /// What the groups' digests grew by.
    groups: BTreeMap<u64, Digest>,
    /// What the sums grew by, each modulo its range.
    totals: Totals,
    written: u64,
}

impl<'a> Rows<'a> {
    pub(super) fn new(txn: &'a mut dyn KvWrite, bucket: BucketId, point: u64, history: History) -> Self {
        let (groups, totals) = Default::default();
        Self {
            txn,
            bucket,
            point,
            history,
            groups,
            totals,
            written: 0,
        }
    }

    pub(super) fn kv(&self) -> &dyn KvRead {
        &*self.txn
    }

    pub(super) fn bucket(&self) -> BucketId {
        self.bucket
    }

    /// Writes digests and sums; the number of rows written.
    pub(super) fn finish(self) -> Result<u64, TreeError> {
        for (group, change) in self.groups.iter().filter(|(_, change)| **change != Digest::ZERO) {
            let key = keys::group(self.bucket, *group);
            let old = self
                .txn
                .get(&key)?
                .map_or(Ok(Digest::ZERO), |bytes| codec::decode_group(&bytes))?;
            match old.plus(*change) {
                Digest::ZERO => self.txn.delete(&key)?,
                digest => self.txn.put(&key, &codec::encode_group(digest))?,
            }
        }
        if self.totals != Totals::default() {
            let key = keys::totals(self.bucket);
            let old = self
                .txn
                .get(&key)?
                .map_or(Ok(Totals::default()), |bytes| codec::decode_totals(&bytes))?;
            self.txn.put(&key, &codec::encode_totals(old.plus(self.totals)))?;
        }
        Ok(self.written)
    }

    pub(super) fn object(&self, id: ObjectId) -> Result<Option<Object>, TreeError> {
        let live = revision::live_value(self.kv(), &keys::object(self.bucket, id), At::Head)?;
        live.map(|(_, value)| codec::decode_object(&value)).transpose()
    }

    pub(super) fn put_object(&mut self, id: ObjectId, object: &Object) -> Result<(), TreeError> {
        let row = keys::object(self.bucket, id);
        let in_force = self.in_force(&row)?;
        let old = live(&in_force).map(codec::decode_object).transpose()?;
        if self.set(&row, &in_force, Some(&codec::encode_object(object)))? {
            self.uncount_object(id, old.as_ref());
            self.count(id, &Row::Object { id, object });
            self.totals = self.totals.plus(Totals {
                objects: 1,
                bytes: object.size,
                ..Totals::default()
            });
        }
        Ok(())
    }

    pub(super) fn drop_object(&mut self, id: ObjectId) -> Result<(), TreeError> {
        let row = keys::object(self.bucket, id);
        let in_force = self.in_force(&row)?;
        let old = live(&in_force).map(codec::decode_object).transpose()?;
        self.set(&row, &in_force, None)?;
        self.uncount_object(id, old.as_ref());
        self.drop_attributes(id)?;
        self.drop_segments(id)
    }

    pub(super) fn put_attribute(&mut self, id: ObjectId, name: &[u8], value: &[u8]) -> Result<(), TreeError> {
        self.set_attribute(id, name, Some(value))
    }

    pub(super) fn drop_attribute(&mut self, id: ObjectId, name: &[u8]) -> Result<(), TreeError> {
        self.set_attribute(id, name, None)
    }

    pub(super) fn drop_attributes(&mut self, id: ObjectId) -> Result<(), TreeError> {
        self.sweep(keys::ATTRIBUTE, id, |rows, live| {
            let name = keys::last_name(&live.row)?;
            rows.drop_attribute(id, name)
        })
    }

    fn set_attribute(&mut self, id: ObjectId, name: &[u8], value: Option<&[u8]>) -> Result<(), TreeError> {
        let row = keys::attribute(self.bucket, id, name);
        let in_force = self.in_force(&row)?;
        let encoded = value.map(codec::encode_attribute);
        if !self.set(&row, &in_force, encoded.as_deref())? {
            return Ok(());
        }
        if let Some(old) = live(&in_force) {
            let value = codec::decode_attribute(old)?;
            self.uncount(id, &Row::Attribute { id, name, value });
        }
        if let Some(value) = value {
            self.count(id, &Row::Attribute { id, name, value });
        }
        Ok(())
    }

    /// `None`: removes the entry.
    pub(super) fn set_entry(
        &mut self,
        dir: ObjectId,
        name: &[u8],
        child: Option<ObjectId>,
    ) -> Result<(), TreeError> {
        let row = keys::entry(self.bucket, dir, name);
        let in_force = self.in_force(&row)?;
        let encoded = child.map(codec::encode_child);
        if !self.set(&row, &in_force, encoded.as_deref())? {
            return Ok(());
        }
        if let Some(old) = live(&in_force).map(codec::decode_child).transpose()? {
            self.uncount(
                dir,
                &Row::Entry {
                    dir,
                    name,
                    child: old,
                },
            );
            self.set_back_link(old, dir, name, false)?;
        }
        if let Some(child) = child {
            self.count(dir, &Row::Entry { dir, name, child });
            self.set_back_link(child, dir, name, true)?;
        }
        Ok(())
    }

    fn set_back_link(
        &mut self,
        child: ObjectId,
        dir: ObjectId,
        name: &[u8],
        present: bool,
    ) -> Result<(), TreeError> {
        let row = keys::back_link(self.bucket, child, dir, name);
        let in_force = self.in_force(&row)?;
        let written = self.written;
        self.set(&row, &in_force, present.then_some(&PRESENT[..]))?;
        // It belongs to the entry's row.
        self.written = written;
        Ok(())
    }

    /// Changes a segment's blocks with `change`.
    pub(super) fn change_segment(
        &mut self,
        id: ObjectId,
        number: u64,
        change: impl FnOnce(&mut Segment),
    ) -> Result<(), TreeError> {
        let row = keys::segment(self.bucket, id, number);
        let in_force = self.in_force(&row)?;
        let old = live(&in_force)
            .map(codec::decode_segment)
            .transpose()?
            .unwrap_or_default();
        let mut new = old.clone();
        change(&mut new);
        let encoded = (!new.blocks.is_empty()).then(|| codec::encode_segment(&new));
        if !self.set(&row, &in_force, encoded.as_deref())? {
            return Ok(());
        }
        for (segment, sign) in [(&old, Sign::Minus), (&new, Sign::Plus)] {
            if !segment.blocks.is_empty() {
                self.add(id, &Row::Segment { id, number, segment }, sign);
            }
        }
        Ok(())
    }

    /// Keeps of each segment from `first` on the blocks that `keep` says: by index in the object.
    pub(super) fn keep_blocks(
        &mut self,
        id: ObjectId,
        layout: &Layout,
        first: u64,
        keep: impl Fn(u64, &BlockRef) -> bool,
    ) -> Result<(), TreeError> {
        let from = keys::segment(self.bucket, id, first);
        self.sweep_from(keys::SEGMENT, id, from, |rows, live| {
            let number = keys::last_number(&live.row)?;
            rows.change_segment(id, number, |segment| {
                segment.blocks.retain(|(position, block, _)| {
                    *position < layout.segment_blocks && keep(layout.block_at(number, *position), block)
                });
            })
        })
    }

    pub(super) fn drop_segments(&mut self, id: ObjectId) -> Result<(), TreeError> {
        self.sweep(keys::SEGMENT, id, |rows, live| {
            let number = keys::last_number(&live.row)?;
            rows.change_segment(id, number, |segment| segment.blocks.clear())
        })
    }

    pub(super) fn point(&self) -> u64 {
        self.point
    }

    fn sweep(
        &mut self,
        first: u8,
        id: ObjectId,
        each: impl FnMut(&mut Self, &LiveRow) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        let from = keys::of_object(first, self.bucket, id);
        self.sweep_from(first, id, from, each)
    }

    /// Runs `each` on an object's live rows of one kind, page by page.
    fn sweep_from(
        &mut self,
        first: u8,
        id: ObjectId,
        mut from: Key,
        mut each: impl FnMut(&mut Self, &LiveRow) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        let end = keys::of_object(first, self.bucket, id).end();
        loop {
            let page = revision::live_rows(self.kv(), &from, &end, At::Head, SWEEP)?;
            for live in &page {
                each(self, live)?;
            }
            match page.last() {
                Some(last) if page.len() == SWEEP => from = last.row.end(),
                _ => return Ok(()),
            }
        }
    }

    fn in_force(&self, row: &Key) -> Result<InForce, TreeError> {
        revision::in_force(self.kv(), row, At::Head)
    }

    /// Makes the row's value this one; `None` removes the row. False when it was so already.
    fn set(&mut self, row: &Key, in_force: &InForce, value: Option<&[u8]>) -> Result<bool, TreeError> {
        if live(in_force) == value {
            return Ok(false);
        }
        if let Some((revision, _)) = *in_force {
            if revision > self.point {
                return Err(TreeError::OldPoint {
                    point: self.point,
                    revision,
                });
            }
            if self.history == History::HeadOnly && (revision < self.point || value.is_none()) {
                self.txn.delete(&keys::revision(row, revision))?;
            }
        }
        let stored = match self.history {
            History::Keep => Some(value.unwrap_or(&TOMBSTONE)),
            History::HeadOnly => value,
        };
        if let Some(stored) = stored {
            self.txn.put(&keys::revision(row, self.point), stored)?;
        }
        self.written += 1;
        Ok(true)
    }

    fn uncount_object(&mut self, id: ObjectId, object: Option<&Object>) {
        if let Some(object) = object {
            self.uncount(id, &Row::Object { id, object });
            self.totals = self.totals.minus(Totals {
                objects: 1,
                bytes: object.size,
                ..Totals::default()
            });
        }
    }

    fn count(&mut self, owner: ObjectId, row: &Row<'_>) {
        self.add(owner, row, Sign::Plus);
    }

    fn uncount(&mut self, owner: ObjectId, row: &Row<'_>) {
        self.add(owner, row, Sign::Minus);
    }

    fn add(&mut self, owner: ObjectId, row: &Row<'_>, sign: Sign) {
        let digest = match sign {
            Sign::Plus => row_digest(row),
            Sign::Minus => Digest::ZERO.minus(row_digest(row)),
        };
        let group = self.groups.entry(group_of(owner)).or_default();
        *group = group.plus(digest);
        self.totals.digest = self.totals.digest.plus(digest);
    }
}

#[derive(Clone, Copy)]
enum Sign {
    Plus,
    Minus,
}

fn live(in_force: &InForce) -> Option<&[u8]> {
    in_force.as_ref().and_then(|(_, value)| value.as_deref())
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        Self {
            digest: self.digest.plus(other.digest),
            objects: self.objects.wrapping_add(other.objects),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            digest: self.digest.minus(other.digest),
            objects: self.objects.wrapping_sub(other.objects),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }
}
