//! What a catalog is opened with.

use crate::journal::Record;
use crate::trouble::Trouble;
use restfs_lib::kv::KvError;
use restfs_lib::model::Layout;
use restfs_lib::tree::TreeError;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one share's catalog.
#[derive(Debug, Clone)]
pub struct Options {
    /// The share's root directory.
    pub share: PathBuf,
    /// The catalog's SQLite file; its directory exists.
    pub database: PathBuf,
    /// Recovery sites by name: the change log is kept for the slowest of these.
    pub sites: Vec<String>,
    /// Layout of objects that the catalog creates.
    pub layout: Layout,
    /// Dirty files are read this long after their first unread change, also while they stay open.
    pub flush_age: Duration,
    /// How long an object without a name is kept: its rename may come from another smbd process, through another
    /// socket. While records wait to be applied nothing is dropped at all.
    pub grace: Duration,
    /// Threads that read files; one more reads only what clients changed.
    pub readers: usize,
    /// Records that one transaction takes: their changes are to fit in one commit.
    pub records: usize,
    /// Bytes of blocks kept for the replicator after they were read.
    pub cache_bytes: usize,
    /// After a file was cloned it is not cloned again for so many times as long as that took: so its writers are held up
    /// for a fiftieth of the time at most, even those of one in a hundred thousand pieces that is closed and opened
    /// without end.
    pub clone_rest: u32,
    /// Directory for content that sites do not have yet and files may not have any more, and its bytes at most, those in
    /// memory among them.
    pub kept: PathBuf,
    pub kept_bytes: u64,
    /// Changes kept for sites that are behind; one that falls further back is brought over by tree difference.
    pub change_log_rows: u64,
}

impl Options {
    pub fn new(share: PathBuf, database: PathBuf, sites: Vec<String>) -> Self {
        Self {
            share,
            kept: database.with_file_name("kept"),
            kept_bytes: 512 << 20,
            database,
            sites,
            layout: Layout::default(),
            flush_age: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            readers: 2,
            records: 512,
            cache_bytes: 64 * 1024 * 1024,
            clone_rest: 50,
            change_log_rows: 1_000_000,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The share's root cannot be used.
    #[error("share {path}: {why}")]
    Share { path: String, why: String },
    /// The catalog belongs to another directory.
    #[error("{0}")]
    WrongShare(String),
    #[error("catalog: {0}, or remove it: the share is then read anew, as a new source for its sites")]
    Format(KvError),
    #[error("catalog: {0}")]
    Store(#[from] KvError),
    #[error("catalog: {0}")]
    Tree(#[from] TreeError),
    /// A row that cannot be decoded.
    #[error("catalog is damaged: {0}")]
    Damaged(String),
    /// Not started yet, or stopped.
    #[error("the catalog is not running")]
    Stopped,
    #[error("catalog: a thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// The transaction that was to do it failed; the applier says why in its own words.
    #[error("{}", .0.why)]
    Refused(Trouble),
}

impl CatalogError {
    /// What is told of a catalog that stands still by this.
    pub(super) fn trouble(&self) -> Trouble {
        let full = match self {
            Self::Store(KvError::Full(_)) | Self::Tree(TreeError::Kv(KvError::Full(_))) => true,
            Self::Refused(trouble) => trouble.full,
            _ => false,
        };
        Trouble {
            full,
            why: self.to_string(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RecordsError(pub String);

/// Where the applier takes its records from: the journal.
pub trait RecordSource: Send + Sync + 'static {
    /// Synced records after `after`, in order, at most `limit`; waits up to `wait` when there are none. Records
    /// that the journal has no longer are left out (the next one has a higher sequence).
    fn read(&self, after: u64, limit: usize, wait: Duration) -> Result<Vec<Record>, RecordsError>;
}
