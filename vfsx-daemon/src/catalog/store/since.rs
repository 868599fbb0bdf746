//! How blocks that a change put differ from those that were there before, beside the change in the log. What is not here
//! is shipped whole, so a row that is not there does no harm.

use super::table::Row;
use restfs_lib::content::Difference;
use restfs_lib::model::BlockKey;
use serde::{Deserialize, Serialize};

/// `H`: goes with an `L` row that puts blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct SinceRow {
    /// By position in the segment.
    blocks: Vec<(u32, DifferenceRow)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DifferenceRow {
    base: [u8; 32],
    /// Half-open byte ranges within the block, sorted, apart.
    ranges: Vec<(u32, u32)>,
}

impl Row for SinceRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "since row";
}

impl From<&[(u32, Difference)]> for SinceRow {
    fn from(differences: &[(u32, Difference)]) -> Self {
        let row = |since: &Difference| DifferenceRow {
            base: since.base.0,
            ranges: since.ranges().iter().map(|r| (r.start, r.end)).collect(),
        };
        let blocks = differences
            .iter()
            .map(|(position, since)| (*position, row(since)));
        Self {
            blocks: blocks.collect(),
        }
    }
}

impl From<SinceRow> for Vec<(u32, Difference)> {
    fn from(row: SinceRow) -> Self {
        let difference = |row: DifferenceRow| {
            let ranges = row.ranges.into_iter().map(|(start, end)| start..end);
            Difference::new(BlockKey(row.base), ranges.collect())
        };
        let blocks = row.blocks.into_iter();
        blocks
            .map(|(position, row)| (position, difference(row)))
            .collect()
    }
}
