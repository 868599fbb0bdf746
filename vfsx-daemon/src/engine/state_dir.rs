//! The state directory, owned by one vfsxd.

use crate::intake::{Left, prepare_spool};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    #[error("state_dir {path}: another vfsxd uses it; stop that one, or set another state_dir")]
    InUse { path: String },
    #[error("state_dir {path}: {source}")]
    Io { path: String, source: io::Error },
}

/// Locked as long as it lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing, and takes its lock.
    pub fn take(path: &Path) -> Result<Self, StateDirError> {
        let fail = |at: &Path| {
            let path = at.display().to_string();
            move |source| StateDirError::Io { path, source }
        };
        make(path).map_err(fail(path))?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&lock_path).map_err(fail(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateDirError::InUse {
                    path: path.display().to_string(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(fail(&lock_path)(source)),
        }
        for name in ["gaps", "spool"] {
            make(&path.join(name)).map_err(fail(path))?;
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where modules leave files for a vfsxd that listens at `socket`.
    pub fn left(&self, socket: &Path) -> Left {
        let beside = socket.parent().unwrap_or(Path::new("/"));
        Left {
            gaps: self.path.join("gaps"),
            // Not on a disk: a module's main thread writes them.
            standing: beside.join("gaps"),
            spool: self.path.join("spool"),
        }
    }

    /// Makes the directories that modules write to, and removes those of shares that are gone.
    pub fn prepare(&self, shares: &[&str]) -> Result<(), StateDirError> {
        let spool = self.path.join("spool");
        prepare_spool(&spool, shares).map_err(|source| StateDirError::Io {
            path: spool.display().to_string(),
            source,
        })
    }

    /// The directory of a share, made where it is missing.
    pub fn share(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join("shares").join(name);
        make(&path)?;
        Ok(path)
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_owner() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("a/b");
        let first = StateDir::take(&path).expect("makes it");
        assert!(matches!(StateDir::take(&path), Err(StateDirError::InUse { .. })));
        drop(first);
        StateDir::take(&path).expect("free again");
    }
}
