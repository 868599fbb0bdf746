//! The intake and a fake module that speaks vfsx-proto over a real socket.

mod barrier;
mod commits;
mod data;
mod failure;
pub(crate) mod module;
mod outbox;
mod session;
mod socket;
mod spool;
mod spool_properties;

use super::{Intake, Left, ShareIntake};
use crate::journal::{Journal, Options, Record, SyncThread};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than anything takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running intake for one share, `data`.
struct Fixture {
    directory: Arc<tempfile::TempDir>,
    journal: Journal,
    share: Arc<ShareIntake>,
    intake: Intake,
    sync: Option<SyncThread>,
}

#[derive(Clone, Copy)]
struct Settings {
    journal_max: u64,
    syncing: bool,
    allow: u32,
    sessions_max: usize,
}

const NORMAL: Settings = Settings {
    journal_max: 1 << 20,
    syncing: true,
    allow: 0,
    sessions_max: 100,
};

fn left(path: &Path) -> Left {
    Left {
        gaps: path.join("gaps"),
        standing: path.join("run/gaps"),
        spool: path.join("spool"),
    }
}

impl Fixture {
    fn new(settings: Settings) -> Self {
        let directory = tempfile::tempdir().expect("scratch");
        // The unprivileged process has to get at the socket.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("mode");
        std::fs::create_dir_all(directory.path().join("gaps/data")).expect("makes");
        Self::start(Arc::new(directory), settings)
    }

    fn start(directory: Arc<tempfile::TempDir>, settings: Settings) -> Self {
        let path = directory.path();
        let options = Options {
            segment_bytes: 4096,
            max_bytes: settings.journal_max,
            floor: 0,
        };
        let journal = Journal::open(&path.join("journal"), options).expect("opens");
        let sync = settings
            .syncing
            .then(|| SyncThread::start(&journal).expect("starts"));
        let share = ShareIntake::new("data", journal.clone(), path, left(path), true).expect("opens");
        let allow = [settings.allow];
        let intake = Intake::start(
            &path.join("socket"),
            None,
            &allow,
            settings.sessions_max,
            vec![Arc::clone(&share)],
        )
        .expect("listens");
        Self {
            directory,
            journal,
            share,
            intake,
            sync,
        }
    }

    /// As after `kill -9`: nothing is finished.
    fn kill_and_restart(self, settings: Settings) -> Self {
        let Self {
            directory,
            intake,
            sync,
            ..
        } = self;
        drop(intake);
        drop(sync);
        // Its tasks are told to end; the socket is free when the one that listens has.
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(directory.path().join("socket")).is_ok() {
            assert!(Instant::now() < deadline, "the old intake still listens");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self::start(directory, settings)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// All synced records, after everything appended is synced.
    fn records(&self) -> Vec<Record> {
        self.journal.sync().expect("syncs");
        self.journal
            .read_from(1)
            .expect("reads")
            .read(100_000)
            .expect("reads")
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
