//! From a run of changes to one commit. Pure: no I/O, no clock.

mod blocks;
mod rows;
mod weight;

pub(crate) use blocks::{BlockPlace, Blocks, Found, correct};
use rows::Rows;
pub(crate) use weight::named_bytes;
pub use weight::weight;

use crate::source::Change;
use restfs_lib::content::Difference;
use restfs_lib::model::{BlockKey, Op};
use restfs_lib::wire::limits::MAX_OPS;
use std::collections::HashMap;

/// Key of a block -> how it differs from one that the site has.
pub(crate) type Differences = HashMap<BlockKey, Difference>;

/// Encoded bytes a commit aims at. A message is refused above 16 MiB, [`weight`] is an estimate, and one op (an
/// attribute of 1 MiB, a segment of 1,024 blocks) may come on top.
pub(crate) const COMMIT_WEIGHT: usize = 6 * 1024 * 1024;

/// And the most that it may take, when it is the only way to a state that is exact.
pub(crate) const MOST_WEIGHT: usize = 14 * 1024 * 1024;

/// What one commit will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// First and last change it covers.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// When the event of each change was noted. Not empty.
    pub(crate) noted_ns: Vec<i64>,
    /// At most one state per row, in an order in which every reference is there before it is used.
    pub(crate) ops: Vec<Op>,
    /// Of some of the blocks that `ops` name.
    pub(crate) differences: Differences,
    /// Plain bytes of the blocks that `ops` name.
    pub(crate) bytes: u64,
}

/// Plans the longest prefix of `changes` that fits into one commit: at least one change, `None` for no changes.
/// Ops after the prefix are planned by asking the source again.
pub(crate) fn plan(changes: &[Change], max_bytes: u64) -> Option<Plan> {
    let first = changes.first()?.sequence;
    let mut rows = Rows::default();
    let mut noted_ns = Vec::with_capacity(changes.len());
    let mut last = first;
    let mut load = Load {
        left: COMMIT_WEIGHT,
        bytes_left: max_bytes,
    };
    for change in changes {
        let fits = load.take(&change.op) && rows.accepts(&change.op);
        if !fits && !noted_ns.is_empty() {
            break;
        }
        rows.add(change);
        noted_ns.push(change.time_ns);
        last = change.sequence;
    }
    Some(planned(first, last, noted_ns, rows))
}

/// All of them in one commit. `None`: none can take them.
pub(crate) fn plan_whole(changes: &[Change]) -> Option<Plan> {
    let (first, last) = (changes.first()?.sequence, changes.last()?.sequence);
    let mut rows = Rows::default();
    for change in changes {
        if !rows.accepts(&change.op) {
            return None;
        }
        rows.add(change);
    }
    let noted_ns = changes.iter().map(|change| change.time_ns).collect();
    let plan = planned(first, last, noted_ns, rows);
    let fits = plan.ops.len() <= MAX_OPS && plan.ops.iter().map(weight).sum::<usize>() <= MOST_WEIGHT;
    fits.then_some(plan)
}

fn planned(first: u64, last: u64, noted_ns: Vec<i64>, rows: Rows) -> Plan {
    let (ops, differences) = rows.into_ops();
    let bytes = ops.iter().map(named_bytes).sum();
    Plan {
        first,
        last,
        noted_ns,
        ops,
        differences,
        bytes,
    }
}

/// What a commit still has room for.
struct Load {
    left: usize,
    bytes_left: u64,
}

impl Load {
    fn take(&mut self, op: &Op) -> bool {
        match (
            self.left.checked_sub(weight(op)),
            self.bytes_left.checked_sub(named_bytes(op)),
        ) {
            (Some(left), Some(bytes_left)) => {
                *self = Self { left, bytes_left };
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
