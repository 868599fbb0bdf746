//! What can go wrong with the journal, by the caller's situation.

use std::io;

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: String,
        source: io::Error,
    },
}

/// The records were not taken: none of them is in the journal.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// `journal_max` is reached: the catalog does not keep up.
    #[error("the journal is full ({bytes} of {max} bytes)")]
    Full { bytes: u64, max: u64 },
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
    /// An earlier write or sync failed; [`super::Journal::recover`] has to succeed first.
    #[error("the journal is out of order after a failed write or sync")]
    Failed,
    #[error("a record cannot be encoded: {0}")]
    Unrepresentable(String),
}

/// The journal's files could not be synced; what was not synced is gone.
#[derive(Debug, thiserror::Error)]
#[error("cannot sync {path}: {source}")]
pub struct SyncError {
    pub path: String,
    pub source: io::Error,
}

/// Records could not be read now.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the journal starts at record {oldest}, record {asked} is gone")]
    Trimmed { asked: u64, oldest: u64 },
    #[error("cannot read {path}: {source}")]
    Io { path: String, source: io::Error },
    /// Damage was found, and the gap that stands for it could not be appended.
    #[error("{damage}, and the gap could not be noted: {source}")]
    GapNotNoted { damage: String, source: AppendError },
}
