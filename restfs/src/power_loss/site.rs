//! A site without sockets, on a disk of a test.

use crate::auth::Identity;
use crate::metadata::commits::{DATABASE, LogError, LoggedKv, Place, open_at, rebuild_on};
use crate::service::{GcOptions, ScrubOptions, Service, Space, Upkeep};
use crate::storage::fs::{FsStore, Options};
use restfs_lib::disk::Watermarks;
use restfs_lib::disk::faulty::{Faulty, Loss};
use restfs_lib::disk::hooked::Hooked;
use restfs_lib::wire::{Encoding, Method, Payload, RpcError};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NO_RESERVE: Watermarks = Watermarks {
    warn: None,
    reserve: Some(0),
};
const CACHE: usize = 256 * 1024;
/// So that a short workload has several packs and logs.
const PACK_SIZE: u64 = 4096;
const LOG_BYTES: u64 = 3000;
const INDEX: &str = "blocks/index.db";
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];
/// In the scratch folder: the SQLite files as they were when they were last known to be durable.
const SYNCED: &str = "synced";

/// What a restart finds of the SQLite files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Everything that was written.
    Kept,
    /// What was synced, and nothing later.
    Synced,
    /// Everything, but with an end of the write-ahead log that is no good.
    TornEnd,
    /// None of them.
    Lost,
    /// A database that is none, as after a failure of its disk.
    Damaged,
}

pub(super) struct Site {
    scratch: TempDir,
    disk: Faulty,
    runtime: Runtime,
    /// An admin is needed, and there.
    may_rebuild: bool,
    running: Option<Running>,
}

struct Running {
    service: Arc<Service>,
    kv: Arc<LoggedKv>,
}

