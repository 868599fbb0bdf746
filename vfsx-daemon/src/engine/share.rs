//! One share: journal, intake, catalog, and a task per site.

use super::pauses::Pauses;
use super::records::JournalRecords;
use super::space::Space;
use super::{StartError, StateDir, boot, endpoint, reconcile, verify};
use crate::catalog::{self, Catalog, CatalogError};
use crate::config::{self, Config, Mode, Share, Site};
use crate::intake::{Barriers, IntakeSessions, ShareIntake, now_ns};
use crate::journal::{self, GapReason, Journal, SyncThread};
use crate::status::{self, ModulesReport, ShareFacts, ShareReport, SiteFacts};
use dr_replicator::{Mender, Peer, RestfsSite, SiteHandle, SiteOptions, SiteStatus};
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A share that is taken care of.
pub struct ShareEngine {
    share: Share,
    sites: Vec<Site>,
    directory: PathBuf,
    /// Of that, and all other shares'.
    space: Arc<Space>,
    journal: Journal,
    /// Its newest record of the runs before this.
    earlier: u64,
    intake: Arc<ShareIntake>,
    catalog: Catalog,
    /// Once it is started.
    barriers: OnceLock<Barriers>,
    /// Empty before the start and after the end.
    tasks: Mutex<Vec<SiteHandle>>,
    /// What one site has lost another one may have.
    mending: Mutex<Option<AbortHandle>>,
    pauses: Mutex<Pauses>,
    verifies: verify::Memory,
    next_reconcile: reconcile::Next,
    /// Dropped last: syncs what is appended.
    sync: Mutex<Option<SyncThread>>,
}

/// A site as [`ShareEngine`] gives it out.
pub(super) struct SiteView {
    pub(super) name: String,
    pub(super) status: watch::Receiver<SiteStatus>,
}

impl ShareEngine {
    /// Opens journal and catalog; nothing runs yet but the journal's sync.
    pub(super) fn open(
        share: &Share,
        sites: Vec<Site>,
        config: &Config,
        state_dir: &StateDir,
        space: &Arc<Space>,
    ) -> Result<Self, StartError> {
        let name = &share.name;
        let fail = |what| {
            move |source: io::Error| StartError::Share {
                share: name.clone(),
                what,
                source,
            }
        };
        let directory = state_dir
            .share(name)
            .map_err(fail("cannot make its state directory"))?;
        let catalog =
            open_catalog(share, &sites, &directory, config).map_err(|source| StartError::Catalog {
                share: name.clone(),
                source,
            })?;
        let applied = catalog.applied();
        let options = journal::Options::new(config.journal_max, applied);
        let journal =
            Journal::open(&directory.join("journal"), options).map_err(|source| StartError::Journal {
                share: name.clone(),
                source,
            })?;
        let sync = SyncThread::start(&journal).map_err(fail("cannot start a thread"))?;
        let earlier = journal.status().head;
        let data = share.mode == Mode::Copy;
        let left = state_dir.left(&config.socket);
        let intake = ShareIntake::new(name, journal.clone(), &directory, left, data)
            .map_err(fail("cannot open the reserve for gaps"))?;
        note_backlog(&intake, applied);
        let pauses = Pauses::open(&directory).map_err(fail("cannot read which sites are paused"))?;
        let verifies = verify::Records::open(&directory, verify::now_seconds())
            .map_err(fail("cannot keep the results of verifies"))?;
        Ok(Self {
            share: share.clone(),
            sites,
            directory,
            space: Arc::clone(space),
            journal,
            earlier,
            intake,
            catalog,
            barriers: OnceLock::new(),
            tasks: Mutex::new(Vec::new()),
            mending: Mutex::new(None),
            pauses: Mutex::new(pauses),
            verifies: verify::Memory::new(verifies, config.verify.rate),
            next_reconcile: reconcile::Next::default(),
            sync: Mutex::new(Some(sync)),
        })
    }

