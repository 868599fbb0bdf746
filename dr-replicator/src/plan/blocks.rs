//! The blocks that a plan's ops name.

use restfs_lib::model::{BlockKey, BlockRef, ObjectId, Op};
use std::collections::{BTreeSet, HashMap};

/// One place that names a block: where to read it from, and what to correct when it is something else by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    /// Index of the op, and of the block within it.
    op: usize,
    index: usize,
    pub(crate) object: ObjectId,
    pub(crate) segment: u64,
    pub(crate) position: u32,
    pub(crate) block: BlockRef,
}

/// What reading a place found, when it is not the block that the change spoke of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Newer(BlockRef),
    Hole,
    /// The object is gone; a later change drops it.
    Gone,
}

/// Every block that a list of ops names, with all its places.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// In the order of the ops, so that a file is read front to back.
    order: Vec<BlockKey>,
    places: HashMap<BlockKey, Vec<BlockPlace>>,
}

impl Blocks {
    pub(crate) fn of(ops: &[Op]) -> Self {
        let mut all = Self::default();
        for (op, named) in ops.iter().enumerate() {
            let Op::PutBlocks { id, segment, blocks } = named else {
                continue;
            };
            for (index, (position, block)) in blocks.iter().enumerate() {
                let Some(block) = *block else { continue };
                all.add(BlockPlace {
                    op,
                    index,
                    object: *id,
                    segment: *segment,
                    position: *position,
                    block,
                });
            }
        }
        all
    }

    /// Each key once.
    pub(crate) fn keys(&self) -> &[BlockKey] {
        &self.order
    }

    /// Plain bytes, each key once.
    pub(crate) fn bytes(&self) -> u64 {
        self.places
            .values()
            .filter_map(|p| p.first())
            .map(|p| u64::from(p.block.length))
            .sum()
    }

    /// Leaves only these, in the old order.
    pub(crate) fn retain(&mut self, keys: &BTreeSet<BlockKey>) {
        self.order.retain(|key| keys.contains(key));
        self.places.retain(|key, _| keys.contains(key));
    }

    /// One place of each block. When that one turns out to be something else by now, the block's [`Self::others`] may
    /// still have it.
    pub(crate) fn firsts(&self) -> Vec<BlockPlace> {
        self.order
            .iter()
            .filter_map(|key| self.places.get(key)?.first().copied())
            .collect()
    }

    /// The next place of the same block after `place`.
    pub(crate) fn after(&self, place: &BlockPlace) -> Option<BlockPlace> {
        let places = self.places.get(&place.block.key)?;
        let at = places.iter().position(|p| p == place)?;
        places.get(at + 1).copied()
    }

    fn add(&mut self, place: BlockPlace) {
        let key = place.block.key;
        let places = self.places.entry(key).or_default();
        if places.is_empty() {
            self.order.push(key);
        }
        places.push(place);
    }
}

/// Corrects `ops` by what was found. A place of a gone object is left out.
pub(crate) fn correct(ops: &mut Vec<Op>, found: &[(BlockPlace, Found)]) {
    let mut gone = Vec::new();
    for (place, found) in found {
        let Some(Op::PutBlocks { blocks, .. }) = ops.get_mut(place.op) else {
            continue;
        };
        let Some((_, block)) = blocks.get_mut(place.index) else {
            continue;
        };
        match found {
            Found::Newer(newer) => *block = Some(*newer),
            Found::Hole => *block = None,
            Found::Gone => gone.push((place.op, place.position)),
        }
    }
    for (op, position) in gone {
        if let Some(Op::PutBlocks { blocks, .. }) = ops.get_mut(op) {
            blocks.retain(|(p, _)| *p != position);
        }
    }
    ops.retain(|op| !matches!(op, Op::PutBlocks { blocks, .. } if blocks.is_empty()));
}
