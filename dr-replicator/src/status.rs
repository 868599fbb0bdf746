//! What a site's task tells about itself.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Where a site stands. [`fmt::Display`] gives the names that people and tools see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SiteState {
    /// The site had nothing of this source when it was met; everything is on its way.
    InitialSync,
    /// All changes are committed there, and the last comparison of the two trees found them equal.
    InSync,
    /// Changes are on their way, or the trees are being compared.
    CatchingUp,
    /// The change log does not lead from the site's position to now; the difference of the trees is being shipped.
    Gap,
    Paused,
    /// No connection; tried again with growing pauses.
    Unreachable,
    /// The site has no space left; tried again until it has.
    Full,
    /// A newer epoch is in force at the site. This source writes there no more until a person decides.
    Fenced,
    /// The site, or this end, refuses for a reason that a person has to look at; tried again now and then.
    Failed,
    /// The task has ended.
    Stopped,
}

impl SiteState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InitialSync => "initial-sync",
            Self::InSync => "in-sync",
            Self::CatchingUp => "catching-up",
            Self::Gap => "gap",
            Self::Paused => "paused",
            Self::Unreachable => "unreachable",
            Self::Full => "full",
            Self::Fenced => "fenced",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for SiteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct SiteStatus {
    pub state: SiteState,
    pub epoch: u64,
    /// Last change that is known to be durable at the site with all before it; 0 while the trees are not known to
    /// be in step (a resync by difference is running).
    pub cursor: u64,
    /// Newest change of the source.
    pub head: u64,
    /// The site's newest recovery point.
    pub point: u64,
    /// Whether the last commit was one moment's state of the share.
    pub exact: bool,
    /// Bytes on the wire in both directions, since the start.
    pub wire_bytes: u64,
    /// Plain bytes of blocks that the site did not have and was sent, since the start.
    pub shipped_bytes: u64,
    /// Commits acknowledged since the start.
    pub commits: u64,
    /// Why the state is what it is; `None` when nothing is wrong.
    pub last_error: Option<String>,
    pub last_verified: Option<Verified>,
    /// Comparisons since the start that found the trees different though all changes were committed.
    pub mismatches: u64,
    /// Of the comparisons that were asked for, the newest that has ended.
    pub compared: u64,
    /// Present while a resync by difference runs.
    pub resync: Option<ResyncProgress>,
    pub pending: Pending,
    pub lag: Lag,
    /// The bandwidth limit in force, bytes per second.
    pub limit: Option<u64>,
}

/// Outcome of a comparison of the site's tree with the source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    pub at: SystemTime,
    /// The change that both trees were at.
    pub sequence: u64,
    pub equal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResyncProgress {
    /// Groups of 1,024 objects that differ, and how many of them are done.
    pub groups_done: u64,
    pub groups_total: u64,
    pub ops: u64,
    /// Plain bytes of the blocks that were named, whether the site had them or not.
    pub bytes: u64,
}

/// What is not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    pub ops: u64,
    /// Plain bytes of blocks in the batches under way: a lower bound of all that is pending.
    pub bytes: u64,
    /// When the oldest of the changes under way was noted, nanoseconds since the epoch. The site's recovery point
    /// objective is its age. `None` when nothing is pending or the site cannot be reached.
    pub oldest_ns: Option<i64>,
}

/// Time from the note of an event to the site's durable answer, over the newest changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    pub last: Option<Duration>,
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

impl SiteStatus {
    pub(crate) fn new() -> Self {
        Self {
            state: SiteState::CatchingUp,
            epoch: 0,
            cursor: 0,
            head: 0,
            point: 0,
            exact: false,
            wire_bytes: 0,
            shipped_bytes: 0,
            commits: 0,
            last_error: None,
            last_verified: None,
            mismatches: 0,
            compared: 0,
            resync: None,
            pending: Pending::default(),
            lag: Lag::default(),
            limit: None,
        }
    }
}