    /// Starts catalog and sites, once.
    pub(super) fn start(&self, barriers: Barriers) -> Result<(), StartError> {
        let records = Arc::new(JournalRecords::new(Arc::clone(&self.intake), self.earlier));
        let sessions = Arc::new(IntakeSessions::new(Arc::clone(&self.intake), barriers.clone()));
        self.catalog
            .start(records, sessions)
            .map_err(|source| StartError::Catalog {
                share: self.share.name.clone(),
                source,
            })?;
        // A second start has failed in the line above.
        let _ = self.barriers.set(barriers);
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let spawn = |site: &Site| {
            let target = Arc::new(RestfsSite::new(endpoint(site), site.bucket_for(&self.share.name)));
            let mut options = SiteOptions::new(site.name.clone());
            options.limit = site.limit;
            options.paused = pauses.contains(&site.name);
            let task = dr_replicator::spawn(Arc::new(self.catalog.clone()), target.clone(), options);
            (Peer::new(&task, target), task)
        };
        let (peers, tasks): (Vec<Peer>, Vec<SiteHandle>) = self.sites.iter().map(spawn).unzip();
        *self.tasks() = tasks;
        if peers.len() > 1 {
            let mending = tokio::spawn(Mender::new(peers).run());
            *self.mending() = Some(mending.abort_handle());
        }
        Ok(())
    }

    /// Ends the sites' tasks, then the catalog, then the journal's sync.
    pub(super) async fn stop(&self) {
        if let Some(mending) = self.mending().take() {
            mending.abort();
        }
        let tasks = std::mem::take(&mut *self.tasks());
        for task in tasks {
            task.stop().await;
        }
        let sync = self.sync.lock().unwrap_or_else(PoisonError::into_inner).take();
        tokio::task::block_in_place(|| {
            self.catalog.stop();
            drop(sync);
        });
    }

    pub fn name(&self) -> &str {
        &self.share.name
    }

