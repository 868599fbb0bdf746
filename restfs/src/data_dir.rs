//! The data directory: metadata, blocks, socket, and the lock that makes its user the only one.
//!
//! ```text
//! DATA/lock          held (flock) by the server, or by a command while no server runs
//! DATA/metadata.db   metadata store
//! DATA/commits/      commit log: what the metadata store can be made anew from
//! DATA/blocks/       block store
//! DATA/scrub.json    how far a scrub has come, what the last one found
//! DATA/gc.json       whether a collection is under way, what the last one did
//! DATA/spare         space that is kept for a start on a full disk
//! DATA/restfs.sock   socket of a running server
//! ```

use crate::config::Config;
use crate::metadata::commits::{self, Rebuilt};
use crate::service::{Service, Space, Upkeep};
use crate::spare::{NEEDED, Spare};
use crate::storage::fs::{FsStore, Options as StoreOptions};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("data directory {path}: {why}; {advice}")]
    Unusable {
        path: String,
        why: String,
        advice: String,
    },
    #[error("data directory {path} is in use by another restfs process; stop it first")]
    Locked { path: String },
    #[error(
        "data directory {path}: {free} bytes are free, {NEEDED} are needed for a new one; free space or enlarge the file system"
    )]
    Full { path: String, free: u64 },
    #[error(transparent)]
    Metadata(commits::LogError),
    #[error("block store: {0}")]
    Blocks(crate::storage::StoreError),
}

/// A data directory that is nobody else's as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: OwnedFd,
}

impl DataDir {
    /// Makes the directory, private to this user, when it is not there but the folder above it is.
    pub fn create(path: &Path) -> Result<Self, DataDirError> {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => tracing::debug!("made the data directory {}", path.display()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let advice = "make the folder above it, or set `data_dir` to another place";
                return Err(unusable(path, &error, advice));
            }
        }
        Self::lock(path)
    }

    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        check(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::open(path.join("lock"), flags, Mode::RUSR | Mode::WUSR).map_err(|error| {
            unusable(
                path,
                &io::Error::from(error),
                "give it to the user that runs restfs",
            )
        })?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::Locked {
                path: path.display().to_string(),
            }),
            Err(error) => Err(unusable(path, &io::Error::from(error), "check the file system")),
        }
    }

    pub fn socket(&self) -> PathBuf {
        socket_of(&self.path)
    }

    /// Makes the metadata store anew from the commit log. With `replace`, a database that is there is put aside.
    pub fn rebuild(&self, config: &Config, replace: bool) -> Result<Rebuilt, DataDirError> {
        commits::rebuild(&self.path, config.metadata_cache, replace).map_err(DataDirError::Metadata)
    }

    /// Opens metadata and blocks, on a full disk too.
    pub fn open(&self, config: &Config) -> Result<Arc<Service>, DataDirError> {
        let free = Spare::of(&self.path)
            .release_if_needed()
            .map_err(|error| unusable(&self.path, &error, "check the file system"))?;
        // One that has something serves it as long as that goes, and says by itself that it is full.
        if free < NEEDED && !self.path.join(commits::DATABASE).exists() {
            return Err(DataDirError::Full {
                path: self.path.display().to_string(),
                free,
            });
        }
        let kv = commits::open(&self.path, config.metadata_cache).map_err(DataDirError::Metadata)?;
        let options = StoreOptions {
            cache_bytes: config.block_cache,
            ..StoreOptions::default()
        };
        let blocks = FsStore::open(&self.path.join("blocks"), &options).map_err(DataDirError::Blocks)?;
        let kv = Arc::new(kv);
        let upkeep = Upkeep::new(kv.clone(), &self.path, config.scrub, config.gc);
        let space = Space::new(&self.path, config.space);
        Service::new(kv, Arc::new(blocks), upkeep, space)
            .map_err(|error| unusable(&self.path, &error, "too many threads run on this machine"))
    }
}

/// Where a server of this data directory listens for commands.
pub fn socket_of(data_dir: &Path) -> PathBuf {
    data_dir.join("restfs.sock")
}

fn check(path: &Path) -> Result<(), DataDirError> {
    let found = std::fs::metadata(path).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "make it with `restfs init`, or correct `data_dir`",
            _ => "run this as the user that runs restfs, or as root",
        };
        unusable(path, &error, advice)
    })?;
    let problem = |why: &str, advice: &str| DataDirError::Unusable {
        path: path.display().to_string(),
        why: why.to_owned(),
        advice: advice.to_owned(),
    };
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() {
        return Err(problem("not a directory", "set `data_dir` to a directory"));
    }
    if found.uid() != own {
        let why = format!("it belongs to user {}, this is user {own}", found.uid());
        let advice = format!("`chown -R {own} {}`, or run this as its owner", path.display());
        return Err(problem(&why, &advice));
    }
    if found.mode() & 0o077 != 0 {
        let advice = format!("`chmod 700 {}`", path.display());
        return Err(problem(
            "others can look into it (it holds all files of the shares)",
            &advice,
        ));
    }
    Ok(())
}

fn unusable(path: &Path, error: &io::Error, advice: &str) -> DataDirError {
    DataDirError::Unusable {
        path: path.display().to_string(),
        why: error.to_string(),
        advice: advice.to_owned(),
    }
}
