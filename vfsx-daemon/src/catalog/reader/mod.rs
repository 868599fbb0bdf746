//! Readers: a few threads that read what is dirty of files and say what is there. They change nothing themselves.

mod cache;
mod content;
mod pool;

pub(super) use cache::Cache;
pub(super) use content::{Context, read_block};
pub(super) use pool::start;

use crate::catalog::dirt::Dirt;
use crate::catalog::share::{Details, Seen};
use restfs_lib::model::{BlockRef, ObjectId};
use std::ops::Range;

/// An object to be read.
pub(super) struct Job {
    pub(super) object: ObjectId,
    /// Tells this read from earlier and later ones of the object.
    pub(super) flight: u64,
    pub(super) dirt: Dirt,
}

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
    pub(super) blocks: Vec<(u64, BlockRef)>,
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
    Failed(String),
}
