//! A tree as plain maps, to compare with.

use super::{At, Tree};
use crate::model::{BlockRef, Digest, Kind, Object, ObjectId, Op, RowKey, Segment};
use crate::tree::{GROUP_OBJECTS, Row, Totals, row_digest};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Default, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) objects: BTreeMap<ObjectId, Object>,
    entries: BTreeMap<(ObjectId, Vec<u8>), ObjectId>,
    attributes: BTreeMap<(ObjectId, Vec<u8>), Vec<u8>>,
    /// By index in the object.
    blocks: BTreeMap<(ObjectId, u64), BlockRef>,
}

impl Model {
    /// One commit, as the replicated bucket takes it.
    pub(super) fn mirror(&mut self, ops: &[Op]) {
        let mut early = Vec::new();
        for op in ops {
            match op {
                Op::PutBlocks { id, .. } if !self.is_file(*id) => early.push(op),
                op => self.apply(op),
            }
        }
        for op in early {
            if self.has_file(op) {
                self.apply(op);
            }
        }
        let objects = self.objects.clone();
        self.attributes.retain(|(id, _), _| objects.contains_key(id));
        self.blocks
            .retain(|(id, index), _| objects.get(id).is_some_and(|object| *index < blocks_in(object)));
    }

    fn is_file(&self, id: ObjectId) -> bool {
        self.objects
            .get(&id)
            .is_some_and(|object| object.kind == Kind::File)
    }

    fn has_file(&self, op: &Op) -> bool {
        matches!(op, Op::PutBlocks { id, .. } if self.is_file(*id))
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::PutObject { id, object } => {
                let old = self.objects.insert(*id, object.clone());
                if old.is_some_and(|old| object.kind != old.kind || object.size < old.size) {
                    self.blocks
                        .retain(|(owner, index), _| owner != id || *index < blocks_in(object));
                }
            }
            Op::DropObject { id } => {
                self.objects.remove(id);
                self.attributes.retain(|(owner, _), _| owner != id);
                self.blocks.retain(|(owner, _), _| owner != id);
            }
            Op::PutEntry { dir, name, child } => drop(self.entries.insert((*dir, name.clone()), *child)),
            Op::DropEntry { dir, name } => drop(self.entries.remove(&(*dir, name.clone()))),
            Op::PutAttribute { id, name, value } => {
                self.attributes.insert((*id, name.clone()), value.clone());
            }
            Op::DropAttribute { id, name } => drop(self.attributes.remove(&(*id, name.clone()))),
            Op::PutBlocks { id, segment, blocks } => self.put_blocks(*id, *segment, blocks),
        }
    }

    fn put_blocks(&mut self, id: ObjectId, segment: u64, blocks: &[(u32, Option<BlockRef>)]) {
        for (position, block) in blocks {
            let index = segment * u64::from(super::LAYOUT.segment_blocks) + u64::from(*position);
            match block {
                Some(block) => drop(self.blocks.insert((id, index), *block)),
                None => drop(self.blocks.remove(&(id, index))),
            }
        }
    }

    fn segments(&self) -> BTreeMap<(ObjectId, u64), Segment> {
        let mut segments: BTreeMap<_, Segment> = BTreeMap::new();
        let per_segment = u64::from(super::LAYOUT.segment_blocks);
        for ((id, index), block) in &self.blocks {
            let segment = segments.entry((*id, index / per_segment)).or_default();
            segment.blocks.push(((index % per_segment) as u32, *block, 0));
        }
        segments
    }

    /// Every live row with its digest, in the order of their keys.
    pub(super) fn rows(&self) -> BTreeMap<RowKey, Digest> {
        let mut rows = BTreeMap::new();
        for (id, object) in &self.objects {
            rows.insert(
                RowKey::Object { id: *id },
                row_digest(&Row::Object { id: *id, object }),
            );
        }
        for ((id, name), value) in &self.attributes {
            let row = Row::Attribute { id: *id, name, value };
            rows.insert(
                RowKey::Attribute {
                    id: *id,
                    name: name.clone(),
                },
                row_digest(&row),
            );
        }
        for ((dir, name), child) in &self.entries {
            let row = Row::Entry {
                dir: *dir,
                name,
                child: *child,
            };
            rows.insert(
                RowKey::Entry {
                    dir: *dir,
                    name: name.clone(),
                },
                row_digest(&row),
            );
        }
        for ((id, number), segment) in &self.segments() {
            let row = Row::Segment {
                id: *id,
                number: *number,
                segment,
            };
            rows.insert(
                RowKey::Segment {
                    id: *id,
                    segment: *number,
                },
                row_digest(&row),
            );
        }
        rows
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            digest: self.rows().into_values().fold(Digest::ZERO, Digest::plus),
            objects: self.objects.len() as u64,
            bytes: self.objects.values().map(|object| object.size).sum(),
        }
    }

    /// Everything that can be read at a point, for the ids that are in play. Pages of `page` rows.
    pub(super) fn compare(&self, tree: &Tree<'_>, ids: &[ObjectId], page: usize, newest: u64) {
        for id in ids {
            let read = tree.object(*id).unwrap();
            assert_eq!(read.as_ref().map(|(object, _)| object), self.objects.get(id));
            assert!(read.is_none_or(|(_, serial)| (1..=newest).contains(&serial)));
            self.compare_entries(tree, *id, page);
            self.compare_attributes(tree, *id);
            self.compare_segments(tree, *id, page, newest);
            let names: Vec<_> = self
                .entries
                .iter()
                .filter(|(_, child)| *child == id)
                .map(|(key, _)| key.clone())
                .collect();
            assert_eq!(tree.names(*id).unwrap(), names);
            let own = self.rows().into_iter().filter(|(row, _)| owner(row) == *id);
            let digest = own.map(|(_, digest)| digest).fold(Digest::ZERO, Digest::plus);
            assert_eq!(tree.object_digest(*id).unwrap(), digest);
        }
    }

    fn compare_entries(&self, tree: &Tree<'_>, dir: ObjectId, page: usize) {
        let mut entries = Vec::new();
        loop {
            let after = entries.last().map(|(name, _): &(Vec<u8>, _)| name.clone());
            let found = tree.entries(dir, after.as_deref(), page).unwrap();
            assert!(found.len() <= page);
            let full = found.len() == page;
            entries.extend(found);
            if !full {
                break;
            }
        }
        let expected = self.entries.iter().filter(|((owner, _), _)| *owner == dir);
        let expected: Vec<_> = expected
            .map(|((_, name), child)| (name.clone(), *child))
            .collect();
        assert_eq!(entries, expected);
        for (name, child) in expected {
            assert_eq!(tree.lookup(dir, &name).unwrap(), Some(child));
        }
    }

    fn compare_attributes(&self, tree: &Tree<'_>, id: ObjectId) {
        let expected = self.attributes.iter().filter(|((owner, _), _)| *owner == id);
        let expected: Vec<_> = expected
            .map(|((_, name), value)| (name.clone(), value.clone()))
            .collect();
        assert_eq!(tree.attributes(id).unwrap(), expected);
        for (name, value) in expected {
            assert_eq!(tree.attribute(id, &name).unwrap(), Some(value));
        }
    }

    fn compare_segments(&self, tree: &Tree<'_>, id: ObjectId, page: usize, newest: u64) {
        let mut found = BTreeMap::new();
        let mut from = 0;
        loop {
            let segments = tree.segments(id, from, page).unwrap();
            let full = segments.len() == page;
            for (number, segment, serial) in segments {
                assert_eq!(tree.segment(id, number).unwrap(), Some((segment.clone(), serial)));
                // A block is at least as old as the row that it is in, and was in it when it was put.
                assert!(serial <= newest && segment.blocks.iter().all(|(.., of_block)| *of_block <= serial));
                found.insert((id, number), without_serials(segment));
                from = number + 1;
            }
            if !full {
                break;
            }
        }
        let mut expected = self.segments();
        expected.retain(|(owner, _), _| *owner == id);
        assert_eq!(found, expected);
    }

    /// Digests of groups and rows at the head.
    pub(super) fn compare_groups(&self, tree: &Tree<'_>, page: usize) {
        let mut groups: BTreeMap<u64, Digest> = BTreeMap::new();
        let rows = self.rows();
        for (row, digest) in &rows {
            let group = groups.entry(owner(row).0 / GROUP_OBJECTS).or_default();
            *group = group.plus(*digest);
        }
        assert_eq!(
            tree.groups(None, usize::MAX).unwrap(),
            Vec::from_iter(groups.clone())
        );
        let first = groups.keys().next().copied();
        let behind_first: Vec<_> = groups.clone().into_iter().skip(1).collect();
        assert_eq!(
            first
                .map(|first| tree.groups(Some(first), usize::MAX).unwrap())
                .unwrap_or_default(),
            behind_first
        );
        let mut found = Vec::new();
        for group in groups.keys() {
            found.extend(rows_in_pages(tree, *group, page));
        }
        assert_eq!(found.len(), rows.len());
        assert_eq!(BTreeMap::from_iter(found), rows);
        assert_eq!(tree.totals().unwrap(), self.totals());
    }
}

