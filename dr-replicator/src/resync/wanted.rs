//! Which rows of a group are to be made equal, and what it takes.

use super::merge::Side;
use restfs_lib::model::{BlockRef, ObjectId, Op, RowKey};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Rows of one group. The sets of objects have at most the group's 1,024 ids.
pub(super) struct Wanted {
    /// The site's tree is another source's.
    foreign: bool,
    rows: Vec<RowKey>,
    /// Object rows among `rows`.
    asked: HashSet<ObjectId>,
    /// Segments that the site has, too, with other blocks. It may have some where the source's segment has ended.
    segments_there: HashSet<(ObjectId, u64)>,
    /// Objects that the source no longer has: dropped as a whole.
    gone: HashSet<ObjectId>,
    /// Objects that the site has under the same id with other properties, perhaps as another kind: sent whole.
    replaced: HashSet<ObjectId>,
    /// Of those, the ones still to be dropped at the site first.
    undropped: HashSet<ObjectId>,
}

impl Wanted {
    pub(super) fn new(foreign: bool) -> Self {
        Self {
            foreign,
            rows: Vec::new(),
            asked: HashSet::new(),
            segments_there: HashSet::new(),
            gone: HashSet::new(),
            replaced: HashSet::new(),
            undropped: HashSet::new(),
        }
    }

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

    /// What the source answered, made to work on the site's rows: segments name every position, so that no old block
    /// stays behind, and what is replaced is dropped first.
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
                Op::PutObject { id, .. } if self.undropped.remove(&id) => {
                    complete.extend([Op::DropObject { id }, op]);
                }
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
        match side {
            Side::Equal => return,
            Side::Here => {}
            Side::There => {
                self.gone.insert(id);
            }
            Side::Both if self.foreign && id != ObjectId::ROOT => {
                self.replaced.insert(id);
                self.undropped.insert(id);
            }
            Side::Both => {}
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
        if self.gone.contains(&id) {
            return false;
        }
        match self.replaced.contains(&id) {
            true => side != Side::There,
            false => side != Side::Equal,
        }
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
