//! Values of the rows. Own types: what the journal or the model changes does not change the store.

use super::table::Row;
use crate::catalog::share::{Doubt, Stamp};
use crate::journal::NodeRef;
use restfs_lib::model::Time;
use serde::{Deserialize, Serialize};

/// `M source`: made with the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct SourceRow {
    /// Name of this source: 128 random bits.
    pub(in crate::catalog) id: [u8; 16],
    /// The share's root directory.
    pub(in crate::catalog) root: NodeRef,
}

/// `M devices`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::catalog) struct DevicesRow {
    /// Numbers that the root's device has and had, newest first.
    pub(in crate::catalog) numbers: Vec<u64>,
}

/// `M head`: written by every transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::catalog) struct HeadRow {
    /// Journal records up to here are in the catalog.
    pub(in crate::catalog) applied: u64,
    /// Newest change.
    pub(in crate::catalog) change: u64,
    /// Oldest change still in the log; `change + 1` when there is none.
    pub(in crate::catalog) oldest: u64,
    /// Plain bytes of the blocks that all changes so far have named.
    pub(in crate::catalog) bytes: u64,
    pub(in crate::catalog) next_object: u64,
}

/// `M cut`: the change log is made in rounds, or was when it was written last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::catalog) struct CutRow {
    /// Last change behind which the tree was exact.
    pub(in crate::catalog) marked: u64,
    /// Journal records behind the applied sequence that are in the catalog, too.
    pub(in crate::catalog) beyond: Vec<u64>,
}

/// `M cursor/SITE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct CursorRow {
    pub(in crate::catalog) epoch: u64,
    pub(in crate::catalog) sequence: u64,
}

/// `M behind/SITE`: of the first change that the site lacks, when it is no longer in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct BehindRow {
    /// Of that change.
    pub(in crate::catalog) sequence: u64,
    /// As in its row.
    pub(in crate::catalog) oldest_ns: i64,
    pub(in crate::catalog) bytes: u64,
}

/// `M gap`: there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct GapRow {
    pub(in crate::catalog) since_ns: i64,
    /// One line for a person; of the first report.
    pub(in crate::catalog) reason: String,
    /// Journal sequence of the newest report: a scan closes it when it began behind this.
    pub(in crate::catalog) newest: u64,
}

/// `M last-gap`: the one that was closed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct LastGapRow {
    pub(in crate::catalog) since_ns: i64,
    /// When the scan that closed it was done.
    pub(in crate::catalog) until_ns: i64,
    pub(in crate::catalog) reason: String,
}

/// Clocks that disagree, and file systems whose times lag behind the clock.
const CLOCKS_NS: i64 = 60_000_000_000;

impl GapRow {
    /// Whether a stamp tells nothing of the file's content. One from before the gap does: a write that nobody told of has moved
    /// the file's since. A later one is that of a read which a write after the gap asked for, of the bytes of that write
    /// alone.
    pub(in crate::catalog) fn doubts(&self, stamp: StampRow) -> bool {
        Stamp::from(stamp).ctime.ns() >= i128::from(self.since_ns.saturating_sub(CLOCKS_NS))
    }
}

/// `M exclude`: names that are not replicated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::catalog) struct ExcludeRow {
    /// `/pattern/pattern/`.
    pub(in crate::catalog) text: Vec<u8>,
    pub(in crate::catalog) case_sensitive: bool,
    /// When the tree connect began that brought them. What an older one says counts no more.
    pub(in crate::catalog) since_ns: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::catalog) enum ScanPhase {
    #[default]
    Done,
    Needed,
    /// Directories are being listed: there are `S` rows of this scan.
    Walking,
    /// All are listed; files found to differ are being read.
    Reading,
}

/// `M scan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::catalog) struct ScanRow {
    pub(in crate::catalog) phase: ScanPhase,
    /// Number of the scan that runs or ran last.
    pub(in crate::catalog) number: u64,
    /// Another one was asked for while this one ran.
    pub(in crate::catalog) again: bool,
    pub(in crate::catalog) started_ns: i64,
    /// Applied journal sequence when it began.
    pub(in crate::catalog) began: u64,
    /// Applied journal sequence when the walk ended.
    pub(in crate::catalog) walked: u64,
    pub(in crate::catalog) directories: u64,
    pub(in crate::catalog) files: u64,
    pub(in crate::catalog) bytes: u64,
    pub(in crate::catalog) differences: u64,
}

impl ExcludeRow {
    /// Whether these are to be in force instead. The clock may have been set back since the others were brought.
    pub(in crate::catalog) fn replaces(&self, old: &Self, now_ns: i64) -> bool {
        let same = (&self.text, self.case_sensitive) == (&old.text, old.case_sensitive);
        !same && (self.since_ns >= old.since_ns || old.since_ns > now_ns)
    }
}

impl ScanRow {
    /// Number of the scan that finished last.
    pub(in crate::catalog) fn finished(&self) -> u64 {
        match self.phase {
            ScanPhase::Done | ScanPhase::Needed => self.number,
            ScanPhase::Walking | ScanPhase::Reading => self.number.saturating_sub(1),
        }
    }

