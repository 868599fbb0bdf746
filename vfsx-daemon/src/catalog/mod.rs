//! The catalog of a share: the RestFS tree as of the journal's applied records, and the log of its changes.
//!
//! `Catalog` is what the rest of vfsxd sees. One applier thread owns all writes; readers read the share's files and hand it
//! what they found; a scan compares the share with the catalog. Drawn in `docs/architecture.md`, bytes in
//! `docs/formats/catalog.md`.

mod applier;
mod audit;
mod dirt;
mod exclude;
mod feeder;
#[doc(hidden)]
pub mod fuzzing;
mod kept;
mod moments;
mod open;
mod options;
mod reader;
mod scan;
mod share;
mod shared;
mod source;
mod status;
mod store;

pub use audit::{Audited, Fault, Faults, Judgement, Reading, Steady};
pub use moments::{Moment, NoSessions, Sessions};
pub use options::{CatalogError, Options, RecordSource, RecordsError};
pub use status::{ClosedGap, Gap, ScanProgress, ScanState, SiteStatus, Status};

use applier::{Applier, Channels, Cuts, Reply, Request, Rules};
use crossbeam_channel::{Receiver, Sender, bounded};
use restfs_lib::kv::Kv;
use restfs_lib::model::Layout;
use scan::Scanner;
use shared::Shared;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use store::ExcludeRow;
use store::{CutRow, HeadRow, Key, get};
use tokio::sync::watch;

/// Batches of records, parts of reads and requests that wait for the applier.
const BATCHES: usize = 2;
const PARTS: usize = 256;
const REQUESTS: usize = 64;
/// Reads under way for each reader: so that it never waits for the applier's next transaction.
const JOBS: usize = 32;

