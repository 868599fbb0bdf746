//! One share: journal, intake, catalog, and a task per site.

use super::pauses::Pauses;
use super::records::JournalRecords;
use super::{StartError, StateDir, endpoint};
use crate::catalog::{self, Catalog, CatalogError};
use crate::config::{Config, Share, Site};
use crate::intake::{Barriers, ShareIntake, now_ns};
use crate::journal::{self, Journal, SyncThread};
use crate::status::{self, ShareReport};
use dr_replicator::{RestfsSite, SiteHandle, SiteOptions, SiteStatus};
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A catalog that has failed (its disk was full, say) is opened again after this time.
const RESTART_AFTER: Duration = Duration::from_secs(10);

/// A share that is taken care of.
pub struct ShareEngine {
    share: Share,
    sites: Vec<Site>,
    directory: PathBuf,
    age: Duration,
    journal: Journal,
    intake: Arc<ShareIntake>,
    barriers: OnceLock<Barriers>,
    running: Mutex<Running>,
    pauses: Mutex<Pauses>,
    /// Dropped last: syncs what is appended.
    sync: Mutex<Option<SyncThread>>,
}

/// What is started anew when the catalog fails.
enum Running {
    /// Not started yet.
    Opened(Catalog),
    Up(Parts),
    /// Why, and since when.
    Down(String, Instant),
}

