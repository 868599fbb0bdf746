//! A gap that is not in the journal yet.
//!
//! The journal cannot take a gap when its disk is full, so the place for one is reserved: a file of one page that is
//! overwritten where it is. What stands there at a start becomes the gap record that the last run could not write.

use crate::journal::GapReason;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of the file: one block of all file systems there are, so overwriting it needs no space.
const SIZE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingGap {
    /// Nanoseconds since the epoch.
    pub since_ns: i64,
    pub reason: GapReason,
}

pub(super) struct GapReserve {
    file: File,
    pending: Option<PendingGap>,
    /// What is pending stands in the file, too.
    kept: bool,
}

impl GapReserve {
    /// Opens the file, or makes it with its space allocated.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(path)?;
        if file.metadata()?.len() < SIZE as u64 {
            file.write_all_at(&[0; SIZE], 0)?;
            file.sync_all()?;
            return Ok(Self {
                file,
                pending: None,
                kept: true,
            });
        }
        let mut page = vec![0; SIZE];
        file.read_exact_at(&mut page, 0)?;
        Ok(Self {
            pending: parse(&page),
            file,
            kept: true,
        })
    }

    pub(super) fn pending(&self) -> Option<PendingGap> {
        self.pending
    }

    /// Keeps the gap; the earliest time and the first reason stay. In memory it is kept even when this fails.
    pub(super) fn raise(&mut self, gap: PendingGap) -> io::Result<()> {
        let merged = match self.pending {
            Some(old) if old.since_ns <= gap.since_ns && self.kept => return Ok(()),
            Some(old) if old.since_ns <= gap.since_ns => old,
            Some(old) => PendingGap {
                since_ns: gap.since_ns,
                ..old
            },
            None => gap,
        };
        self.pending = Some(merged);
        self.kept = false;
        let mut page = serde_json::to_vec(&merged)?;
        page.resize(SIZE, 0);
        self.write(&page)?;
        self.kept = true;
        Ok(())
    }

    /// The gap is in the journal, synced.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.pending = None;
        self.write(&[0; SIZE])
    }

    fn write(&self, page: &[u8]) -> io::Result<()> {
        self.file.write_all_at(page, 0)?;
        self.file.sync_data()
    }
}

fn parse(page: &[u8]) -> Option<PendingGap> {
    let text = page.split(|b| *b == 0).next().unwrap_or_default();
    if text.is_empty() {
        return None;
    }
    // A torn page still says that there was a gap.
    let unknown = PendingGap {
        since_ns: 0,
        reason: GapReason::Unknown,
    };
    Some(serde_json::from_slice(text).unwrap_or(unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_survives_until_it_is_cleared_and_keeps_its_earliest_time() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("gap");
        let mut reserve = GapReserve::open(&path).expect("makes it");
        assert_eq!(reserve.pending(), None);
        let gap = |since_ns| PendingGap {
            since_ns,
            reason: GapReason::JournalFailed,
        };
        reserve.raise(gap(50)).expect("writes");
        reserve.raise(gap(70)).expect("writes");
        reserve.raise(gap(30)).expect("writes");
        let mut reserve = GapReserve::open(&path).expect("opens");
        assert_eq!(reserve.pending(), Some(gap(30)));
        reserve.clear().expect("writes");
        assert_eq!(GapReserve::open(&path).expect("opens").pending(), None);
    }

    #[test]
    fn a_torn_page_is_a_gap() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("gap");
        let mut page = vec![0; SIZE];
        page[..9].copy_from_slice(b"{\"since_n");
        std::fs::write(&path, page).expect("writes");
        let pending = GapReserve::open(&path).expect("opens").pending();
        assert_eq!(pending.map(|g| g.reason), Some(GapReason::Unknown));
    }
}
