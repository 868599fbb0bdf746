//! `object.read`, `object.segments`.

use super::Service;
use super::access::{find_bucket, find_object, no_object, tree_at};
use super::object::show;
use crate::auth::{Identity, Need};
use bytes::Bytes;
use restfs_lib::model::{BlockKey, Kind, Object, ObjectId};
use restfs_lib::tree::{Tree, TreeError};
use restfs_lib::wire::method::*;
use restfs_lib::wire::{Code, Content, RpcError, check, segment_to_wire};
use std::ops::Range;

/// Blocks that one `object.segments` names: about 140 bytes each in JSON, half of a message.
const SEGMENT_BLOCKS: usize = 50_000;
/// Segments read from the store at a time.
const SEGMENTS: usize = 64;

pub(super) fn segments(
    service: &Service,
    identity: &Identity,
    params: ObjectSegmentsParams,
) -> Result<ObjectSegmentsResult, RpcError> {
    let limit = check::page(params.limit)?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let tree = tree_at(kv, &bucket, params.point)?;
        let id = find_object(&tree, &params.object)?;
        tree.object(id)?.ok_or_else(|| no_object(&params.object))?;
        collect(&tree, id, params.from, limit)
    })
}

fn collect(
    tree: &Tree<'_>,
    id: ObjectId,
    mut from: u64,
    limit: usize,
) -> Result<ObjectSegmentsResult, RpcError> {
    let mut result = ObjectSegmentsResult {
        segments: Vec::new(),
        more: false,
    };
    let mut blocks = 0;
    loop {
        let found = tree.segments(id, from, SEGMENTS)?;
        let end = found.len() < SEGMENTS;
        for (number, segment, _) in found {
            if result.segments.len() == limit
                || (blocks > 0 && blocks + segment.blocks.len() > SEGMENT_BLOCKS)
            {
                result.more = true;
                return Ok(result);
            }
            blocks += segment.blocks.len();
            result.segments.push(SegmentInfo {
                segment: number,
                blocks: segment_to_wire(segment),
            });
            from = number.saturating_add(1);
        }
        if end {
            return Ok(result);
        }
    }
}

pub(super) fn read(
    service: &Service,
    identity: &Identity,
    params: ObjectReadParams,
) -> Result<ObjectReadResult, RpcError> {
    if params.length > MAX_READ {
        return Err(RpcError::new(
            Code::TooLarge,
            format!("`length` {} is over {MAX_READ}", params.length),
        ));
    }
    let (size, plan) = service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let tree = tree_at(kv, &bucket, params.point)?;
        let id = find_object(&tree, &params.object)?;
        let (object, _) = tree.object(id)?.ok_or_else(|| no_object(&params.object))?;
        if object.kind != Kind::File {
            return Err(RpcError::new(
                Code::Invalid,
                format!("{} is no file", show(&params.object)),
            ));
        }
        let start = params.offset.min(object.size);
        let end = params
            .offset
            .saturating_add(params.length.into())
            .min(object.size);
        Ok((object.size, plan(&tree, id, &object, start..end)?))
    })?;
    let mut content = vec![0; plan.length];
    for piece in plan.pieces {
        let block = service.blocks.get(piece.key)?;
        piece.copy(&block, &mut content);
    }
    Ok(ObjectReadResult {
        content: Content(content.into()),
        size,
    })
}

/// What to copy where; the rest is holes.
struct Plan {
    length: usize,
    pieces: Vec<Piece>,
}

struct Piece {
    key: BlockKey,
    /// Where the range's content starts in the block.
    skip: usize,
    /// Where it goes.
    into: Range<usize>,
}

impl Piece {
    /// A block that is shorter than its place ends in zeros.
    fn copy(&self, block: &Bytes, content: &mut [u8]) {
        let from = block.get(self.skip..).unwrap_or_default();
        let into = content.get_mut(self.into.clone()).unwrap_or_default();
        let length = from.len().min(into.len());
        into[..length].copy_from_slice(&from[..length]);
    }
}

fn plan(tree: &Tree<'_>, id: ObjectId, object: &Object, range: Range<u64>) -> Result<Plan, TreeError> {
    let layout = object.layout;
    let mut plan = Plan {
        length: (range.end - range.start) as usize,
        pieces: Vec::new(),
    };
    if range.is_empty() {
        return Ok(plan);
    }
    let (first, last) = (layout.block_of(range.start), layout.block_of(range.end - 1));
    for number in layout.place_of(first).0..=layout.place_of(last).0 {
        let Some((segment, _)) = tree.segment(id, number)? else {
            continue;
        };
        for (position, block, _) in segment.blocks {
            let index = number * u64::from(layout.segment_blocks) + u64::from(position);
            if !(first..=last).contains(&index) {
                continue;
            }
            let start = layout.offset_of(index);
            let from = start.max(range.start);
            let to = start.saturating_add(layout.block_size.into()).min(range.end);
            let into = (from - range.start) as usize..(to - range.start) as usize;
            plan.pieces.push(Piece {
                key: block.key,
                skip: (from - start) as usize,
                into,
            });
        }
    }
    Ok(plan)
}
