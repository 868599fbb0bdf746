//! The journal as the catalog reads it.

use crate::catalog::{RecordSource, RecordsError};
use crate::intake::{ShareIntake, now_ns};
use crate::journal::{GapReason, ReadError, Reader, Record};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(super) struct JournalRecords {
    intake: Arc<ShareIntake>,
    /// Records of earlier runs: their clock may be that of an earlier boot.
    earlier: u64,
    place: Mutex<Option<Place>>,
}

/// A reader that stands behind record `after`.
struct Place {
    after: u64,
    reader: Reader,
}

impl JournalRecords {
    /// `earlier`: the newest record of the runs before this.
    pub(super) fn new(intake: Arc<ShareIntake>, earlier: u64) -> Self {
        Self {
            intake,
            earlier,
            place: Mutex::new(None),
        }
    }

    fn place(&self, after: u64) -> Result<Place, ReadError> {
        let journal = self.intake.journal();
        let reader = match journal.read_from(after + 1) {
            Err(ReadError::Trimmed { asked, oldest }) => {
                // The catalog was lost or an older copy put back.
                tracing::error!(
                    share = self.intake.name(),
                    asked,
                    oldest,
                    "the catalog is older than the journal reaches back; a gap is noted"
                );
                self.intake.raise_gap(now_ns(), GapReason::JournalDamaged);
                journal.read_from(oldest)?
            }
            other => other?,
        };
        Ok(Place { after, reader })
    }
}

impl RecordSource for JournalRecords {
    fn read(&self, after: u64, limit: usize, wait: Duration) -> Result<Vec<Record>, RecordsError> {
        let mut kept = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = match kept.take().filter(|place| place.after == after) {
            Some(place) => place,
            None => self.place(after).map_err(error)?,
        };
        let mut records = place.reader.read(limit).map_err(error)?;
        if records.is_empty() {
            self.intake
                .journal()
                .wait_synced(place.reader.position() - 1, wait);
            records = place.reader.read(limit).map_err(error)?;
        }
        place.after = records.last().map_or(after, |record| record.sequence);
        *kept = Some(place);
        for record in records.iter_mut().filter(|r| r.sequence <= self.earlier) {
            record.began_ns = 0;
        }
        Ok(records)
    }
}

fn error(error: ReadError) -> RecordsError {
    RecordsError(error.to_string())
}
