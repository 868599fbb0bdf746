//! Readers: a few threads that read what is dirty of files and say what is there. They change nothing themselves.

mod before;
mod cache;
mod clones;
mod content;
mod pool;
mod run;

pub(super) use cache::Cache;
pub(super) use clones::Clones;
pub(super) use content::{Context, hole_end, is_zero, read_at, read_block, read_kept};
pub(super) use pool::start;

use crate::catalog::dirt::Dirt;
use crate::catalog::share::{Details, Seen};
use restfs_lib::content::Difference;
use restfs_lib::model::{BlockRef, ObjectId};
use std::ops::Range;
use std::time::Instant;

/// An object to be read.
pub(super) struct Job {
    pub(super) object: ObjectId,
    /// Tells this read from earlier and later ones of the object.
    pub(super) flight: u64,
    pub(super) dirt: Dirt,
    /// A client has come to rest with the file (it has closed or flushed it): what is read should be one moment's content.
    /// When the newest change was noted that is known, nanoseconds since the epoch.
    pub(super) rest: Option<i64>,
}

/// Takes parts of reads.
type Sink<'a> = dyn FnMut(Part) -> Result<(), Stopped> + 'a;

/// The receiver is gone: the catalog stops.
pub(super) struct Stopped;

/// What a read found, in one or more parts; the last has an ending.
pub(super) struct Part {
    pub(super) object: ObjectId,
    pub(super) flight: u64,
    pub(super) slice: Option<Slice>,
    pub(super) ending: Option<Ending>,
}

/// Blocks of a file.
pub(super) struct Slice {
    /// Bytes of the file.
    pub(super) size: u64,
    /// What was read, in whole blocks.
    pub(super) covered: Vec<Range<u64>>,
    /// Index -> content. A block in `covered` that is not here is a hole.
    pub(super) blocks: Vec<(u64, FoundBlock)>,
}

/// A block as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundBlock {
    pub(super) block: BlockRef,
    /// How it differs from the one that the catalog had there, as far as clients have told what they wrote: one who has
    /// not yet is the reason why a site checks it.
    pub(super) since: Option<Difference>,
}

pub(super) enum Ending {
    /// Everything was read that the job asked for.
    Read {
        /// As it was before its content was read.
        seen: Seen,
        details: Details,
        /// What the job asked for, and what a changed size added.
        read: Dirt,
        /// It changed while it was read.
        unsteady: bool,
    },
    /// Not where the catalog believes it to be.
    Away,
    /// Nothing was read; there will be a moment's content then.
    Later(Instant),
    Failed(String),
}