impl Site {
    pub(super) fn new(disk: Faulty) -> Self {
        // In memory where there is such a place: only the test's own disk is to be slow and to fail.
        let scratch = tempfile::Builder::new();
        let scratch = match Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm"),
            false => scratch.tempdir(),
        };
        Self {
            scratch: scratch.unwrap(),
            disk,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
            may_rebuild: false,
            running: None,
        }
    }

    /// Calls that the first start makes.
    pub(super) fn calls_of_start() -> usize {
        let disk = Faulty::default();
        let mut site = Self::new(disk.clone());
        site.start().unwrap();
        disk.calls()
    }

    /// Starts it, from a database that is made anew where it has to be.
    pub(super) fn start(&mut self) -> Result<(), String> {
        self.running = None;
        let running = match self.open() {
            Err(OpenError::Log(error)) if self.may_rebuild && asks_for_rebuild(&error) => {
                let log = Arc::new(self.disk.directory("commits"));
                rebuild_on(self.folder(), log, CACHE, true).map_err(|e| format!("rebuild: {e}"))?;
                self.open()
            }
            opened => opened,
        };
        self.running = Some(running.map_err(|e| e.to_string())?);
        self.note_synced();
        Ok(())
    }

    fn open(&self) -> Result<Running, OpenError> {
        let (folder, synced) = (self.folder().to_owned(), self.scratch.path().join(SYNCED));
        let database = Hooked::new(self.folder(), move |_, _| keep_sqlite(&folder, &synced));
        let place = Place {
            data_dir: self.folder().to_owned(),
            database,
            log: Arc::new(self.disk.directory("commits")),
            log_bytes: LOG_BYTES,
        };
        let kv = Arc::new(open_at(&place, CACHE).map_err(OpenError::Log)?);
        let options = Options {
            pack_size: PACK_SIZE,
            cache_bytes: 0,
        };
        let packs = Arc::new(self.disk.directory("packs"));
        let blocks = FsStore::open_with(&self.folder().join("blocks"), &options, packs)
            .map_err(|e| OpenError::Other(e.to_string()))?;
        let upkeep = Upkeep::new(
            kv.clone(),
            self.folder(),
            ScrubOptions::default(),
            GcOptions::default(),
        );
        let space = Space::new(self.folder(), NO_RESERVE);
        let service = Service::new(kv.clone(), Arc::new(blocks), upkeep, space)
            .map_err(|e| OpenError::Other(e.to_string()))?;
        Ok(Running { service, kv })
    }

    pub(super) fn write_image(&self) -> Result<(), String> {
        let kv = &self.running.as_ref().unwrap().kv;
        kv.write_image().map(drop).map_err(|e| e.to_string())
    }

    /// Removes what purged points alone needed, then the blocks that nothing needs.
    pub(super) fn collect(&self) -> Result<(), RpcError> {
        let service = &self.running.as_ref().unwrap().service;
        self.runtime.block_on(service.sweep_purged())?;
        service.collect_now()
    }

    pub(super) fn call<M: Method>(&self, params: &M::Params) -> Result<M::Result, RpcError> {
        self.runtime.block_on(self.ask::<M>(params))
    }

    /// Two calls at once, which may share a transaction.
    pub(super) fn call_both<M: Method>(&self, params: [&M::Params; 2]) -> [Result<M::Result, RpcError>; 2] {
        let [one, other] = params;
        let both = async { tokio::join!(self.ask::<M>(one), self.ask::<M>(other)) };
        self.runtime.block_on(both).into()
    }

    async fn ask<M: Method>(&self, params: &M::Params) -> Result<M::Result, RpcError> {
        let service = &self.running.as_ref().unwrap().service;
        let identity = Arc::new(Identity::local());
        let params = Payload::encode(Encoding::Bson, params)?;
        service.call(&identity, M::NAME, params).await?.decode()
    }

    /// The site as it is found after the power was lost now; not started.
    pub(super) fn after_power_loss(&self, loss: Loss, database: State) -> Self {
        let mut after = Self::new(self.disk.after_crash(loss));
        after.may_rebuild = matches!(database, State::Lost | State::Damaged);
        let from = match database {
            State::Synced => self.scratch.path().join(SYNCED),
            _ => self.folder().to_owned(),
        };
        // A process that still runs changes its files: no other one writes to them meanwhile.
        keep_sqlite(&from, after.folder()).unwrap();
        match database {
            State::Kept => {}
            State::Synced => after.has_a_database(),
            State::TornEnd => after.tear(self),
            State::Lost => after.each_sqlite_file(|path| drop(fs::remove_file(path))),
            State::Damaged => after.damage(),
        }
        after
    }

    /// What is behind the synced part of the write-ahead logs is garbage from its middle on.
    fn tear(&self, before: &Self) {
        for name in [DATABASE, INDEX] {
            let name = format!("{name}-wal");
            let path = self.folder().join(&name);
            let Ok(mut bytes) = fs::read(&path) else { continue };
            let synced = fs::read(before.scratch.path().join(SYNCED).join(&name)).unwrap_or_default();
            // Since then it may have been begun anew from its start; that it does only when the database was synced.
            let same = synced.len().min(bytes.len());
            let from = if bytes[..same] == synced[..same] { same } else { 32 };
            let middle = from + (bytes.len() - from) / 2;
            bytes[middle..].fill(0xA5);
            fs::write(&path, bytes).unwrap();
        }
    }

    /// In the first start: its name is durable before there is a log, and nothing is in it.
    fn has_a_database(&self) {
        let path = self.folder().join(DATABASE);
        if !path.exists() {
            fs::write(path, "").unwrap();
        }
    }

    fn damage(&self) {
        self.each_sqlite_file(|path| {
            if let Ok(mut bytes) = fs::read(path) {
                let end = bytes.len().min(4096);
                bytes[..end].fill(0x5A);
                fs::write(path, bytes).unwrap();
            }
        });
    }

    fn each_sqlite_file(&self, change: impl Fn(&Path)) {
        for name in [DATABASE, INDEX] {
            for suffix in SUFFIXES {
                change(&self.folder().join(format!("{name}{suffix}")));
            }
        }
    }

    /// A start syncs what it has taken in, as far as this test knows: SQLite had no reason to keep anything back.
    fn note_synced(&self) {
        keep_sqlite(self.folder(), &self.scratch.path().join(SYNCED)).unwrap();
    }

    fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

enum OpenError {
    Log(LogError),
    Other(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// What an admin reads in the error.
fn asks_for_rebuild(error: &LogError) -> bool {
    error.to_string().contains("restfs rebuild")
}

fn keep_sqlite(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to.join("blocks"))?;
    for name in [DATABASE, INDEX] {
        for suffix in SUFFIXES {
            let name = format!("{name}{suffix}");
            let (from, to): (PathBuf, PathBuf) = (from.join(&name), to.join(&name));
            match fs::copy(&from, &to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => drop(fs::remove_file(&to)),
                copied => drop(copied?),
            }
        }
    }
    Ok(())
}
