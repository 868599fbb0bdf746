//! Ops -> rows.

use super::structure::Structure;
use super::write::Rows;
use super::{History, TreeError, valid};
use crate::kv::KvWrite;
use crate::model::{BlockRef, BucketId, Kind, Layout, Object, ObjectId, Op, Segment};
use std::collections::BTreeSet;

/// What a commit as a whole has to be. See [`crate::tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// A replicated bucket: the source is right.
    Mirror,
    /// A client's own write.
    Strict,
}

/// What an op or a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Rows written or removed, without back links and digests. 0: everything was so already.
    pub rows: u64,
}

impl Applied {
    pub fn changed(self) -> bool {
        self.rows > 0
    }
}

/// Applies one op, in the order in which things happened. With `Invalid`, `Structure` and `NoObject` nothing has been
/// written; after any other error the transaction is of no use any more.
pub fn apply(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    point: u64,
    history: History,
    op: &Op,
) -> Result<Applied, TreeError> {
    valid::check(op)?;
    let mut rows = Rows::new(txn, bucket, point, history);
    apply_in_order(&mut rows, op)?;
    Ok(Applied { rows: rows.finish()? })
}

/// Applies the ops of one commit. After an error the transaction is of no use any more.
pub fn apply_all(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    point: u64,
    history: History,
    checks: Checks,
    ops: &[Op],
) -> Result<Applied, TreeError> {
    ops.iter().try_for_each(valid::check)?;
    let mut rows = Rows::new(txn, bucket, point, history);
    match checks {
        Checks::Mirror => mirror(&mut rows, ops)?,
        Checks::Strict => strict(&mut rows, ops)?,
    }
    Ok(Applied { rows: rows.finish()? })
}

fn strict(rows: &mut Rows<'_>, ops: &[Op]) -> Result<(), TreeError> {
    let mut structure = Structure::default();
    for op in ops {
        structure.note(rows, op)?;
        apply_in_order(rows, op)?;
    }
    structure.check(rows)
}

/// Blocks wait until their file is there; what has no place after all ops goes.
fn mirror(rows: &mut Rows<'_>, ops: &[Op]) -> Result<(), TreeError> {
    let mut touched = BTreeSet::new();
    let mut waiting = Vec::new();
    for op in ops {
        match op {
            Op::PutObject { id, object } => mirror_object(rows, *id, object)?,
            Op::PutBlocks { id, segment, blocks } => {
                touched.insert(*id);
                if !mirror_blocks(rows, *id, *segment, blocks)? {
                    waiting.push((*id, *segment, blocks));
                }
            }
            Op::PutAttribute { id, name, value } => {
                touched.insert(*id);
                rows.put_attribute(*id, name, value)?;
            }
            _ => apply_in_order(rows, op)?,
        }
    }
    for (id, segment, blocks) in waiting {
        mirror_blocks(rows, id, segment, blocks)?;
    }
    touched.into_iter().try_for_each(|id| tidy(rows, id))
}

/// An object with another kind or layout is another object with the same id, after the source has lost its
/// catalog: what fits of the blocks stays, since a resync ships only rows that differ.
fn mirror_object(rows: &mut Rows<'_>, id: ObjectId, object: &Object) -> Result<(), TreeError> {
    let old = rows.object(id)?;
    rows.put_object(id, object)?;
    match old {
        Some(old) if !same_cut(&old, object) => fit(rows, id, object),
        Some(old) if object.size < old.size => cut(rows, id, object),
        _ => Ok(()),
    }
}

