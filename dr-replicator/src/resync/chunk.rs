//! Cutting ops into commits.

use crate::plan::{COMMIT_WEIGHT, named_bytes, weight};
use restfs_lib::model::Op;

/// Ops of one commit.
#[derive(Default)]
pub(super) struct Chunk {
    ops: Vec<Op>,
    weight: usize,
    bytes: u64,
}

impl Chunk {
    /// An empty one has room for anything.
    pub(super) fn has_room(&self, op: &Op, max_ops: usize, max_bytes: u64) -> bool {
        self.ops.is_empty()
            || (self.ops.len() < max_ops
                && self.weight + weight(op) <= COMMIT_WEIGHT
                && self.bytes + named_bytes(op) <= max_bytes)
    }

    pub(super) fn add(&mut self, op: Op) {
        self.weight += weight(&op);
        self.bytes += named_bytes(&op);
        self.ops.push(op);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Op> {
        std::mem::take(self).ops
    }
}
