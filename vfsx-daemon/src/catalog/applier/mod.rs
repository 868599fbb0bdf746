//! The applier: the one thread that writes the catalog. It takes journal records, what readers read and what the scan
//! found, and turns each batch of them into one transaction.

mod adopt;
mod cut;
mod dirs;
mod dirty;
mod events;
mod excluded;
mod lists;
mod log;
mod looks;
mod memory;
mod names;
mod refresh;
mod results;
mod run;
mod scans;
mod unread;
mod work;

pub(super) use cut::Cuts;
pub(super) use dirs::{ReachError, reach};
pub(super) use run::{Applier, Channels, now_ns, stored_status};
pub(super) use scans::Page;
pub(super) use work::{BUCKET, Rules};

use crate::catalog::CatalogError;
use crate::catalog::store::ExcludeRow;
use crate::journal::Record;
use crossbeam_channel::Sender;
use restfs_lib::model::{BlockRef, ObjectId};

/// Answered when the transaction is on disk.
pub(super) type Reply<T> = Sender<Result<T, CatalogError>>;

/// Records for the applier.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// There were more at once.
    pub(super) more: bool,
}

pub(super) enum Request {
    Page(Page, Reply<()>),
    /// Ask for a scan; answered with its number.
    Scan(Reply<u64>),
    /// The replicator found this at a block's place. Answered with what the catalog says after that.
    Block {
        object: ObjectId,
        index: u64,
        before: Before,
        found: Option<BlockRef>,
        reply: Reply<BlockAnswer>,
    },
    /// The replicator cannot find the object where the catalog believes it to be.
    Away(ObjectId),
    /// Names that are not to be entered.
    Exclude(ExcludeRow, Reply<()>),
    /// See [`crate::catalog::Catalog::hurry`].
    Hurry,
    /// Have the cursors on disk; they are with every transaction.
    Cursors(Reply<()>),
    /// Come to an end.
    Stop,
}

/// What the catalog said when the replicator began to read a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) size: u64,
    pub(super) block: Option<BlockRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockAnswer {
    /// The catalog says what was found.
    Taken,
    /// The catalog has changed since the block was read, so what was found may be older than what it says.
    Changed,
    Gone,
}

/// Answers that wait for the transaction.
enum Waiting {
    Done(Reply<()>),
    Scan(Reply<u64>, u64),
    Block(Reply<BlockAnswer>, BlockAnswer),
}

impl Waiting {
    fn answer(self, result: &Result<(), CatalogError>) {
        // Who does not wait any more needs no answer.
        let _ = match self {
            Self::Done(reply) => reply.send(copy(result, ())).is_ok(),
            Self::Scan(reply, number) => reply.send(copy(result, number)).is_ok(),
            Self::Block(reply, answer) => reply.send(copy(result, answer)).is_ok(),
        };
    }
}

fn copy<T>(result: &Result<(), CatalogError>, value: T) -> Result<T, CatalogError> {
    match result {
        Ok(()) => Ok(value),
        Err(e) => Err(CatalogError::Refused(e.trouble())),
    }
}