struct Parts {
    catalog: Catalog,
    sites: Vec<SiteHandle>,
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
            open_catalog(share, &sites, &directory, config.age).map_err(|source| StartError::Catalog {
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
        let intake = ShareIntake::new(name, journal.clone(), &directory, &state_dir.gaps())
            .map_err(fail("cannot open the reserve for gaps"))?;
        note_backlog(&intake, applied);
        let pauses = Pauses::open(&directory).map_err(fail("cannot read which sites are paused"))?;
        Ok(Self {
            share: share.clone(),
            sites,
            directory,
            age: config.age,
            journal,
            intake,
            barriers: OnceLock::new(),
            running: Mutex::new(Running::Opened(catalog)),
            pauses: Mutex::new(pauses),
            sync: Mutex::new(Some(sync)),
        })
    }

    /// Starts catalog and sites.
    pub(super) fn start(&self, barriers: Barriers) -> Result<(), StartError> {
        // Set once: a share is started once.
        let _ = self.barriers.set(barriers);
        let mut running = self.lock();
        if let Running::Opened(catalog) = &*running {
            let parts = self
                .start_parts(catalog.clone())
                .map_err(|source| StartError::Catalog {
                    share: self.share.name.clone(),
                    source,
                })?;
            *running = Running::Up(parts);
        }
        Ok(())
    }

    /// Ends the sites' tasks, then the catalog, then the journal's sync.
    pub(super) async fn stop(&self) {
        let stopped = Running::Down("stopped".into(), Instant::now());
        let was = std::mem::replace(&mut *self.lock(), stopped);
        if let Running::Up(parts) = was {
            end(parts).await;
        }
        let sync = self.sync.lock().unwrap_or_else(PoisonError::into_inner).take();
        tokio::task::block_in_place(|| drop(sync));
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

    /// The running catalog, or why there is none.
    pub(super) fn catalog(&self) -> Result<Catalog, String> {
        match &*self.lock() {
            Running::Up(parts) => Ok(parts.catalog.clone()),
            Running::Down(why, _) => Err(why.clone()),
            Running::Opened(_) => Err("not started".into()),
        }
    }

    /// The sites, or the one named.
    pub(super) fn sites(&self, only: Option<&str>) -> Vec<SiteView> {
        let Running::Up(parts) = &*self.lock() else {
            return Vec::new();
        };
        let chosen = parts
            .sites
            .iter()
            .filter(|site| only.is_none_or(|name| name == site.name()));
        chosen
            .map(|site| SiteView {
                name: site.name().to_owned(),
                status: site.status(),
            })
            .collect()
    }

    pub fn has_site(&self, name: &str) -> bool {
        self.sites.iter().any(|site| site.name == name)
    }

    /// Pauses or resumes the site named, or all; returns which. Durable.
    pub fn set_paused(&self, only: Option<&str>, paused: bool) -> io::Result<Vec<String>> {
        let chosen = self
            .sites
            .iter()
            .filter(|site| only.is_none_or(|name| name == site.name));
        let names: Vec<String> = chosen.map(|site| site.name.clone()).collect();
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &names {
            pauses.set(name, paused)?;
        }
        if let Running::Up(parts) = &*self.lock() {
            for handle in parts
                .sites
                .iter()
                .filter(|site| only.is_none_or(|name| name == site.name()))
            {
                if paused { handle.pause() } else { handle.resume() }
            }
        }
        Ok(names)
    }

    pub(super) fn set_limit(&self, site: &str, limit: Option<NonZeroU64>) {
        if let Running::Up(parts) = &*self.lock() {
            for handle in parts.sites.iter().filter(|handle| handle.name() == site) {
                handle.set_limit(limit);
            }
        }
    }

    /// All there is to say about the share. Blocks on the catalog.
    pub fn report(&self) -> ShareReport {
        self.intake.tend();
        let mut facts = status::ShareFacts {
            share: self.share.clone(),
            journal: self.journal.status(),
            pending_gap: self.intake.pending_gap(),
            sessions: self.intake.sessions(),
            now_ns: now_ns(),
            catalog: Err("not running".into()),
            oldest_unapplied_ns: None,
            sites: Vec::new(),
        };
        let (catalog, views) = match (self.catalog(), self.sites(None)) {
            (Ok(catalog), views) => (catalog, views),
            (Err(why), _) => {
                facts.catalog = Err(why);
                facts.sites = self
                    .sites
                    .iter()
                    .map(|site| self.site_facts(site, None, None))
                    .collect();
                return status::report(facts);
            }
        };
        let of_catalog = catalog.status();
        facts.oldest_unapplied_ns = self.intake.oldest_after(of_catalog.applied);
        facts.catalog = Ok(of_catalog);
        for site in &self.sites {
            let task = views.iter().find(|view| view.name == site.name);
            let place = catalog.site(&site.name);
            if let Err(error) = &place {
                tracing::warn!(share = self.share.name, site = site.name, %error, "no cursor for status");
            }
            let task = task.map(|view| view.status.borrow().clone());
            facts
                .sites
                .push(self.site_facts(site, task, place.ok().flatten()));
        }
        // The journal is asked again: what came meanwhile must not be taken for applied.
        facts.journal = self.journal.status();
        status::report(facts)
    }

    /// Every second: trims the journal, starts a failed catalog again.
    pub(super) async fn keep_up(&self) {
        match self.catalog() {
            Ok(catalog) => {
                let journal = self.journal.clone();
                let kept = tokio::task::spawn_blocking(move || {
                    let trimmed = journal.trim(catalog.applied());
                    (trimmed, catalog.status().failed)
                });
                let Ok((trimmed, failed)) = kept.await else { return };
                if let Err(error) = trimmed {
                    tracing::error!(share = self.share.name, %error, "the journal cannot be trimmed");
                }
                if let Some(why) = failed {
                    self.take_down(why).await;
                }
            }
            Err(_) => self.try_again(),
        }
    }

    async fn take_down(&self, why: String) {
        tracing::error!(
            share = self.share.name,
            why,
            "the catalog has failed; it is opened again shortly"
        );
        let was = std::mem::replace(&mut *self.lock(), Running::Down(why, Instant::now()));
        if let Running::Up(parts) = was {
            end(parts).await;
        }
    }

    fn try_again(&self) {
        let due = matches!(&*self.lock(), Running::Down(_, since) if since.elapsed() >= RESTART_AFTER);
        if !due {
            return;
        }
        let outcome = tokio::task::block_in_place(|| {
            let catalog = open_catalog(&self.share, &self.sites, &self.directory, self.age)?;
            self.start_parts(catalog)
        });
        *self.lock() = match outcome {
            Ok(parts) => {
                tracing::info!(share = self.share.name, "the catalog works again");
                Running::Up(parts)
            }
            Err(error) => {
                tracing::error!(share = self.share.name, %error, "the catalog cannot be opened");
                Running::Down(error.to_string(), Instant::now())
            }
        };
    }

    fn start_parts(&self, catalog: Catalog) -> Result<Parts, CatalogError> {
        catalog.start(Arc::new(JournalRecords::new(Arc::clone(&self.intake))))?;
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let spawn = |site: &Site| {
            let target = RestfsSite::new(endpoint(site), site.bucket_for(&self.share.name));
            let mut options = SiteOptions::new(site.name.clone());
            options.limit = site.limit;
            options.paused = pauses.contains(&site.name);
            dr_replicator::spawn(Arc::new(catalog.clone()), Arc::new(target), options)
        };
        let sites = self.sites.iter().map(spawn).collect();
        Ok(Parts { catalog, sites })
    }

    fn site_facts(
        &self,
        site: &Site,
        task: Option<SiteStatus>,
        place: Option<catalog::SiteStatus>,
    ) -> status::SiteFacts {
        status::SiteFacts {
            name: site.name.clone(),
            url: site.url.to_string(),
            bucket: site.bucket_for(&self.share.name).to_owned(),
            task,
            place,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn end(parts: Parts) {
    for site in parts.sites {
        site.stop().await;
    }
    tokio::task::block_in_place(|| parts.catalog.stop());
}

fn open_catalog(
    share: &Share,
    sites: &[Site],
    directory: &Path,
    age: Duration,
) -> Result<Catalog, CatalogError> {
    let names = sites.iter().map(|site| site.name.clone()).collect();
    let mut options = catalog::Options::new(share.path.clone(), directory.join("catalog.db"), names);
    options.flush_age = age;
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
