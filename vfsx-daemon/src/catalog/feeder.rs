//! Brings the journal's records to the applier.

use super::applier::Batch;
use super::options::RecordSource;
use super::shared::Shared;
use crate::journal::{READ_BYTES, Record};
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a record; a stop is noticed by then.
const WAIT: Duration = Duration::from_millis(250);
/// After an error of the journal.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// `at_once`: records in a batch, which is one transaction of the applier.
pub(super) fn run(
    shared: &Shared,
    source: &Arc<dyn RecordSource>,
    mut after: u64,
    at_once: usize,
    batches: &Sender<Batch>,
) {
    // The applier drops nothing before it knows that there is nothing more.
    let mut told = false;
    while !shared.stopping() {
        match source.read(after, at_once, if told { WAIT } else { Duration::ZERO }) {
            Ok(records) => {
                let bytes: usize = records.iter().map(Record::data_len).sum();
                let more = records.len() >= at_once || bytes >= READ_BYTES;
                if records.is_empty() && told {
                    continue;
                }
                after = records.last().map_or(after, |r| r.sequence);
                told = !more && records.is_empty();
                if batches.send(Batch { records, more }).is_err() {
                    return;
                }
            }
            Err(e) => {
                tracing::error!("journal: {e}");
                std::thread::sleep(AFTER_FAILURE);
            }
        }
    }
}
