//! The change log's older end, and the cursors that hold it.

use super::work::Work;
use crate::catalog::CatalogError;
use crate::catalog::store::{BehindRow, CursorRow, Key, LogRow, delete, get, put};
use dr_replicator::Cursor;
use std::collections::BTreeMap;

/// Rows dropped in one transaction.
const DROPS: u64 = 2000;
/// Changes kept though nobody needs them: a site that begins a resync by difference names its base a moment after it
/// was chosen.
const KEPT: u64 = 10_000;

impl Work<'_> {
    pub(super) fn put_cursors(&mut self, cursors: &BTreeMap<String, Cursor>) -> Result<(), CatalogError> {
        for (site, cursor) in cursors {
            put(
                self.kv,
                &Key::meta(&format!("cursor/{site}")),
                &CursorRow::from(*cursor),
            )?;
        }
        Ok(())
    }

    /// Drops changes that all of `sites` have. Those without a cursor are brought over by tree difference first. Whether
    /// there is more to drop.
    pub(super) fn trim(
        &mut self,
        sites: &[String],
        cursors: &BTreeMap<String, Cursor>,
    ) -> Result<bool, CatalogError> {
        let head = self.memory.head.change;
        let slowest = sites
            .iter()
            .filter_map(|site| cursors.get(site))
            .map(|c| c.sequence)
            .min()
            .unwrap_or(head);
        let unneeded = slowest.min(head.saturating_sub(KEPT));
        let keep_from = unneeded.max(head.saturating_sub(self.rules.change_log_rows.max(KEPT))) + 1;
        let from = self.memory.head.oldest.max(1);
        let to = keep_from.min(from + DROPS);
        for site in sites {
            let next = cursors.get(site).map(|cursor| cursor.sequence + 1);
            if let Some(next) = next.filter(|next| (from..to).contains(next)) {
                self.note_behind(site, next)?;
            }
        }
        for sequence in from..to {
            delete(self.kv, &Key::Log(sequence))?;
            delete(self.kv, &Key::Since(sequence))?;
        }
        self.memory.head.oldest = to.max(from);
        Ok(to < keep_from)
    }

    /// How old what a site lacks is: the rows that are left would say less.
    fn note_behind(&mut self, site: &str, sequence: u64) -> Result<(), CatalogError> {
        let Some(row) = get::<LogRow>(self.kv, &Key::Log(sequence))? else {
            return Ok(());
        };
        let behind = BehindRow {
            sequence,
            oldest_ns: row.oldest_ns,
            bytes: row.bytes,
        };
        put(self.kv, &Key::meta(&format!("behind/{site}")), &behind)
    }
}
