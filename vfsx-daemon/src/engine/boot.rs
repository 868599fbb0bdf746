//! Whether the machine has stopped under a running vfsxd. What clients had changed in the last moments before may then be
//! neither in the journal nor on disk, and what was read from the share may be newer than what is there.
//!
//! A file says on which boot of the machine vfsxd runs, from a start to a clean stop.

use rustix::fs::syncfs;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is noted that the shares have changed.
pub(super) const NOTE_EVERY: Duration = Duration::from_secs(30);
/// The kernel writes changes to the disk within this time, unless it is told otherwise (35 s, and up to 5 s until the file
/// system's own journal is written).
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    boot: String,
    /// When the shares were last known to change, nanoseconds since the epoch.
    changed_ns: i64,
}

pub(super) struct Boot {
    path: PathBuf,
    id: String,
}

impl Boot {
    /// Gives the time from which on changes may be lost, when the machine has stopped under the last run; 0: nobody knows. The file
    /// is left as it is: whoever was told and ends is told again.
    pub(super) fn look(state_dir: &Path) -> io::Result<(Self, Option<i64>)> {
        let boot = Self {
            path: state_dir.join("boot"),
            id: fs::read_to_string(BOOT_ID)?.trim().to_owned(),
        };
        let since = match fs::read(&boot.path) {
            Ok(text) => boot.lost_since(&text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok((boot, since))
    }

    fn lost_since(&self, text: &[u8]) -> Option<i64> {
        // It is written whole, so damage is a disk's.
        let Ok(mark) = serde_json::from_slice::<Mark>(text) else {
            return Some(0);
        };
        let written_within = WRITTEN_WITHIN.as_nanos() as i64;
        (mark.boot != self.id).then(|| mark.changed_ns.saturating_sub(written_within).max(0))
    }

    /// vfsxd runs, and the shares have changed by `now_ns`. Durable.
    pub(super) fn note(&self, now_ns: i64) -> io::Result<()> {
        let mark = Mark {
            boot: self.id.clone(),
            changed_ns: now_ns,
        };
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&mark)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        self.sync_directory()
    }

    /// vfsxd has stopped with all that it knew of the shares on their disks. Durable.
    pub(super) fn end(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// Brings everything that was written on the directory's file system to the disk.
pub(super) fn write_back(directory: &Path) -> io::Result<()> {
    Ok(syncfs(File::open(directory)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTED: i64 = 1_700_000_000_000_000_000;

    fn since(state: &Path) -> Option<i64> {
        Boot::look(state).expect("reads").1
    }

    #[test]
    fn a_kill_of_vfsxd_alone_loses_nothing_and_neither_does_a_clean_stop() {
        let scratch = tempfile::tempdir().expect("scratch");
        assert_eq!(since(scratch.path()), None, "the first start");
        let (boot, _) = Boot::look(scratch.path()).expect("reads");
        boot.note(NOTED).expect("writes");
        assert_eq!(since(scratch.path()), None, "killed");
        boot.end().expect("removes");
        assert_eq!(since(scratch.path()), None, "stopped");
    }

    #[test]
    fn what_may_not_have_reached_the_disk_when_the_machine_stopped_is_in_doubt_until_it_is_noted() {
        let scratch = tempfile::tempdir().expect("scratch");
        let (mut boot, _) = Boot::look(scratch.path()).expect("reads");
        boot.id = "another".to_owned();
        boot.note(NOTED).expect("writes");
        let expected = Some(NOTED - WRITTEN_WITHIN.as_nanos() as i64);
        assert_eq!(since(scratch.path()), expected);
        assert_eq!(since(scratch.path()), expected, "until it is noted");
        fs::write(&boot.path, b"{\"boot\":").expect("writes");
        assert_eq!(since(scratch.path()), Some(0), "damaged");
    }
}
