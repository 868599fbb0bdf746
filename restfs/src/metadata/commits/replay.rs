//! Takes transactions of the log into a store.

use super::LogError;
use super::files::Known;
use super::reader::{Next, Reader};
use super::rows::{self, ApplyError};
use super::store::{MARK, Mark};
use restfs_lib::kv::{Kv, KvTransaction, KvWrite};

/// How far a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// Last whole transaction.
    pub(super) sequence: u64,
    /// Where it ends in the last file.
    pub(super) offset: u64,
    /// Where it begins there, if it does.
    pub(super) last: u64,
    /// Transactions that were taken in, and their rows.
    pub(super) taken: u64,
    pub(super) rows: u64,
}

/// Goes through the logs, which follow each other, and takes into `kv` what it does not have. A torn end of the last one is
/// no error.
pub(super) fn replay(logs: &[Known], kv: &dyn Kv, from: Mark) -> Result<Reached, LogError> {
    let first = logs
        .first()
        .map_or(from.sequence + 1, |known| known.header.sequence);
    let mut reached = Reached {
        sequence: first.saturating_sub(1),
        offset: 0,
        last: 0,
        taken: 0,
        rows: 0,
    };
    for (number, known) in logs.iter().enumerate() {
        let newest = number + 1 == logs.len();
        if known.header.sequence != reached.sequence + 1 {
            return Err(damaged(
                known,
                0,
                &format!(
                    "it begins at {}, not behind {}",
                    known.header.sequence, reached.sequence
                ),
            ));
        }
        reached.offset = super::record::FILE_HEADER as u64;
        reached.last = reached.offset;
        one_log(known, newest, kv, from, &mut reached)?;
    }
    Ok(reached)
}

fn one_log(
    known: &Known,
    newest: bool,
    kv: &dyn Kv,
    from: Mark,
    reached: &mut Reached,
) -> Result<(), LogError> {
    let mut reader = Reader::new(known);
    let mut open: Option<Box<dyn KvTransaction + '_>> = None;
    let mut rows = 0;
    let mut begun = false;
    loop {
        let part = match reader.next(reached.sequence + 1)? {
            Next::Part(part) => part,
            // A transaction without its last part is a torn end, too.
            Next::End if newest || !begun => return Ok(()),
            Next::End => return Err(damaged(known, reached.offset, "its last transaction is cut off")),
            Next::Broken { more: false, .. } if newest => return Ok(()),
            Next::Broken { offset, reason, .. } => return Err(damaged(known, offset, &reason)),
        };
        if part.sequence != reached.sequence + 1 {
            let reason = format!(
                "transaction {} is where {} belongs",
                part.sequence,
                reached.sequence + 1
            );
            return Err(damaged(known, reached.offset, &reason));
        }
        begun = true;
        if part.sequence > from.sequence {
            let txn = match &mut open {
                Some(txn) => txn,
                None => open.insert(kv.write()?),
            };
            rows += take(&part.rows, txn.as_mut(), known, reached.offset)?;
        }
        if !part.last {
            continue;
        }
        begun = false;
        if let Some(mut txn) = open.take() {
            let mark = Mark {
                sequence: part.sequence,
                ..from
            };
            txn.put(MARK, &mark.encode())?;
            txn.commit()?;
            reached.taken += 1;
            reached.rows += std::mem::take(&mut rows);
        }
        reached.sequence = part.sequence;
        reached.last = std::mem::replace(&mut reached.offset, part.end);
    }
}

pub(super) fn take(part: &[u8], txn: &mut dyn KvWrite, known: &Known, offset: u64) -> Result<u64, LogError> {
    rows::apply(part, txn).map_err(|error| match error {
        ApplyError::Kv(error) => error.into(),
        ApplyError::Damaged(reason) => damaged(known, offset, reason),
    })
}

pub(super) fn damaged(known: &Known, offset: u64, reason: &str) -> LogError {
    LogError::Damaged {
        path: known.path.display().to_string(),
        offset,
        reason: reason.to_owned(),
    }
}
