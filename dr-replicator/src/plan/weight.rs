//! How much an op takes.

use restfs_lib::model::{Kind, Op};

/// Member names, ids, times and the like of one op as BSON; an upper estimate.
const OP: usize = 512;
/// One block reference as BSON: position, key, length, hash, and their names.
const BLOCK: usize = 160;

/// Bytes of an op in a commit, an upper estimate.
pub fn weight(op: &Op) -> usize {
    OP + match op {
        Op::PutObject { object, .. } => match &object.kind {
            Kind::Symlink { target } => target.len(),
            _ => 0,
        },
        Op::PutEntry { name, .. } | Op::DropEntry { name, .. } | Op::DropAttribute { name, .. } => name.len(),
        Op::PutAttribute { name, value, .. } => name.len() + value.len(),
        Op::PutBlocks { blocks, .. } => blocks.len() * BLOCK,
        Op::DropObject { .. } => 0,
    }
}

/// Plain bytes of the blocks that an op names.
pub(crate) fn named_bytes(op: &Op) -> u64 {
    match op {
        Op::PutBlocks { blocks, .. } => blocks
            .iter()
            .filter_map(|(_, block)| block.as_ref())
            .map(|b| u64::from(b.length))
            .sum(),
        _ => 0,
    }
}
