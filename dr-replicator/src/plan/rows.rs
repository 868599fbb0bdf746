//! Coalescing: many ops on the same rows become one.

use super::Differences;
use crate::source::Change;
use restfs_lib::content::Difference;
use restfs_lib::model::{BlockRef, Layout, Object, ObjectId, Op};
use std::collections::{BTreeMap, BTreeSet};

/// The newest state of every row that a run of ops touches. Applied in one transaction, [`Rows::into_ops`] makes the
/// tree that the ops would have made one by one.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    objects: BTreeMap<ObjectId, Pending>,
    dropped: BTreeSet<ObjectId>,
    /// `None`: the name is dropped.
    entries: BTreeMap<(ObjectId, Vec<u8>), Option<ObjectId>>,
}

/// What is to be put on one object.
#[derive(Debug, Default)]
struct Pending {
    object: Option<Object>,
    /// Smallest size it had on the way: what lay beyond is gone, though the object may have grown again.
    smallest: Option<u64>,
    /// `None`: the attribute is dropped.
    attributes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Segment -> position -> what is to be there.
    segments: BTreeMap<u64, BTreeMap<u32, Place>>,
}

#[derive(Debug)]
struct Place {
    /// `None`: a hole.
    block: Option<BlockRef>,
    /// From the block that was there before the first of the changes. A site that has all changes before these has that
    /// one.
    since: Option<Difference>,
}

impl Rows {
    /// An object that was dropped here cannot come back in the same commit, since drops are done last. (Object ids are
    /// not used again, so a source never does this; the next commit could.)
    pub(crate) fn accepts(&self, op: &Op) -> bool {
        match op {
            Op::PutObject { id, .. }
            | Op::PutAttribute { id, .. }
            | Op::DropAttribute { id, .. }
            | Op::PutBlocks { id, .. } => !self.dropped.contains(id),
            Op::PutEntry { dir, child, .. } => !self.dropped.contains(dir) && !self.dropped.contains(child),
            Op::DropEntry { .. } | Op::DropObject { .. } => true,
        }
    }

    pub(crate) fn add(&mut self, change: &Change) {
        match change.op.clone() {
            Op::PutObject { id, object } => self.pending(id).put(object),
            Op::DropObject { id } => {
                self.objects.remove(&id);
                self.dropped.insert(id);
            }
            Op::PutEntry { dir, name, child } => {
                self.entries.insert((dir, name), Some(child));
            }
            Op::DropEntry { dir, name } => {
                self.entries.insert((dir, name), None);
            }
            Op::PutAttribute { id, name, value } => {
                self.pending(id).attributes.insert(name, Some(value));
            }
            Op::DropAttribute { id, name } => {
                self.pending(id).attributes.insert(name, None);
            }
            Op::PutBlocks { id, segment, blocks } => {
                let places = self.pending(id).segments.entry(segment).or_default();
                for (position, block) in blocks {
                    let mut since = change.since.iter().filter(|(p, _)| *p == position);
                    let since = since.next().map(|(_, since)| since);
                    let place = Place::after(places.get(&position), block, since);
                    places.insert(position, place);
                }
            }
        }
    }

    /// Objects before the names that lead to them, names dropped before names put (a directory has one name), objects
    /// dropped when no name leads to them any more.
    pub(crate) fn into_ops(self) -> (Vec<Op>, Differences) {
        let (mut ops, mut differences) = (Vec::new(), Differences::new());
        for (id, pending) in self.objects {
            pending.into_ops(id, &mut ops, &mut differences);
        }
        let (put, dropped): (Vec<_>, Vec<_>) = self.entries.into_iter().partition(|(_, c)| c.is_some());
        ops.extend(
            dropped
                .into_iter()
                .map(|((dir, name), _)| Op::DropEntry { dir, name }),
        );
        ops.extend(put.into_iter().filter_map(|((dir, name), child)| {
            let child = child?;
            Some(Op::PutEntry { dir, name, child })
        }));
        ops.extend(self.dropped.into_iter().map(|id| Op::DropObject { id }));
        (ops, differences)
    }

    fn pending(&mut self, id: ObjectId) -> &mut Pending {
        self.objects.entry(id).or_default()
    }
}

impl Pending {
    fn put(&mut self, object: Object) {
        self.cut(object.size, &object.layout);
        self.smallest = Some(self.smallest.map_or(object.size, |s| s.min(object.size)));
        self.object = Some(object);
    }

    /// Forgets blocks at or beyond `size`.
    fn cut(&mut self, size: u64, layout: &Layout) {
        let blocks = size.div_ceil(u64::from(layout.block_size.max(1)));
        let per_segment = u64::from(layout.segment_blocks.max(1));
        let (last, within) = (blocks / per_segment, blocks % per_segment);
        self.segments.retain(|segment, positions| {
            if *segment == last {
                positions.retain(|position, _| u64::from(*position) < within);
            }
            *segment <= last && !positions.is_empty()
        });
    }

    fn into_ops(self, id: ObjectId, ops: &mut Vec<Op>, differences: &mut Differences) {
        if let Some(object) = self.object {
            if let Some(size) = self.smallest.filter(|s| *s < object.size) {
                ops.push(Op::PutObject {
                    id,
                    object: Object {
                        size,
                        ..object.clone()
                    },
                });
            }
            ops.push(Op::PutObject { id, object });
        }
        ops.extend(self.attributes.into_iter().map(|(name, value)| match value {
            Some(value) => Op::PutAttribute { id, name, value },
            None => Op::DropAttribute { id, name },
        }));
        for (segment, places) in self.segments {
            let mut blocks = Vec::with_capacity(places.len());
            for (position, place) in places {
                blocks.push((position, place.block));
                if let (Some(block), Some(since)) = (place.block, place.since) {
                    differences.insert(block.key, since);
                }
            }
            ops.push(Op::PutBlocks { id, segment, blocks });
        }
    }
}

impl Place {
    /// `before`: what an earlier one of the changes put there.
    fn after(before: Option<&Self>, block: Option<BlockRef>, since: Option<&Difference>) -> Self {
        let since = match before {
            None => since.cloned(),
            Some(before) => match (&before.since, before.block, since) {
                (Some(earlier), Some(between), Some(later)) if later.base == between.key => {
                    Some(earlier.then(later))
                }
                _ => None,
            },
        };
        Self { block, since }
    }
}
