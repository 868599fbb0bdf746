//! The meaning of ops, written down as plainly as can be.

use restfs_lib::model::{BlockRef, Digest, Layout, Object, ObjectId, Op, RowKey, Segment};
use restfs_lib::tree::{Row, group_of, row_digest};
use std::collections::BTreeMap;

/// A tree without history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub objects: BTreeMap<ObjectId, Object>,
    pub attributes: BTreeMap<(ObjectId, Vec<u8>), Vec<u8>>,
    pub entries: BTreeMap<(ObjectId, Vec<u8>), ObjectId>,
    /// Without holes, without empty segments.
    pub segments: BTreeMap<(ObjectId, u64), BTreeMap<u32, BlockRef>>,
}

impl Model {
    /// As a site does it: what cannot be is put in order instead of refused.
    pub fn apply_all(&mut self, ops: &[Op]) {
        for op in ops {
            self.apply(op);
        }
        for (id, object) in self.objects.clone() {
            self.cut(id, object.size, &object.layout);
        }
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::PutObject { id, object } => {
                self.objects.insert(*id, object.clone());
                self.cut(*id, object.size, &object.layout);
            }
            Op::DropObject { id } => {
                self.objects.remove(id);
                self.attributes.retain(|(of, _), _| of != id);
                self.segments.retain(|(of, _), _| of != id);
            }
            Op::PutEntry { dir, name, child } => {
                self.entries.insert((*dir, name.clone()), *child);
            }
            Op::DropEntry { dir, name } => {
                self.entries.remove(&(*dir, name.clone()));
            }
            Op::PutAttribute { id, name, value } => {
                if self.objects.contains_key(id) {
                    self.attributes.insert((*id, name.clone()), value.clone());
                }
            }
            Op::DropAttribute { id, name } => {
                self.attributes.remove(&(*id, name.clone()));
            }
            Op::PutBlocks { id, segment, blocks } => {
                if self.objects.contains_key(id) {
                    self.put_blocks((*id, *segment), blocks);
                }
            }
        }
    }

    /// Digest of every row, as real trees have it.
    pub fn rows(&self) -> BTreeMap<RowKey, Digest> {
        let objects = self.objects.iter().map(|(id, object)| {
            let (id, row) = (*id, Row::Object { id: *id, object });
            (RowKey::Object { id }, row_digest(&row))
        });
        let attributes = self.attributes.iter().map(|((id, name), value)| {
            let (id, row) = (*id, Row::Attribute { id: *id, name, value });
            (
                RowKey::Attribute {
                    id,
                    name: name.clone(),
                },
                row_digest(&row),
            )
        });
        let entries = self.entries.iter().map(|((dir, name), child)| {
            let (dir, row) = (
                *dir,
                Row::Entry {
                    dir: *dir,
                    name,
                    child: *child,
                },
            );
            (
                RowKey::Entry {
                    dir,
                    name: name.clone(),
                },
                row_digest(&row),
            )
        });
        let segments = self.segments.iter().map(|((id, number), blocks)| {
            let blocks = blocks
                .iter()
                .map(|(position, block)| (*position, *block, 0))
                .collect();
            let (id, number, segment) = (*id, *number, &Segment { blocks });
            (
                RowKey::Segment { id, segment: number },
                row_digest(&Row::Segment { id, number, segment }),
            )
        });
        objects.chain(attributes).chain(entries).chain(segments).collect()
    }

    pub fn digest(&self) -> Digest {
        self.groups().into_values().fold(Digest::default(), Digest::plus)
    }

    pub fn groups(&self) -> BTreeMap<u64, Digest> {
        let mut groups: BTreeMap<u64, Digest> = BTreeMap::new();
        for (row, digest) in self.rows() {
            let group = groups.entry(group_of_row(&row)).or_default();
            *group = group.plus(digest);
        }
        groups
    }

    pub fn group_rows(&self, group: u64) -> Vec<(RowKey, Digest)> {
        self.rows()
            .into_iter()
            .filter(|(row, _)| group_of_row(row) == group)
            .collect()
    }

    /// The op that makes a row what it is here.
    pub fn op_for(&self, row: &RowKey) -> Op {
        match row.clone() {
            RowKey::Object { id } => match self.objects.get(&id) {
                Some(object) => Op::PutObject {
                    id,
                    object: object.clone(),
                },
                None => Op::DropObject { id },
            },
            RowKey::Attribute { id, name } => match self.attributes.get(&(id, name.clone())) {
                Some(value) => Op::PutAttribute {
                    id,
                    name,
                    value: value.clone(),
                },
                None => Op::DropAttribute { id, name },
            },
            RowKey::Entry { dir, name } => match self.entries.get(&(dir, name.clone())) {
                Some(child) => Op::PutEntry {
                    dir,
                    name,
                    child: *child,
                },
                None => Op::DropEntry { dir, name },
            },
            RowKey::Segment { id, segment } => {
                let there = self.segments.get(&(id, segment)).cloned().unwrap_or_default();
                let length = self
                    .objects
                    .get(&id)
                    .map_or(0, |object| object.layout.segment_blocks);
                let blocks = (0..length)
                    .map(|position| (position, there.get(&position).copied()))
                    .collect();
                Op::PutBlocks { id, segment, blocks }
            }
        }
    }

    fn put_blocks(&mut self, key: (ObjectId, u64), blocks: &[(u32, Option<BlockRef>)]) {
        let there = self.segments.entry(key).or_default();
        for (position, block) in blocks {
            match block {
                Some(block) => there.insert(*position, *block),
                None => there.remove(position),
            };
        }
        self.segments.retain(|_, blocks| !blocks.is_empty());
    }

    fn cut(&mut self, id: ObjectId, size: u64, layout: &Layout) {
        for ((of, segment), blocks) in &mut self.segments {
            if *of == id {
                blocks.retain(|position, _| layout.offset_of(layout.block_at(*segment, *position)) < size);
            }
        }
        self.segments.retain(|_, blocks| !blocks.is_empty());
    }
}

fn group_of_row(row: &RowKey) -> u64 {
    let (RowKey::Object { id }
    | RowKey::Attribute { id, .. }
    | RowKey::Entry { dir: id, .. }
    | RowKey::Segment { id, .. }) = row;
    group_of(*id)
}