    pub fn intake(&self) -> &Arc<ShareIntake> {
        &self.intake
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn barriers(&self) -> Option<&Barriers> {
        self.barriers.get()
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn verifies(&self) -> &verify::Memory {
        &self.verifies
    }

    pub(super) fn reconcile(&self) -> config::Reconcile {
        self.share.reconcile
    }

    pub(super) fn next_reconcile(&self) -> &reconcile::Next {
        &self.next_reconcile
    }

    /// The machine has stopped under the last run. A share that was never looked at is looked at anyway.
    pub(super) fn machine_stopped(&self, since_ns: i64) {
        if self.catalog.status().scan.started_ns != 0 {
            self.intake.raise_gap(since_ns, GapReason::MachineStopped);
        }
    }

    /// Moves with everything that is known to change.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.journal.status().head, self.catalog.status().head)
    }

    /// Brings what clients have written to the share's disk. Blocks for as long as that takes.
    pub(super) fn write_back(&self) -> io::Result<()> {
        boot::write_back(&self.share.path)
    }

    /// As asked for; the site's task follows in a moment.
    pub(super) fn is_paused(&self, site: &str) -> bool {
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.contains(site)
    }

    /// Has a site brought over by tree difference: the number to wait for, and where. `None`: there is no such task.
    pub(super) fn compare(&self, site: &str) -> Option<(u64, watch::Receiver<SiteStatus>)> {
        let tasks = self.tasks();
        let task = tasks.iter().find(|task| task.name() == site)?;
        Some((task.compare(), task.status()))
    }

    /// The sites, or the one named.
    pub(super) fn sites(&self, only: Option<&str>) -> Vec<SiteView> {
        let tasks = self.tasks();
        let chosen = tasks
            .iter()
            .filter(|task| only.is_none_or(|name| name == task.name()));
        chosen
            .map(|task| SiteView {
                name: task.name().to_owned(),
                status: task.status(),
            })
            .collect()
    }

    /// The sites of the configuration, or the one named.
    pub(super) fn chosen<'a>(&'a self, only: Option<&'a str>) -> impl Iterator<Item = &'a Site> {
        self.sites
            .iter()
            .filter(move |site| only.is_none_or(|name| name == site.name))
    }

    fn excluded(&self) -> String {
        self.catalog.excluded().unwrap_or_else(|error| {
            tracing::warn!(share = self.share.name, %error, "no patterns for status");
            String::new()
        })
    }

    /// The newest change that one of the sites has: whichever is first.
    pub(super) fn first_site(&self) -> Option<u64> {
        let changes = self
            .sites
            .iter()
            .filter_map(|site| self.catalog.committed(&site.name));
        changes.max()
    }

    pub fn has_site(&self, name: &str) -> bool {
        self.sites.iter().any(|site| site.name == name)
    }

    /// Pauses or resumes the site named, or all; returns which. Durable.
    pub fn set_paused(&self, only: Option<&str>, paused: bool) -> io::Result<Vec<String>> {
        let names: Vec<String> = self.chosen(only).map(|site| site.name.clone()).collect();
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &names {
            pauses.set(name, paused)?;
        }
        for task in self
            .tasks()
            .iter()
            .filter(|task| only.is_none_or(|name| name == task.name()))
        {
            if paused { task.pause() } else { task.resume() }
        }
        Ok(names)
    }

    pub(super) fn set_limit(&self, site: &str, limit: Option<NonZeroU64>) {
        for task in self.tasks().iter().filter(|task| task.name() == site) {
            task.set_limit(limit);
        }
    }

    /// All there is to say about the share. Blocks on the disk.
    pub fn report(&self) -> ShareReport {
        self.intake.tend();
        let views = self.sites(None);
        let catalog = self.catalog.status();
        let sites = self
            .sites
            .iter()
            .map(|site| self.site_facts(site, &views))
            .collect();
        status::report(ShareFacts {
            share: self.share.clone(),
            directory: self.directory.clone(),
            mode: self.intake.mode(),
            // Asked last: what came meanwhile must not be taken for applied.
            journal: self.journal.status(),
            journal_trouble: self.journal.trouble(),
            short: self.space.is_full().then(|| self.space.report()).flatten(),
            unapplied_gap: self.intake.gap_after(catalog.applied),
            sessions: self.intake.sessions(),
            all_connected: self.barriers().is_some_and(Barriers::all_connected),
            durability: self.intake.durability(),
            exclude: self.excluded(),
            now_ns: now_ns(),
            oldest_unapplied_ns: self.intake.oldest_after(catalog.applied),
            catalog,
            sites,
            verify: self.verifies.facts(),
            next_reconcile: self.next_reconcile.get(),
        })
    }

    /// Below the reserve of `state_dir`'s disk nothing is taken that can be left out.
    pub(super) fn heed_space(&self) {
        let short = self.space.is_full();
        self.intake.note_short(short);
        self.catalog
            .note_short(short, short && self.space.is_on_it(&self.share.path));
    }

    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    /// Of all shares; `None` before the start.
    pub(super) fn modules(&self) -> Option<ModulesReport> {
        self.barriers()
            .map(|barriers| ModulesReport::of(barriers.places()))
    }

    /// Removes what the catalog has from the journal. Blocks on the disk.
    pub(super) fn trim(&self) {
        if let Err(error) = self.journal.trim(self.catalog.applied()) {
            tracing::error!(share = self.share.name, %error, "the journal cannot be trimmed");
        }
    }

    fn site_facts(&self, site: &Site, views: &[SiteView]) -> SiteFacts {
        let place = self.catalog.site(&site.name).unwrap_or_else(|error| {
            tracing::warn!(share = self.share.name, site = site.name, %error, "no cursor for status");
            None
        });
        let task = views.iter().find(|view| view.name == site.name);
        SiteFacts {
            name: site.name.clone(),
            url: site.url.to_string(),
            bucket: site.bucket_for(&self.share.name).to_owned(),
            task: task.map(|view| view.status.borrow().clone()),
            place,
        }
    }

    fn mending(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.mending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<SiteHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_catalog(
    share: &Share,
    sites: &[Site],
    directory: &Path,
    config: &Config,
) -> Result<Catalog, CatalogError> {
    let names = sites.iter().map(|site| site.name.clone()).collect();
    let mut options = catalog::Options::new(share.path.clone(), directory.join("catalog.db"), names);
    options.flush_age = config.age;
    options.change_log_rows = config.changes_max;
    options.kept_bytes = config.journal_max / 2;
    Catalog::open(options)
}

/// So that the age of what was not applied before this start is known.
fn note_backlog(intake: &ShareIntake, applied: u64) {
    let first = intake
        .journal()
        .read_from(applied + 1)
        .and_then(|mut reader| reader.read(1));
    match first {
        Ok(records) => {
            if let Some(record) = records.first() {
                intake.note_backlog(record.sequence, record.time_ns);
            }
        }
        // The catalog meets it too, and it is told there.
        Err(error) => tracing::debug!(%error, "the oldest record cannot be read"),
    }
}
