//! Room on the disk of `state_dir`. Below its reserve nothing is taken any more that can be left out: written data (mode `copy`),
//! contents kept for sites, clones on the same disk. What that leaves is for the records, the catalog, and the files of modules.
//!
//! Records themselves are taken until the disk is really full: they are what the reserve is for (modules leave as much to them), and
//! one that is refused is a gap and a comparison of the share, which takes more space in the catalog than the record would have.

use super::ShareEngine;
use crate::status::SpaceReport;
use restfs_lib::disk::{Level, Marks, Watermarks};
use rustix::fs::statvfs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without an option the reserve has this much at most: what a burst of records takes, with the catalog's part.
const MOST: u64 = 256 << 20;

pub(super) struct Space {
    state_dir: PathBuf,
    device: u64,
    watermarks: Watermarks,
    level: Mutex<Level>,
    /// The level that the log has told of.
    told: Mutex<Level>,
}

/// Free bytes, and the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    free: u64,
    marks: Marks,
}

impl Space {
    pub(super) fn of(state_dir: &Path, watermarks: Watermarks) -> io::Result<Self> {
        let space = Self {
            device: std::fs::metadata(state_dir)?.dev(),
            state_dir: state_dir.to_owned(),
            watermarks,
            level: Mutex::default(),
            told: Mutex::default(),
        };
        // Before anything is taken. Told once vfsxd runs: a start that fails says why in one line.
        space.note(space.room()?);
        Ok(space)
    }

    /// Less than the reserve is free.
    pub(super) fn is_full(&self) -> bool {
        self.level() == Level::Full
    }

    /// Whether what is in this directory takes from the same space.
    pub(super) fn is_on_it(&self, directory: &Path) -> bool {
        std::fs::metadata(directory).is_ok_and(|found| found.dev() == self.device)
    }

    /// `None`: the file system does not tell.
    pub(super) fn report(&self) -> Option<SpaceReport> {
        let Room { free, marks } = self.room().ok()?;
        Some(SpaceReport {
            path: self.state_dir.display().to_string(),
            level: match self.level() {
                Level::Roomy => "ok",
                Level::Low => "low",
                Level::Full => "full",
            }
            .to_owned(),
            free_bytes: free,
            warn_bytes: marks.warn,
            reserve_bytes: marks.reserve,
        })
    }

    fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self) -> io::Result<Room> {
        let found = statvfs(&self.state_dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Room {
            free: bytes(found.f_bavail),
            marks: self.watermarks.on(bytes(found.f_blocks), MOST),
        })
    }

    fn look(&self) -> io::Result<()> {
        let room = self.room()?;
        self.note(room);
        self.tell(room);
        Ok(())
    }

    fn note(&self, Room { free, marks }: Room) {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        *level = marks.level(*level, free);
    }

    /// Once for each crossing.
    fn tell(&self, Room { free, marks }: Room) {
        let now = self.level();
        let before = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *told, now)
        };
        let place = self.state_dir.display();
        match now {
            _ if now == before => {}
            Level::Full => tracing::error!(
                "{free} bytes are free in state_dir {place}, less than the reserve of {}: written data and contents for sites that are behind are not kept, so points may be fuzzy",
                marks.reserve
            ),
            Level::Low => tracing::warn!(
                "{free} bytes are free in state_dir {place}, less than {}; below {} points may be fuzzy, and when nothing is left changes are missed until the share is compared",
                marks.warn,
                marks.reserve
            ),
            Level::Roomy => tracing::info!("{free} bytes are free in state_dir {place} again"),
        }
    }
}

pub(super) async fn watch(space: Arc<Space>, shares: Vec<Arc<ShareEngine>>) {
    loop {
        let (looked, told) = (Arc::clone(&space), shares.clone());
        // A disk that hangs holds up this thread alone.
        let look = tokio::task::spawn_blocking(move || {
            let outcome = looked.look();
            told.iter().for_each(|share| share.heed_space());
            outcome
        });
        match look.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the free space of state_dir is not known"),
            Err(error) => tracing::error!(%error, "looking at the free space of state_dir panicked"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_the_configuration_are_in_force_on_the_disk_as_it_is() {
        let scratch = tempfile::tempdir().expect("scratch");
        let with = |warn, reserve| {
            let space = Space::of(scratch.path(), Watermarks { warn, reserve }).expect("looks");
            let told = space.report().expect("is told");
            assert_eq!(told.path, scratch.path().display().to_string());
            (told.level, space.is_full())
        };
        assert_eq!(with(Some(0), Some(0)), ("ok".to_owned(), false));
        assert_eq!(with(Some(u64::MAX), Some(0)), ("low".to_owned(), false));
        assert_eq!(with(Some(u64::MAX), Some(u64::MAX)), ("full".to_owned(), true));
    }

    #[test]
    fn another_disk_takes_nothing_from_it() {
        let (here, there) = (tempfile::tempdir().expect("scratch"), Path::new("/proc"));
        let space = Space::of(here.path(), Watermarks::default()).expect("looks");
        assert!(space.is_on_it(here.path()) && !space.is_on_it(there));
    }
}