/// False when there is no file yet that could have blocks.
fn mirror_blocks(
    rows: &mut Rows<'_>,
    id: ObjectId,
    segment: u64,
    blocks: &[(u32, Option<BlockRef>)],
) -> Result<bool, TreeError> {
    match rows.object(id)? {
        Some(object) if object.kind == Kind::File => {
            put_blocks(rows, id, &object.layout, segment, blocks)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn tidy(rows: &mut Rows<'_>, id: ObjectId) -> Result<(), TreeError> {
    match rows.object(id)? {
        Some(object) => cut(rows, id, &object),
        None => {
            rows.drop_attributes(id)?;
            rows.drop_segments(id)
        }
    }
}

fn apply_in_order(rows: &mut Rows<'_>, op: &Op) -> Result<(), TreeError> {
    match op {
        Op::PutObject { id, object } => put_object(rows, *id, object),
        Op::DropObject { id } => rows.drop_object(*id),
        Op::PutEntry { dir, name, child } => rows.set_entry(*dir, name, Some(*child)),
        Op::DropEntry { dir, name } => rows.set_entry(*dir, name, None),
        Op::PutAttribute { id, name, value } => {
            existing(rows, *id)?;
            rows.put_attribute(*id, name, value)
        }
        Op::DropAttribute { id, name } => rows.drop_attribute(*id, name),
        Op::PutBlocks { id, segment, blocks } => {
            let object = existing(rows, *id)?;
            check_place(*id, &object, *segment, blocks)?;
            put_blocks(rows, *id, &object.layout, *segment, blocks)
        }
    }
}

fn put_object(rows: &mut Rows<'_>, id: ObjectId, object: &Object) -> Result<(), TreeError> {
    let old = rows.object(id)?;
    if let Some(old) = &old
        && !same_cut(old, object)
    {
        return structure(format!(
            "object {id} cannot change its kind or how its content is cut"
        ));
    }
    rows.put_object(id, object)?;
    match old {
        Some(old) if object.size < old.size => cut(rows, id, object),
        _ => Ok(()),
    }
}

fn existing(rows: &Rows<'_>, id: ObjectId) -> Result<Object, TreeError> {
    rows.object(id)?.ok_or(TreeError::NoObject(id))
}

/// Blocks belong below the end of a file. Holes may be anywhere.
fn check_place(
    id: ObjectId,
    object: &Object,
    segment: u64,
    blocks: &[(u32, Option<BlockRef>)],
) -> Result<(), TreeError> {
    let Some(last) = blocks
        .iter()
        .filter(|(_, block)| block.is_some())
        .map(|(position, _)| *position)
        .max()
    else {
        return Ok(());
    };
    if object.kind != Kind::File {
        return structure(format!("object {id} is no file and has no content"));
    }
    if object.layout.block_at(segment, last) >= object.layout.blocks_in(object.size) {
        let size = object.size;
        return structure(format!(
            "object {id}: block {last} of segment {segment} is beyond its {size} bytes"
        ));
    }
    Ok(())
}

fn put_blocks(
    rows: &mut Rows<'_>,
    id: ObjectId,
    layout: &Layout,
    segment: u64,
    blocks: &[(u32, Option<BlockRef>)],
) -> Result<(), TreeError> {
    for (position, block) in blocks {
        if let Some(block) = block {
            valid::check_block(id, layout, *position, block)?;
        }
    }
    let point = rows.point();
    rows.change_segment(id, segment, |segment| {
        for (position, block) in blocks {
            put_block(segment, *position, *block, point);
        }
    })
}

/// A block that stays the same keeps its serial.
fn put_block(segment: &mut Segment, position: u32, block: Option<BlockRef>, point: u64) {
    let place = segment
        .blocks
        .binary_search_by_key(&position, |(position, ..)| *position);
    match (place, block) {
        (Ok(at), Some(block)) if segment.blocks[at].1 == block => {}
        (Ok(at), Some(block)) => segment.blocks[at] = (position, block, point),
        (Err(at), Some(block)) => segment.blocks.insert(at, (position, block, point)),
        (Ok(at), None) => drop(segment.blocks.remove(at)),
        (Err(_), None) => {}
    }
}

/// Drops the blocks at or beyond the end.
fn cut(rows: &mut Rows<'_>, id: ObjectId, object: &Object) -> Result<(), TreeError> {
    let end = object.layout.blocks_in(object.size);
    let (first, _) = object.layout.place_of(end);
    rows.keep_blocks(id, &object.layout, first, |block, _| block < end)
}

/// Drops the blocks that the object cannot have.
fn fit(rows: &mut Rows<'_>, id: ObjectId, object: &Object) -> Result<(), TreeError> {
    if object.kind != Kind::File {
        return rows.drop_segments(id);
    }
    let layout = object.layout;
    let end = layout.blocks_in(object.size);
    rows.keep_blocks(id, &layout, 0, |index, block| {
        index < end && block.length <= layout.block_size && block.hash.algorithm() == layout.hash
    })
}

/// Blocks of one are blocks of the other. How they are compressed is the block store's affair.
fn same_cut(a: &Object, b: &Object) -> bool {
    let cut = |layout: &Layout| (layout.block_size, layout.segment_blocks, layout.hash);
    std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind) && cut(&a.layout) == cut(&b.layout)
}

fn structure(text: String) -> Result<(), TreeError> {
    Err(TreeError::Structure(text))
}
