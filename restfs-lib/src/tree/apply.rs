//! Ops -> rows.

use super::{History, TreeError};
use crate::kv::KvWrite;
use crate::model::{BucketId, Op};

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

/// Applies one op, in the order in which things happened.
pub fn apply(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    point: u64,
    history: History,
    op: &Op,
) -> Result<Applied, TreeError> {
    let _ = (txn, bucket, point, history, op);
    todo!()
}

/// Applies the ops of one commit.
pub fn apply_all(
    txn: &mut dyn KvWrite,
    bucket: BucketId,
    point: u64,
    history: History,
    checks: Checks,
    ops: &[Op],
) -> Result<Applied, TreeError> {
    let _ = (txn, bucket, point, history, checks, ops);
    todo!()
}
