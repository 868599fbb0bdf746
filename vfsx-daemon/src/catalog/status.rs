//! Numbers of a catalog, for `vfsxctl status` and `settle`.

use crate::trouble::Trouble;
use std::time::Instant;

/// Changes may be missing from the catalog until a scan has finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Wall clock, nanoseconds since the epoch.
    pub since_ns: i64,
    /// One line for a person.
    pub reason: String,
}

/// A gap that a scan has closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedGap {
    pub since_ns: i64,
    /// Wall clock of when it was closed.
    pub until_ns: i64,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScanState {
    /// Asked for (first start, gap, `vfsxctl reconcile`), not begun.
    Needed,
    /// Walking, or the files it found are still being read.
    Running,
    #[default]
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanProgress {
    pub state: ScanState,
    /// Number of the scan that finished last; `request_scan` says which one to wait for.
    pub finished: u64,
    pub started_ns: i64,
    pub directories: u64,
    pub files: u64,
    /// Of the files seen, by their sizes.
    pub bytes: u64,
    /// Names that differed from the catalog.
    pub differences: u64,
    /// Bytes of files that were found new or changed and are not read yet.
    pub unread_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Highest journal sequence whose records are in the catalog, durably.
    pub applied: u64,
    /// Everything from records up to here is in the change log, content included.
    pub covered: u64,
    /// Newest change.
    pub head: u64,
    /// Objects in the tree.
    pub objects: u64,
    pub dirty_objects: u64,
    /// Upper bound of the bytes to read.
    pub dirty_bytes: u64,
    /// When the oldest unread change was noted, nanoseconds since the epoch.
    pub oldest_dirty_ns: Option<i64>,
    /// Handles open for writing.
    pub open_handles: u64,
    /// Names that wait for their directory to be found, directories to be found, and directories to be listed.
    pub pending_looks: u64,
    /// Objects that have lost their names and are kept for a while.
    pub displaced: u64,
    pub gap: Option<Gap>,
    pub last_gap: Option<ClosedGap>,
    pub scan: ScanProgress,
    /// Bytes read from the share's files since start.
    pub bytes_read: u64,
    /// Content kept for sites that are behind, and how often it could not be kept.
    pub kept_bytes: u64,
    pub kept_dropped: u64,
    /// How far points are exact while clients work.
    pub cuts: Cuts,
    /// Errors of the share's file system since start; what they concern is tried again.
    pub read_errors: u64,
    /// The newest of them.
    pub last_error: Option<String>,
    /// Why the catalog stands still (its disk is full or failing); it is tried again every second.
    pub failed: Option<Trouble>,
    /// Content for sites that are behind cannot be kept in files, until it can or is needed no more.
    pub kept_trouble: Option<Trouble>,
}

/// Numbers of the rounds that make points exact, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cuts {
    /// Rounds that ended with an exact state of the share.
    pub exact: u64,
    /// Times that sites got a state that is not, since none came for too long.
    pub fuzzy: u64,
    /// Why the last round that failed did.
    pub last_failure: Option<String>,
    /// No state was exact for too long: sessions do not need to tell written data until then.
    pub rests_until: Option<Instant>,
}

impl Cuts {
    pub fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }
}

/// Where a site is, as far as this end knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SiteStatus {
    pub epoch: u64,
    /// Last change committed there.
    pub cursor: u64,
    /// Everything from journal records up to here is committed there.
    pub journal: u64,
    pub pending_ops: u64,
    /// Plain bytes of the blocks that the pending changes name.
    pub pending_bytes: u64,
    /// When the oldest change not committed there was noted; `None`: all that the catalog knows is there.
    pub oldest_unshipped_ns: Option<i64>,
}