/// A share's catalog. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    options: Options,
    /// Requests to the applier, kept from the start on so that they wait for it.
    requests: Sender<Request>,
    taken: Mutex<Option<Receiver<Request>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Catalog {
    /// Opens or creates the catalog. Nothing is read from the journal yet; a new catalog wants a scan.
    pub fn open(options: Options) -> Result<Self, CatalogError> {
        let kv = open::database(&options.database)?;
        Self::open_on(options, kv)
    }

    /// The same on any store; `Options::database` is only named in texts.
    pub fn open_on(options: Options, kv: Box<dyn Kv>) -> Result<Self, CatalogError> {
        let shared = Arc::new(open::open(&options, kv)?);
        let (requests, taken) = bounded(REQUESTS);
        let (taken, threads) = (Mutex::new(Some(taken)), Mutex::new(Vec::new()));
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                options,
                requests,
                taken,
                threads,
            }),
        })
    }

    /// Starts the applier, the readers and the scanner. Once. `sessions`: whose written data come with the records, and
    /// make points exact; see [`Sessions`].
    pub fn start(
        &self,
        records: Arc<dyn RecordSource>,
        sessions: Arc<dyn Sessions>,
    ) -> Result<(), CatalogError> {
        let taken = self
            .inner
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let requests = taken.ok_or(CatalogError::Stopped)?;
        let shared = &self.inner.shared;
        let options = &self.inner.options;
        let (batches, batches_in) = bounded(BATCHES);
        let (parts, parts_in) = bounded(PARTS);
        let (client_jobs, client_jobs_out) = bounded(JOBS * options.readers.max(1));
        let (scan_jobs, scan_jobs_out) = bounded(JOBS * options.readers.max(1));
        let jobs_out = [client_jobs_out, scan_jobs_out];
        let (wake, woken) = bounded(1);
        let rules = Rules {
            layout: options.layout,
            flush_age: options.flush_age,
            grace: options.grace,
            change_log_rows: options.change_log_rows,
            at_once: options.records,
        };
        let at_once = rules.at_once;
        let channels = Channels {
            records: batches_in,
            parts: parts_in,
            requests,
            jobs: [client_jobs, scan_jobs],
            scanner: wake,
        };
        let (cuts, moments) = self.cuts(sessions)?;
        let mut applier = Applier::new(
            Arc::clone(shared),
            rules,
            options.sites.clone(),
            channels,
            Some(cuts),
        )?;
        let after = self.applied();

        let mut threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(moments);
        let spawn =
            |name: &str, run: Box<dyn FnOnce() + Send>| Builder::new().name(name.to_owned()).spawn(run);
        threads
            .extend(reader::start(shared, options.readers, &jobs_out, &parts).map_err(CatalogError::Thread)?);
        drop((jobs_out, parts));
        shared.started();
        let ending = Ending(Arc::clone(shared));
        let (feeding, scanning, asking) = (
            Arc::clone(shared),
            Arc::clone(shared),
            self.inner.requests.clone(),
        );
        let started: [io::Result<JoinHandle<()>>; 3] = [
            spawn(
                "feeder",
                Box::new(move || feeder::run(&feeding, &records, after, at_once, &batches)),
            ),
            spawn(
                "scanner",
                Box::new(move || Scanner::new(&scanning, woken, asking).run()),
            ),
            spawn(
                "applier",
                Box::new(move || {
                    let _ending = ending;
                    applier.run();
                }),
            ),
        ];
        for thread in started {
            threads.push(thread.map_err(CatalogError::Thread)?);
        }
        Ok(())
    }

    fn cuts(&self, sessions: Arc<dyn Sessions>) -> Result<(Cuts, JoinHandle<()>), CatalogError> {
        let kv = self.inner.shared.kv.read()?;
        let head: HeadRow = get(&*kv, &Key::meta("head"))?.unwrap_or_default();
        let cut: Option<CutRow> = get(&*kv, &Key::meta("cut"))?;
        Cuts::start(
            sessions,
            head.change,
            cut.map(|cut| cut.marked),
            self.inner.options.records,
        )
        .map_err(CatalogError::Thread)
    }

    /// Ends all threads after what they are at. What is not done is taken up at the next start.
    pub fn stop(&self) {
        self.inner.shared.stop();
        let mut threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if !threads.is_empty() {
            // The applier takes requests until it ends; one that has ended needs no telling.
            let _ = self.inner.requests.send(Request::Stop);
        }
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the catalog has panicked");
            }
        }
        self.inner.shared.bump_progress();
    }

    /// Highest journal sequence whose records are in the catalog durably: the journal may drop them.
    pub fn applied(&self) -> u64 {
        self.inner.shared.now().status.applied
    }

    pub fn status(&self) -> Status {
        self.inner.shared.status()
    }

    /// `None`: the site has no cursor yet.
    pub fn site(&self, site: &str) -> Result<Option<SiteStatus>, CatalogError> {
        self.inner.shared.site(site)
    }

    /// Names that are not replicated: `text` is `/pattern/pattern/` as in `veto files`, from a tree connect that began at
    /// `since_ns`; what an older one says than the newest does not count. A scan follows when they are others than before. Blocks
    /// for a transaction.
    pub fn set_exclude(
        &self,
        text: Vec<u8>,
        case_sensitive: bool,
        since_ns: i64,
    ) -> Result<(), CatalogError> {
        let row = ExcludeRow {
            text,
            case_sensitive,
            since_ns,
        };
        if !row.replaces(&self.exclude_row()?, applier::now_ns()) {
            return Ok(());
        }
        tracing::info!(
            patterns = %String::from_utf8_lossy(&row.text),
            "other names are excluded than before; the share is compared with the catalog"
        );
        self.ask(|reply| Request::Exclude(row, reply))
    }

    /// The patterns in force, for people.
    pub fn excluded(&self) -> Result<String, CatalogError> {
        Ok(String::from_utf8_lossy(&self.exclude_row()?.text).into_owned())
    }

    fn exclude_row(&self) -> Result<ExcludeRow, CatalogError> {
        let kv = self.inner.shared.kv.read()?;
        Ok(store::get(&*kv, &store::Key::meta("exclude"))?.unwrap_or_default())
    }

    /// Everything from journal records up to the first of these is in the changes up to the second.
    pub fn covered(&self) -> (u64, u64) {
        let now = self.inner.shared.now();
        (now.status.covered, now.status.head)
    }

    /// The newest change that a site has, `None` when that is not known.
    pub fn committed(&self, site: &str) -> Option<u64> {
        let cursor = self.inner.shared.cursor(site)?;
        (cursor.epoch > 0).then_some(cursor.sequence)
    }

    /// Somebody waits until all from journal records up to this one is covered: until then, what became dirty is read at
    /// once.
    pub fn hurry(&self, journal: u64) {
        if self.inner.shared.hurry(journal) {
            // When the applier is so busy that it cannot be told, it looks for itself soon.
            let _ = self.inner.requests.try_send(Request::Hurry);
        }
    }

    /// Asks for a comparison of the whole share with the catalog; one that runs already is followed by another. Returns
    /// the value that `ScanProgress::finished` has when the scan asked for has ended. Blocks for a transaction.
    pub fn request_scan(&self) -> Result<u64, CatalogError> {
        self.ask(Request::Scan)
    }

    /// Changes after every transaction of the catalog, cursors included: wait on it, then ask `status` or `site`.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.inner.shared.progress()
    }

    /// The disk that contents are kept on has little room, and the share's disk, which may be the same.
    pub fn note_short(&self, kept: bool, share: bool) {
        self.inner.shared.kept.set_short(kept);
        self.inner.shared.clones.set_short(share);
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn layout(&self) -> Layout {
        self.inner.options.layout
    }

    /// Asks the applier and waits for its answer.
    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, CatalogError> {
        let (reply, answer) = bounded(1);
        if self.inner.shared.stopping() {
            return Err(CatalogError::Stopped);
        }
        self.inner
            .requests
            .send(request(reply))
            .map_err(|_| CatalogError::Stopped)?;
        self.inner.shared.answer(&answer)
    }
}

/// Says so when the applier has ended.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended();
    }
}

#[cfg(test)]
mod tests;
