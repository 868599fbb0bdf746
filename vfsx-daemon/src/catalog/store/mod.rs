//! Rows that the catalog keeps beside the tree, in the same store. Drawn in `docs/formats/catalog.md`.

mod change;
mod key;
mod row;
mod since;
mod table;

pub(super) use change::{EndRow, LogRow, OpRow};
pub(super) use key::{Key, Prefix};
pub(super) use row::{
    BehindRow, CursorRow, CutRow, DevicesRow, DirtRow, DisplacedRow, ExcludeRow, GapRow, HeadRow, IntentRow,
    LastGapRow, ListRow, LookRow, LostRow, NodeRow, ScanPhase, ScanRow, SourceRow, StampRow, Touch,
};
pub(super) use since::SinceRow;
pub(super) use table::{Row, delete, get, page, put, range};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
