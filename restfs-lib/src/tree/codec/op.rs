//! Ops, for a log of changes in a store.

use super::row::{BlockRow, ObjectRow};
use super::{decode, encode};
use crate::model::{BlockRef, Object, ObjectId, Op};
use crate::tree::TreeError;
use serde::{Deserialize, Serialize};

/// Variants are numbered in this order.
#[derive(Serialize, Deserialize)]
enum OpRow {
    PutObject(u64, ObjectRow),
    DropObject(u64),
    PutEntry(u64, Bytes, u64),
    DropEntry(u64, Bytes),
    PutAttribute(u64, Bytes, Bytes),
    DropAttribute(u64, Bytes),
    PutBlocks(u64, u64, Vec<(u32, Option<BlockRow>)>),
}

#[derive(Serialize, Deserialize)]
struct Bytes(#[serde(with = "serde_bytes")] Vec<u8>);

pub fn encode_op(op: &Op) -> Vec<u8> {
    encode(&OpRow::from(op))
}

pub fn decode_op(bytes: &[u8]) -> Result<Op, TreeError> {
    decode::<OpRow>(bytes, "an op").map(Op::from)
}

impl From<&Op> for OpRow {
    fn from(op: &Op) -> Self {
        let bytes = |name: &Vec<u8>| Bytes(name.clone());
        match op {
            Op::PutObject { id, object } => Self::PutObject(id.0, ObjectRow::from(object)),
            Op::DropObject { id } => Self::DropObject(id.0),
            Op::PutEntry { dir, name, child } => Self::PutEntry(dir.0, bytes(name), child.0),
            Op::DropEntry { dir, name } => Self::DropEntry(dir.0, bytes(name)),
            Op::PutAttribute { id, name, value } => Self::PutAttribute(id.0, bytes(name), bytes(value)),
            Op::DropAttribute { id, name } => Self::DropAttribute(id.0, bytes(name)),
            Op::PutBlocks { id, segment, blocks } => {
                let rows = blocks
                    .iter()
                    .map(|(position, block)| (*position, block.as_ref().map(BlockRow::from)));
                Self::PutBlocks(id.0, *segment, rows.collect())
            }
        }
    }
}

impl From<OpRow> for Op {
    fn from(row: OpRow) -> Self {
        match row {
            OpRow::PutObject(id, object) => Self::PutObject {
                id: ObjectId(id),
                object: Object::from(object),
            },
            OpRow::DropObject(id) => Self::DropObject { id: ObjectId(id) },
            OpRow::PutEntry(dir, name, child) => Self::PutEntry {
                dir: ObjectId(dir),
                name: name.0,
                child: ObjectId(child),
            },
            OpRow::DropEntry(dir, name) => Self::DropEntry {
                dir: ObjectId(dir),
                name: name.0,
            },
            OpRow::PutAttribute(id, name, value) => Self::PutAttribute {
                id: ObjectId(id),
                name: name.0,
                value: value.0,
            },
            OpRow::DropAttribute(id, name) => Self::DropAttribute {
                id: ObjectId(id),
                name: name.0,
            },
            OpRow::PutBlocks(id, segment, rows) => {
                let blocks = rows
                    .into_iter()
                    .map(|(position, block)| (position, block.map(BlockRef::from)));
                Self::PutBlocks {
                    id: ObjectId(id),
                    segment,
                    blocks: blocks.collect(),
                }
            }
        }
    }
}
