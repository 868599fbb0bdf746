//! The commit log: everything that the metadata store ever took in, as records of their own beside the packs, so that
//! the store can be made anew without its database.
//!
//! A transaction goes into the log first and is synced there, then into the database, which is not synced any more:
//! one fsync for a commit, as before. After a crash the database takes in again what it lost. See
//! `docs/formats/commits.md`.

mod check;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod reader;
mod rebuild;
mod record;
mod replay;
mod rows;
mod start;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use restfs_lib::kv::KvError;
use std::{fmt, io};

pub use check::{LogDamage, check};
pub use image::ImageWritten;
#[cfg(test)]
pub(crate) use rebuild::rebuild_on;
pub use rebuild::{Rebuilt, rebuild};
pub use start::open;
#[cfg(test)]
pub(crate) use start::{Place, open_at};
pub use store::{LoggedKv, Reached};

/// In the data directory.
pub const FOLDER: &str = "commits";
/// In the data directory.
pub const DATABASE: &str = "metadata.db";

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("no space left for the commit log in {path}: {source}; free space or enlarge the file system")]
    Full { path: String, source: io::Error },
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("{path} has version {version}, which this restfs does not know; use a newer one")]
    Version { path: String, version: u32 },
    #[error("the commit log is damaged: {path}, offset {offset}: {reason}")]
    Damaged {
        path: String,
        offset: u64,
        reason: String,
    },
    /// A write or a sync failed, so what is on disk is known only after a restart.
    #[error("metadata takes no more writes ({0}); check the disk, then restart")]
    Failed(String),
    /// The database is gone, and can be made anew.
    #[error("{0} is gone; `restfs rebuild` makes it anew from the commit log")]
    DatabaseGone(String),
    /// The database is gone, and so is what it could be made from.
    #[error(
        "{0} is gone, and there is no commit log to make it anew from (it was written by a version without one, or is gone too): \
         put back a copy of metadata.db or of commits/; to begin with an empty site, move blocks/ away"
    )]
    NothingLeft(String),
    /// The database is not what was written: what is wrong.
    #[error("{DATABASE} is damaged: {}", Damages(.0))]
    DatabaseDamaged(Vec<String>),
    /// The database is of another time than the log.
    #[error("{0}")]
    Apart(String),
    #[error("metadata: {0}")]
    Kv(#[from] KvError),
}

/// What to do about a damaged database.
pub const REBUILD: &str =
    "with the server stopped, `restfs rebuild --replace` makes it anew from the commit log";

/// The first of what is wrong, and how much more there is.
pub struct Damages<'a>(pub &'a [String]);

impl fmt::Display for Damages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.first().map_or("it could not be read", String::as_str))?;
        match self.0.len() {
            0 | 1 => Ok(()),
            places => write!(f, ", and {} more", places - 1),
        }
    }
}

impl From<LogError> for KvError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full { .. } => Self::Full(error.to_string()),
            LogError::Kv(error) => error,
            other => Self::Io(other.to_string()),
        }
    }
}
