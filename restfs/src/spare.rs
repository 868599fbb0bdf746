//! `DATA/spare`: space that is kept for a start. A server that was killed on a full disk needs some (SQLite's files, what the
//! crash left to be taken in), and whoever else writes to that disk may have taken all that was free.

use restfs_lib::disk::want_of_room;
use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs, syncfs};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const NAME: &str = "spare";
/// What a start needs at most, as a rule: a write-ahead log, an index of what was written last.
pub(crate) const NEEDED: u64 = 32 * 1024 * 1024;
/// Of a small file system only this part is kept.
const PART: u64 = 20;
/// Unit of `st_blocks`.
const SECTOR: u64 = 512;

pub(crate) struct Spare {
    folder: PathBuf,
}

impl Spare {
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.to_owned(),
        }
    }

    /// Before a start: gives the space up when there is not enough without it. Bytes that are free then.
    pub(crate) fn release_if_needed(&self) -> io::Result<u64> {
        let free = self.look()?.free();
        // What is free on btrfs says nothing of quotas.
        let refused = want_of_room(&self.folder);
        if free >= NEEDED && refused.is_none() {
            return Ok(free);
        }
        match std::fs::remove_file(self.folder.join(NAME)) {
            Ok(()) => {
                let why = refused.map(|error| format!(" ({error})")).unwrap_or_default();
                tracing::warn!("{free} bytes are free{why}: the space that is kept for a start is used");
                // btrfs gives it back to the quota with the next sync.
                if let Err(error) = File::open(&self.folder).and_then(|folder| Ok(syncfs(folder)?)) {
                    tracing::warn!("syncing the file system of {}: {error}", self.folder.display());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(self.look()?.free())
    }

    /// Takes the space again, as far as there is any: half of what is free stays free. What cannot be had is tried for again
    /// by the next call.
    pub(crate) fn keep(&self) {
        if let Err(error) = self.try_to_keep() {
            tracing::debug!("no space is kept for the next start: {error}");
        }
    }

    fn try_to_keep(&self) -> io::Result<()> {
        let place = self.look()?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.folder.join(NAME))?;
        let kept = file.metadata()?.blocks() * SECTOR;
        let mut wanted = NEEDED.min(place.size() / PART).min(kept + place.free() / 2);
        let mut done = Ok(());
        // A quota may leave less than what is free.
        while wanted > kept {
            done = fallocate(&file, FallocateFlags::empty(), 0, wanted);
            if done != Err(Errno::DQUOT) {
                break;
            }
            wanted /= 2;
        }
        Ok(done?)
    }

    fn look(&self) -> io::Result<FileSystem> {
        Ok(FileSystem(statvfs(&self.folder)?))
    }
}

struct FileSystem(StatVfs);

impl FileSystem {
    fn free(&self) -> u64 {
        self.0.f_bavail.saturating_mul(self.0.f_frsize)
    }

    fn size(&self) -> u64 {
        self.0.f_blocks.saturating_mul(self.0.f_frsize)
    }
}
