//! Which rows of a group are to be made equal, and what it takes.

use super::merge::Side;
use restfs_lib::model::{BlockRef, ObjectId, Op, RowKey};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Rows of one group. The sets of objects have at most the group's 1,024 ids.
#[derive(Default)]
pub(super) struct Wanted {
    rows: Vec<RowKey>,
    /// Object rows among `rows`.
    asked: HashSet<ObjectId>,
    /// Segments that the site has, too, with other blocks. It may have some where the source's segment has ended.
    segments_there: HashSet<(ObjectId, u64)>,
    /// Objects that the source no longer has: dropped as a whole.
    gone: HashSet<ObjectId>,
}

impl Wanted {
    /// Rows come in the order of [`RowKey`]: objects before what belongs to them.
    pub(super) fn add(&mut self, row: RowKey, side: Side) {
        match &row {
            RowKey::Object { id } => self.add_object(*id, side),
            RowKey::Entry { .. } if side == Side::Equal => {}
            RowKey::Entry { .. } => self.rows.push(row),
            RowKey::Attribute { id, .. } => {
                if self.wants_part(*id, side) {
                    self.rows.push(row);
                }
            }
            RowKey::Segment { id, segment } => self.add_segment(*id, *segment, side),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What to ask the source for.
    pub(super) fn take_rows(&mut self) -> Vec<RowKey> {
        self.asked.clear();
        std::mem::take(&mut self.rows)
    }

    /// What the source answered, with segments that name every position, so that no old block stays behind.
    pub(super) fn complete(&mut self, ops: Vec<Op>) -> Vec<Op> {
        let segment_blocks: HashMap<_, _> = ops
            .iter()
            .filter_map(|op| match op {
                Op::PutObject { id, object } => Some((*id, object.layout.segment_blocks)),
                _ => None,
            })
            .collect();
        let mut complete = Vec::with_capacity(ops.len());
        for op in ops {
            match op {
                Op::PutBlocks { id, segment, blocks } => {
                    self.segments_there.remove(&(id, segment));
                    let blocks = whole_segment(blocks, segment_blocks.get(&id).copied().unwrap_or(0));
                    complete.push(Op::PutBlocks { id, segment, blocks });
                }
                op => complete.push(op),
            }
        }
        complete.extend(self.emptied(&segment_blocks));
        complete
    }

    fn add_object(&mut self, id: ObjectId, side: Side) {
        if side == Side::Equal {
            return;
        }
        if side == Side::There {
            self.gone.insert(id);
        }
        self.ask_object(id);
    }

    fn add_segment(&mut self, id: ObjectId, segment: u64, side: Side) {
        if !self.wants_part(id, side) {
            return;
        }
        if matches!(side, Side::There | Side::Both) {
            self.segments_there.insert((id, segment));
        }
        // Its properties tell how long a segment is.
        self.ask_object(id);
        self.rows.push(RowKey::Segment { id, segment });
    }

    /// Attributes and segments go with their object.
    fn wants_part(&self, id: ObjectId, side: Side) -> bool {
        side != Side::Equal && !self.gone.contains(&id)
    }

    fn ask_object(&mut self, id: ObjectId) {
        if self.asked.insert(id) {
            self.rows.push(RowKey::Object { id });
        }
    }

    /// Holes for the site's segments of which the source has nothing left to say.
    fn emptied(&mut self, segment_blocks: &HashMap<ObjectId, u32>) -> Vec<Op> {
        std::mem::take(&mut self.segments_there)
            .into_iter()
            .filter_map(|(id, segment)| {
                let blocks = whole_segment(Vec::new(), *segment_blocks.get(&id)?);
                Some(Op::PutBlocks { id, segment, blocks })
            })
            .collect()
    }
}

/// The same blocks, with a hole at each position up to `length` that is not named.
fn whole_segment(blocks: Vec<(u32, Option<BlockRef>)>, length: u32) -> Vec<(u32, Option<BlockRef>)> {
    let mut whole: BTreeMap<u32, Option<BlockRef>> = (0..length).map(|position| (position, None)).collect();
    whole.extend(blocks);
    whole.into_iter().collect()
}
