//! Scans as the applier sees them: which directories are to be listed, what the scanner found, when a scan is done.

use super::work::{Cause, Work};
use crate::catalog::CatalogError;
use crate::catalog::dirt::{Dirt, WHOLE};
use crate::catalog::store::{GapRow, Key, LastGapRow, ListRow, NodeRow, ScanPhase, ScanRow, delete, put};
use restfs_lib::model::{Kind, ObjectId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A lost directory is given up after so many times the grace: its own event would have come.
const LOST: i64 = 12;
/// Names in them that are tried at once.
const GIVEN_UP: usize = 64;
/// Least time between scans that the catalog asks for by itself.
const SCANS_APART: Duration = Duration::from_secs(600);
/// And of those for processes that were killed, in times of the grace: a million files take about as long (10 s).
const AFTER_KILLS_APART: u32 = 2;

/// What the scanner found in some directories.
#[derive(Default)]
pub(in crate::catalog) struct Page {
    /// Names that differ from the catalog, with the list that they were found for.
    pub(in crate::catalog) looks: Vec<(ObjectId, Vec<u8>, ListRow)>,
    /// Directories in them.
    pub(in crate::catalog) below: Vec<(ObjectId, ListRow)>,
    /// Directories that are done with.
    pub(in crate::catalog) listed: Vec<(ObjectId, ListRow)>,
    /// Directories that could not be reached.
    pub(in crate::catalog) away: Vec<ObjectId>,
    /// Objects to be read again whole, though nothing says that they have changed.
    pub(in crate::catalog) again: Vec<ObjectId>,
    pub(in crate::catalog) files: u64,
    pub(in crate::catalog) bytes: u64,
    pub(in crate::catalog) error: Option<String>,
}

impl Page {
    /// Takes in what was found behind this.
    pub(in crate::catalog) fn append(&mut self, mut other: Self) {
        self.looks.append(&mut other.looks);
        self.below.append(&mut other.below);
        self.listed.append(&mut other.listed);
        self.away.append(&mut other.away);
        self.again.append(&mut other.again);
        self.files += other.files;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.error = other.error.or(self.error.take());
    }

    pub(in crate::catalog) fn is_empty(&self) -> bool {
        self.looks.is_empty()
            && self.below.is_empty()
            && self.listed.is_empty()
            && self.away.is_empty()
            && self.again.is_empty()
            && self.error.is_none()
    }
}

impl Work<'_> {
    /// Asks for a scan. Returns its number.
    pub(super) fn request_scan(&mut self) -> Result<u64, CatalogError> {
        match self.memory.scan.phase {
            ScanPhase::Done => self.memory.scan.phase = ScanPhase::Needed,
            ScanPhase::Needed => {}
            ScanPhase::Walking | ScanPhase::Reading => {
                self.memory.scan.again = true;
                self.put_scan()?;
                return Ok(self.memory.scan.number + 1);
            }
        }
        self.put_scan()?;
        Ok(self.memory.scan.number + 1)
    }

    /// Moves the scan on when it can be.
    pub(super) fn step_scan(&mut self) -> Result<(), CatalogError> {
        self.follow_clock()?;
        // A gap that records before it are still to be applied of would stay open behind the scan.
        let is_known = |gap: &GapRow| gap.newest <= self.memory.head.applied;
        let due = self.memory.scan_due.is_some_and(|due| due <= self.now);
        if due && self.memory.gap.as_ref().is_none_or(is_known) {
            self.memory.scan_due = None;
            self.request_scan()?;
        }
        match self.memory.scan.phase {
            ScanPhase::Done => Ok(()),
            ScanPhase::Needed => self.begin_scan(),
            ScanPhase::Walking if self.memory.lists == 0 => {
                self.memory.scan.phase = ScanPhase::Reading;
                self.memory.scan.walked = self.memory.head.applied;
                self.put_scan()
            }
            ScanPhase::Walking => Ok(()),
            ScanPhase::Reading => {
                // What a scan finds waits under a sequence of at most the one after the records applied by then.
                let settled = self.memory.scan.walked + 1;
                match self.memory.holds.oldest() {
                    // What it waits for may be in a directory that went away behind it, of which only the next can tell.
                    Some(oldest)
                        if oldest <= settled && self.memory.scan.again && self.awaits_next_scan()? =>
                    {
                        self.begin_scan()
                    }
                    Some(oldest) if oldest <= settled => Ok(()),
                    _ => self.finish_scan(),
                }
            }
        }
    }

    /// When the clock was set back in a gap, what was read in part since has stamps from before it.
    fn follow_clock(&mut self) -> Result<(), CatalogError> {
        match &mut self.memory.gap {
            Some(gap) if gap.since_ns > self.now_ns => {
                gap.since_ns = self.now_ns;
                put(self.kv, &Key::meta("gap"), &*gap)
            }
            _ => Ok(()),
        }
    }

    fn begin_scan(&mut self) -> Result<(), CatalogError> {
        let number = self.memory.scan.number + 1;
        self.memory.scan = ScanRow {
            phase: ScanPhase::Walking,
            number,
            started_ns: self.now_ns,
            began: self.memory.head.applied,
            ..ScanRow::default()
        };
        tracing::info!(scan = number, "scan begins");
        self.touched(ObjectId::ROOT);
        self.want_list(
            ObjectId::ROOT,
            ListRow {
                journal: self.memory.head.applied + 1,
                scan: number,
            },
        )?;
        self.put_scan()
    }

    fn finish_scan(&mut self) -> Result<(), CatalogError> {
        let scan = self.memory.scan;
        tracing::info!(
            scan = scan.number,
            directories = scan.directories,
            files = scan.files,
            differences = scan.differences,
            "scan is done"
        );
        if let Some(gap) = self.memory.gap.take_if(|gap| gap.newest <= scan.began) {
            self.close_gap(gap)?;
        }
        self.memory.scan.phase = if scan.again {
            ScanPhase::Needed
        } else {
            ScanPhase::Done
        };
        self.memory.scan.again = false;
        self.memory.dirty.end_scan();
        self.put_scan()
    }

    fn close_gap(&mut self, gap: GapRow) -> Result<(), CatalogError> {
        tracing::info!(reason = gap.reason, "the gap is closed");
        delete(self.kv, &Key::meta("gap"))?;
        let last = LastGapRow {
            since_ns: gap.since_ns,
            until_ns: self.now_ns,
            reason: gap.reason,
        };
        put(self.kv, &Key::meta("last-gap"), &last)?;
        self.memory.last_gap = Some(last);
        Ok(())
    }

    pub(super) fn put_scan(&mut self) -> Result<(), CatalogError> {
        put(self.kv, &Key::meta("scan"), &self.memory.scan)
    }

    pub(super) fn take_page(&mut self, page: Page) -> Result<(), CatalogError> {
        let before = self.cause;
        for (dir, name, list) in page.looks {
            self.cause = Cause::scan(list.journal, self.now_ns);
            self.look_later(dir, &name, true);
        }
        for (dir, row) in page.below {
            // Known to be a directory when it was listed; it may be gone by now, or listed already by way of a rename.
            if self.node_row(dir)?.is_some_and(|n| n.scan != row.scan) {
                self.want_list(dir, row)?;
            }
        }
        for (dir, row) in page.listed {
            self.listed(dir, row)?;
        }
        for dir in page.away {
            self.suspect(dir)?;
        }
        if let Some(error) = page.error {
            self.memory.note_error(error);
        }
        self.cause = Cause::scan(self.memory.head.applied + 1, self.now_ns);
        for id in page.again {
            self.read_again(id)?;
        }
        self.cause = before;
        self.memory.scan.files += page.files;
        self.memory.scan.bytes = self.memory.scan.bytes.saturating_add(page.bytes);
        self.put_scan()
    }

    fn read_again(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        match self.object(id)? {
            Some(object) if object.kind == Kind::File => {
                let now = self.now;
                self.add_dirt(id, &Dirt::of(WHOLE), object.size, now)
            }
            Some(_) => {
                self.touched(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn listed(&mut self, dir: ObjectId, row: ListRow) -> Result<(), CatalogError> {
        // A list that was asked for again while it was made is made again.
        if self.list_row(dir)? != Some(row) {
            return Ok(());
        }
        self.forget_list(dir)?;
        self.touched(dir);
        if row.scan != 0
            && let Some(node) = self.node_row(dir)?
        {
            self.memory.scan.directories += 1;
            self.put_node_row(
                dir,
                &NodeRow {
                    scan: row.scan,
                    ..node
                },
            )?;
        }
        Ok(())
    }

    /// Gives up directories that were lost too long ago. Only called when all records are applied.
    pub(super) fn give_up_lost(&mut self) -> Result<(), CatalogError> {
        let patience = LOST.saturating_mul(self.rules.grace.as_nanos() as i64);
        let before = self.now_ns.saturating_sub(patience);
        let old: Vec<_> = self
            .memory
            .lost
            .iter()
            .filter(|(_, row)| row.since_ns <= before)
            .map(|(n, _)| *n)
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        for node in old {
            self.unlose(&node)?;
        }
        self.lost_track("an event in a directory that cannot be found on the share")
    }

    /// A name waits to be looked at in a directory that cannot be found, for too long: it is in one that a local program took
    /// away, and only a scan can tell. Only called when all records are applied.
    pub(super) fn give_up_looks(&mut self) -> Result<(), CatalogError> {
        let memory = &self.memory;
        if memory.gap.is_some() || memory.scan.phase != ScanPhase::Done || memory.scan_due.is_some() {
            return Ok(());
        }
        let patience = self.rules.grace * LOST as u32;
        let old = |since: &Instant| self.now.saturating_duration_since(*since) >= patience;
        let waiting = memory.looks_since.iter().filter(|(_, since)| old(since));
        let dirs: BTreeSet<ObjectId> = waiting.map(|((dir, _), _)| *dir).take(GIVEN_UP).collect();
        for dir in dirs {
            if let Ok(None) = self.dir(dir) {
                return self.lost_track("a name in a directory that cannot be found on the share");
            }
        }
        Ok(())
    }

    /// Something cannot be explained any more: a gap, and a scan to close it.
    pub(super) fn lost_track(&mut self, what: &str) -> Result<(), CatalogError> {
        let before = self.cause;
        // Not of a record to come: a scan that begins now has to close it.
        self.cause = Cause::client(self.memory.head.applied, self.now_ns);
        self.note_gap(self.now_ns, what)?;
        self.cause = before;
        self.scan_soon(SCANS_APART);
        Ok(())
    }

    /// A process was killed while it changed something, which nobody may have noted: rare, and it has to be found soon.
    pub(super) fn scan_after_kill(&mut self) {
        self.scan_soon(self.rules.grace * AFTER_KILLS_APART);
    }

    fn scan_soon(&mut self, apart: Duration) {
        // Times ahead of the clock are of before it was set back.
        let passed = u64::try_from(self.now_ns.saturating_sub(self.memory.scan.started_ns));
        let passed = passed.map_or(apart, Duration::from_nanos);
        self.memory.scan_due = Some(self.now + apart.saturating_sub(passed));
    }
}