    /// Number of the last scan that has been everywhere; what it found may still have to be read.
    pub(in crate::catalog) fn last_walked(&self) -> u64 {
        match self.phase {
            ScanPhase::Reading => self.number,
            _ => self.finished(),
        }
    }
}

/// `N`: an object's inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct NodeRow {
    pub(in crate::catalog) node: NodeRef,
    /// Names that the inode had when it was last seen.
    pub(in crate::catalog) names: u32,
    /// When the content was last read whole or in its dirty parts; zeros when it never was.
    pub(in crate::catalog) stamp: StampRow,
    /// Of a directory: the last scan that listed it.
    pub(in crate::catalog) scan: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::catalog) struct StampRow {
    size: u64,
    mtime: (i64, u32),
    /// See [`StampRow::of`].
    ctime: (i64, u32),
}

impl From<Stamp> for StampRow {
    fn from(stamp: Stamp) -> Self {
        Self::of(stamp, Doubt::None)
    }
}

/// Nanoseconds of a second: what a change time has more of says what the stamp does not tell.
const SECOND: u32 = 1_000_000_000;

impl StampRow {
    pub(in crate::catalog) fn of(stamp: Stamp, doubt: Doubt) -> Self {
        let more = match doubt {
            Doubt::None => 0,
            Doubt::Metadata => SECOND,
            Doubt::Content => 2 * SECOND,
        };
        let (mtime, ctime) = (stamp.mtime, stamp.ctime);
        Self {
            size: stamp.size,
            mtime: (mtime.seconds, mtime.nanoseconds),
            ctime: (ctime.seconds, ctime.nanoseconds % SECOND + more),
        }
    }

    pub(in crate::catalog) fn doubt(self) -> Doubt {
        match self.ctime.1 / SECOND {
            0 => Doubt::None,
            1 => Doubt::Metadata,
            _ => Doubt::Content,
        }
    }
}

impl From<StampRow> for Stamp {
    fn from(row: StampRow) -> Self {
        let time = |(seconds, nanoseconds)| Time { seconds, nanoseconds };
        Self {
            size: row.size,
            mtime: time(row.mtime),
            ctime: time((row.ctime.0, row.ctime.1 % SECOND)),
        }
    }
}

/// Whether metadata is to be read, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(in crate::catalog) enum Touch {
    #[default]
    No,
    /// It may differ. An access time that does is no change: reading a file moves it.
    Looked,
    /// A client has set something, which may be the access time.
    Told,
}

/// `D`: what of an object is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::catalog) struct DirtRow {
    /// Journal sequence of the oldest record that is not read for yet.
    pub(in crate::catalog) journal: u64,
    /// Times of the oldest and of the newest such record.
    pub(in crate::catalog) first_ns: i64,
    pub(in crate::catalog) last_ns: i64,
    /// Metadata is to be read, too.
    pub(in crate::catalog) touched: Touch,
    /// Bytes of the file as far as known; for progress only.
    pub(in crate::catalog) size: u64,
    /// Half-open byte ranges, sorted, apart.
    pub(in crate::catalog) ranges: Vec<(u64, u64)>,
}

/// `W`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct IntentRow {
    pub(in crate::catalog) node: NodeRef,
    pub(in crate::catalog) path_hint: Vec<u8>,
}

/// `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct DisplacedRow {
    pub(in crate::catalog) since_ns: i64,
    /// An event said that the inode's only name was removed.
    pub(in crate::catalog) dead: bool,
    /// When this scan has finished without finding it, it is nowhere.
    pub(in crate::catalog) scan: u64,
    /// Names in it were to be looked at since: it is listed when it has a name again.
    pub(in crate::catalog) relist: bool,
}

/// `Q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct LookRow {
    pub(in crate::catalog) journal: u64,
    pub(in crate::catalog) time_ns: i64,
    /// Found by a scan: compare the stat, too.
    pub(in crate::catalog) check: bool,
}

/// `U`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct LostRow {
    pub(in crate::catalog) journal: u64,
    pub(in crate::catalog) since_ns: i64,
}

/// `S`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct ListRow {
    pub(in crate::catalog) journal: u64,
    /// Compare all that is in it, and what is below, for this scan; 0: take in what is not known.
    pub(in crate::catalog) scan: u64,
}

macro_rules! rows {
    ($($row:ident $version:literal $what:literal),* $(,)?) => {
        $(impl Row for $row {
            const VERSION: u8 = $version;
            const WHAT: &'static str = $what;
        })*
    };
}

rows! {
    SourceRow 1 "source row",
    DevicesRow 1 "devices row",
    HeadRow 1 "head row",
    CursorRow 1 "cursor row",
    BehindRow 1 "behind row",
    CutRow 1 "cut row",
    GapRow 1 "gap row",
    LastGapRow 1 "last gap row",
    ExcludeRow 1 "exclude row",
    ScanRow 1 "scan row",
    NodeRow 1 "node row",
    DirtRow 1 "dirt row",
    IntentRow 1 "intent row",
    DisplacedRow 1 "displaced row",
    LookRow 1 "look row",
    LostRow 1 "lost row",
    ListRow 1 "list row",
}
