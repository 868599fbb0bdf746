//! What the change log speaks of.

use crate::source::{BatchLimits, ChangeSource, SourceError};
use restfs_lib::model::{ObjectId, Op, RowKey};
use std::collections::HashSet;

/// Changes read at once, and in all: more than that in a moment, and nothing is said of the row.
const PAGE: usize = 1024;
const MOST: usize = 100_000;

/// Rows that changes may have changed.
#[derive(Default)]
pub(super) struct Touched {
    /// With their attributes and content.
    objects: HashSet<ObjectId>,
    entries: HashSet<(ObjectId, Vec<u8>)>,
}

impl Touched {
    /// By all changes after `after`. `None`: the log does not tell.
    pub(super) async fn since(source: &dyn ChangeSource, after: u64) -> Result<Option<Self>, SourceError> {
        let limits = BatchLimits::of_log(PAGE);
        let (mut touched, mut at, mut count) = (Self::default(), after, 0);
        loop {
            let batch = match source.changes(at, limits).await {
                Ok(batch) => batch,
                Err(SourceError::TooOld { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let Some(last) = batch.changes.last() else {
                return Ok(Some(touched));
            };
            at = last.sequence;
            count += batch.changes.len();
            if count > MOST {
                return Ok(None);
            }
            for change in batch.changes {
                touched.add(change.op);
            }
        }
    }

    fn add(&mut self, op: Op) {
        match op {
            Op::PutObject { id, .. }
            | Op::DropObject { id }
            | Op::PutAttribute { id, .. }
            | Op::DropAttribute { id, .. }
            | Op::PutBlocks { id, .. } => {
                self.objects.insert(id);
            }
            Op::PutEntry { dir, name, .. } | Op::DropEntry { dir, name } => {
                self.entries.insert((dir, name));
            }
        }
    }

    pub(super) fn has(&self, row: &RowKey) -> bool {
        match row {
            RowKey::Object { id } | RowKey::Attribute { id, .. } | RowKey::Segment { id, .. } => {
                self.objects.contains(id)
            }
            RowKey::Entry { dir, name } => self.entries.contains(&(*dir, name.clone())),
        }
    }
}
