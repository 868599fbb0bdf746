//! What the server does for its store without being asked: scrubs, collects blocks that nothing needs, keeps the commit log
//! short, finds the files that damaged blocks belong to. One thread, so that they do not get into each other's way.

mod gc;
mod held;
mod lost;
mod saved;
mod scrub;
mod wanted;

use super::Service;
use crate::metadata::commits::{LogError, LoggedKv, REBUILD};
use gc::AskedGc;
pub use gc::GcOptions;
pub(super) use gc::{start as start_gc, status as gc_status};
use lost::Lost;
use restfs_lib::kv::KvError;
use saved::Saved;
pub(super) use scrub::{start, status};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
pub(super) use wanted::wanted;

/// How often the thread looks whether there is something to do.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is asked whether the commit log is long enough for an image, and whether there is space for the next start, and noted
/// how far the metadata is.
const IMAGE_LOOK: Duration = Duration::from_secs(600);
/// Logs shorter than this are left as they are.
const IMAGE_FROM: u64 = 64 * 1024 * 1024;

/// When to read everything that is stored, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes a second; 0: as fast as it goes.
    pub rate: u64,
    /// From one beginning to the next; `None`: only when asked.
    pub every: Option<Duration>,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            rate: 16 * 1024 * 1024,
            every: Some(Duration::from_secs(30 * 86_400)),
        }
    }
}

pub struct Upkeep {
    commits: Arc<LoggedKv>,
    options: ScrubOptions,
    saved: Saved<scrub::State>,
    gc_options: GcOptions,
    gc: Saved<gc::State>,
    /// Much of the image says what is not so any more.
    shorten: AtomicBool,
    signal: Mutex<Signal>,
    changed: Condvar,
    lost: RwLock<Lost>,
    /// All that was found to be lost is here again, and there was more.
    look_again: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Signal {
    stop: bool,
    asked: Option<Asked>,
    running: bool,
    gc: Option<AskedGc>,
    gc_running: bool,
}

/// A scrub that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    rate: u64,
    anew: bool,
}

impl Upkeep {
    /// `data_dir` keeps how far scrubs and collections have come, and what the last ones did.
    pub fn new(
        commits: Arc<LoggedKv>,
        data_dir: &Path,
        options: ScrubOptions,
        gc_options: GcOptions,
    ) -> Self {
        Self {
            commits,
            options,
            saved: Saved::read(data_dir.join("scrub.json")),
            gc_options,
            gc: Saved::read(data_dir.join("gc.json")),
            shorten: AtomicBool::new(false),
            signal: Mutex::default(),
            changed: Condvar::new(),
            lost: RwLock::default(),
            look_again: AtomicBool::new(false),
            thread: Mutex::default(),
        }
    }

    fn signal(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The commit log is made shorter when the thread comes to it.
    pub(super) fn shorten_soon(&self) {
        self.shorten.store(true, Ordering::Relaxed);
    }

    /// Waits, but not when it is to end, and not for longer than until somebody asks for something.
    fn rest(&self, time: Duration) {
        self.rest_until(time, |signal| {
            signal.stop || signal.asked.is_some() || signal.gc.is_some()
        });
    }

    fn rest_until(&self, time: Duration, end: impl Fn(&Signal) -> bool) {
        let waiting = |signal: &mut Signal| !end(signal);
        drop(self.changed.wait_timeout_while(self.signal(), time, waiting));
    }

    fn is_ending(&self) -> bool {
        self.signal().stop
    }
}

impl Service {
    /// Says when a watermark is crossed.
    pub(crate) fn watch_space(&self) {
        self.space.watch();
    }

    /// Starts the thread, once.
    pub fn start_upkeep(self: &Arc<Self>) -> std::io::Result<()> {
        let mut thread = self.upkeep.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return Ok(());
        }
        let (upkeep, service) = (Arc::clone(&self.upkeep), Arc::downgrade(self));
        let work = std::thread::Builder::new().name("upkeep".to_owned());
        *thread = Some(work.spawn(move || run(&upkeep, &service))?);
        Ok(())
    }

    /// Ends the thread: a scrub goes on at the next start. To be called before the stores are closed. Blocks for moments.
    pub fn end_upkeep(&self) {
        self.upkeep.signal().stop = true;
        self.upkeep.changed.notify_all();
        let thread = self
            .upkeep
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the upkeep thread panicked");
        }
        self.note_metadata();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.upkeep.is_ending()
    }

    /// When the logs are longer than the image by half, they say much that is not so any more. After a purge, the image does
    /// too; but what it needs must not be taken from the reserve.
    fn shorten_log(&self, purged: bool) {
        let commits = &self.upkeep.commits;
        let result = commits.log_bytes().and_then(|(image, logs)| {
            let much = logs >= IMAGE_FROM + image + image / 2;
            let after_purge =
                purged && image + logs >= IMAGE_FROM && self.space.has_beyond_reserve(image + logs);
            if !much && !after_purge {
                return Ok(());
            }
            let written = commits.write_image()?;
            tracing::info!(
                "the commit log of {logs} bytes was replaced by an image of {} bytes",
                written.bytes
            );
            Ok(())
        });
        if let Err(error) = result {
            match error {
                LogError::DatabaseDamaged(_) | LogError::Kv(KvError::Corrupt(_)) => {
                    tracing::error!("the commit log is not shortened: {error}; {REBUILD}");
                }
                error => tracing::warn!("shortening the commit log: {error}; tried again later"),
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.upkeep.signal().stop = true;
        self.upkeep.changed.notify_all();
    }
}

fn run(upkeep: &Upkeep, service: &Weak<Service>) {
    let mut looked = Instant::now();
    let mut known_damages = 0;
    if let Some(service) = service.upgrade() {
        service.space.keep_for_start();
        service.note_metadata();
    }
    let mut entered = false;
    loop {
        let Some(service) = service.upgrade() else { return };
        if upkeep.is_ending() {
            return;
        }
        let damages = service.blocks.damages_found();
        if damages != known_damages || upkeep.look_again.swap(false, Ordering::Relaxed) {
            known_damages = damages;
            service.look_for_lost();
        }
        if !entered {
            entered = true;
            service.enter_held();
        }
        // Ahead of a scrub, which takes days and goes on where it was.
        if service.is_gc_due() {
            service.gc();
            continue;
        }
        if let Some(asked) = service.next_scrub() {
            service.scrub(asked);
            continue;
        }
        let purged = upkeep.shorten.swap(false, Ordering::Relaxed);
        if purged || looked.elapsed() >= IMAGE_LOOK {
            looked = Instant::now();
            service.shorten_log(purged);
            service.space.keep_for_start();
            service.note_metadata();
        }
        drop(service);
        upkeep.rest(LOOK);
    }
}
