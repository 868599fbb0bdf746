//! Which rows of a group are to be made equal.

use super::merge::Side;
use restfs_lib::model::{ObjectId, RowKey};
use std::collections::HashSet;

#[derive(Default)]
pub(super) struct Wanted {
    rows: Vec<RowKey>,
    /// Objects that the source no longer has; at most the group's 1,024.
    gone: HashSet<ObjectId>,
}

impl Wanted {
    /// Rows come in the order of [`RowKey`]: objects before what belongs to them.
    pub(super) fn add(&mut self, row: RowKey, side: Side) {
        if side == Side::Equal {
            return;
        }
        match &row {
            RowKey::Object { id } if side == Side::There => {
                self.gone.insert(*id);
            }
            // Attributes and segments go with their object.
            RowKey::Attribute { id, .. } | RowKey::Segment { id, .. } if self.gone.contains(id) => return,
            _ => {}
        }
        self.rows.push(row);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn take_rows(&mut self) -> Vec<RowKey> {
        std::mem::take(&mut self.rows)
    }
}