fn rows_in_pages(tree: &Tree<'_>, group: u64, page: usize) -> Vec<(RowKey, Digest)> {
    let mut found: Vec<(RowKey, Digest)> = Vec::new();
    loop {
        let rows = tree.rows(group, found.last().map(|(row, _)| row), page).unwrap();
        let full = rows.len() == page;
        found.extend(rows);
        if !full {
            assert!(found.is_sorted_by_key(|(row, _)| row));
            return found;
        }
    }
}

fn without_serials(mut segment: Segment) -> Segment {
    segment.blocks.iter_mut().for_each(|(.., serial)| *serial = 0);
    segment
}

fn owner(row: &RowKey) -> ObjectId {
    match row {
        RowKey::Object { id } | RowKey::Attribute { id, .. } | RowKey::Segment { id, .. } => *id,
        RowKey::Entry { dir, .. } => *dir,
    }
}

fn blocks_in(object: &Object) -> u64 {
    object.layout.blocks_in(object.size)
}

/// The ids that a set of ops speaks of.
pub(super) fn ids_of(ops: &[Op]) -> Vec<ObjectId> {
    let mut ids = BTreeSet::new();
    for op in ops {
        match op {
            Op::PutObject { id, .. }
            | Op::DropObject { id }
            | Op::PutAttribute { id, .. }
            | Op::DropAttribute { id, .. }
            | Op::PutBlocks { id, .. } => drop(ids.insert(*id)),
            Op::DropEntry { dir, .. } => drop(ids.insert(*dir)),
            Op::PutEntry { dir, child, .. } => ids.extend([*dir, *child]),
        }
    }
    ids.into_iter().collect()
}

pub(super) fn head_and_points(points: u64) -> impl Iterator<Item = At> {
    std::iter::once(At::Head).chain((0..=points).map(At::Point))
}
