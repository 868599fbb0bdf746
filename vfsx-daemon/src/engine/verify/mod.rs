//! Verify: whether the share, what vfsxd knows of it, and its sites are the same. Beside all that ships.

mod finding;
mod record;
mod repair;
mod schedule;
mod share_side;
mod site_side;

pub use finding::{Difference, DifferenceKind, Findings, LISTED};
pub use record::{SiteResult, VerifyResult};
pub(super) use schedule::on_schedule;

pub(super) use record::Records;

use super::share::ShareEngine;
use super::{SettleError, SyncError};
use crate::catalog::CatalogError;
use dr_replicator::Bandwidth;
use dr_replicator::verify::VerifyError as SiteError;
use serde::{Deserialize, Serialize};
use share_side::ShareSide;
use site_side::SiteSide;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyOptions {
    /// Everything is read again, here and at the sites.
    pub deep: bool,
    pub repair: bool,
    /// Only this site; what a repair of the share brings to light goes to all.
    pub site: Option<String>,
    /// Bytes per second that are read here, and at each site.
    pub rate: Option<NonZeroU64>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyProgress {
    /// What is done, in words.
    pub stage: String,
    pub done: u64,
    /// 0: not known.
    pub total: u64,
    /// Read in this stage.
    pub bytes: u64,
}

type Tell<'a> = &'a (dyn Fn(VerifyProgress) + Send + Sync);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing was found.
    Clean,
    /// What was found is there still.
    Differences,
    /// What was found was mended, and was not found again.
    Mended,
    /// It came to no end; what was found until then is told.
    Failed,
}

/// What one verify of a share found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub share: String,
    /// When it ended, RFC 3339.
    pub at: String,
    pub deep: bool,
    pub outcome: Outcome,
    pub sites: Vec<String>,
    pub found: Findings,
    /// After a repair: what is there still.
    pub after_repair: Option<Findings>,
    /// Read from the share.
    pub files: u64,
    pub bytes: u64,
    /// Read by the sites.
    pub blocks: u64,
    pub block_bytes: u64,
    pub duration_ms: u64,
    /// Why it came to no end.
    pub error: Option<String>,
}

impl Verified {
    fn judged(&self) -> Outcome {
        match (self.left().count(), self.found.count()) {
            _ if self.error.is_some() => Outcome::Failed,
            (0, 0) => Outcome::Clean,
            (0, _) => Outcome::Mended,
            _ => Outcome::Differences,
        }
    }

    /// What is there as far as is known at the end.
    pub fn left(&self) -> &Findings {
        self.after_repair.as_ref().unwrap_or(&self.found)
    }
}

/// Why there is no outcome, or none of a part. One line each.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("share {0}: a verify is running already; `vfsxctl status` shows it")]
    Running(String),
    #[error("share {share}, site {site}: paused, so nothing can be mended there; `vfsxctl resume` first")]
    Paused { share: String, site: String },
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("the share cannot be compared while clients' changes do not come in: {0}")]
    Settle(#[from] SettleError),
    #[error("{0}")]
    Sync(#[from] SyncError),
    #[error("site {site}: {source}")]
    Site { site: String, source: SiteError },
    #[error("site {site} does not come on with what is to be mended: it is {state}{why}")]
    Stalled {
        site: String,
        state: &'static str,
        why: String,
    },
    #[error("a thread of the verify has panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// A verify under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub deep: bool,
    /// RFC 3339.
    pub since: String,
}

/// What the status tells of a share's verifies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    pub running: Option<Running>,
    pub last: Option<VerifyResult>,
    /// The last that found something, until a later one that looked as closely is clean.
    pub found: Option<VerifyResult>,
}

/// What a share remembers of its verifies.
pub(super) struct Memory {
    /// Of deep ones, when nothing else is said: bytes per second.
    pub(super) rate: Option<NonZeroU64>,
    records: Mutex<Records>,
    running: Mutex<Option<Running>>,
}

impl Memory {
    pub(super) fn new(records: Records, rate: Option<NonZeroU64>) -> Self {
        Self {
            rate,
            records: Mutex::new(records),
            running: Mutex::new(None),
        }
    }

    pub(super) fn facts(&self) -> VerifyReport {
        let records = self.records();
        VerifyReport {
            running: self.running().clone(),
            last: records.get().last.clone(),
            found: records.get().found.clone(),
        }
    }

    pub(super) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held while one runs.
struct Turn<'a>(&'a Memory);

impl<'a> Turn<'a> {
    fn take(memory: &'a Memory, deep: bool) -> Option<Self> {
        let mut running = memory.running();
        if running.is_some() {
            return None;
        }
        let since = now_text();
        *running = Some(Running { deep, since });
        Some(Self(memory))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.running() = None;
    }
}

impl ShareEngine {
    /// Compares, mends when asked to, and notes the result. An error only when nothing was begun; what went wrong later
    /// is in the answer, beside what was found.
    pub async fn verify(&self, options: &VerifyOptions, tell: Tell<'_>) -> Result<Verified, VerifyError> {
        let _turn = Turn::take(self.verifies(), options.deep)
            .ok_or_else(|| VerifyError::Running(self.name().to_owned()))?;
        if options.repair {
            self.refuse_paused(options.site.as_deref())?;
        }
        self.note_begin(options.deep);
        let begun = Instant::now();
        let mut verified = Verified {
            share: self.name().to_owned(),
            at: String::new(),
            deep: options.deep,
            outcome: Outcome::Clean,
            sites: self
                .chosen(options.site.as_deref())
                .map(|s| s.name.clone())
                .collect(),
            found: Findings::default(),
            after_repair: None,
            files: 0,
            bytes: 0,
            blocks: 0,
            block_bytes: 0,
            duration_ms: 0,
            error: None,
        };
        if let Err(error) = self.run(options, &mut verified, tell).await {
            verified.error.get_or_insert(error.to_string());
        }
        verified.at = now_text();
        verified.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        verified.outcome = verified.judged();
        self.note_end(&verified);
        Ok(verified)
    }

    async fn run(
        &self,
        options: &VerifyOptions,
        verified: &mut Verified,
        tell: Tell<'_>,
    ) -> Result<(), VerifyError> {
        let mut share = ShareSide::new(self, Arc::new(Bandwidth::new(options.rate)));
        if options.deep {
            let audited = share.audit(tell).await;
            (verified.files, verified.bytes) = (share.files, share.bytes);
            share.tell(&mut verified.found)?;
            audited?;
        }
        let mut sites = Vec::new();
        for site in self.chosen(options.site.as_deref()) {
            let mut side = SiteSide::new(self, site, options);
            // One that is away is no reason not to look at the others.
            if let Err(error) = side.look(options.deep, tell).await {
                verified.error.get_or_insert(error.to_string());
            }
            verified.blocks += side.blocks.blocks;
            verified.block_bytes += side.blocks.bytes;
            side.tell(&mut verified.found).await?;
            sites.push(side);
        }
        verified.found.tidy();
        if options.repair && verified.found.count() > 0 {
            tracing::warn!(
                share = self.name(),
                differences = verified.found.count(),
                "verify mends what it found"
            );
            let mut left = Findings::default();
            self.repair(&mut share, &mut sites, options, tell).await?;
            share.tell(&mut left)?;
            for side in &sites {
                side.tell(&mut left).await?;
            }
            left.tidy();
            verified.after_repair = Some(left);
        }
        Ok(())
    }

    /// Of deep verifies, as configured.
    pub fn verify_rate(&self) -> Option<NonZeroU64> {
        self.verifies().rate
    }

    fn note_begin(&self, deep: bool) {
        let begun = self.verifies().records().begin(deep, now_seconds());
        if let Err(error) = begun {
            tracing::warn!(share = self.name(), %error, "the time of this verify cannot be kept");
        }
    }

    fn note_end(&self, verified: &Verified) {
        let result = VerifyResult::from(verified);
        let (share, differences, in_change) = (self.name(), result.differences(), result.in_change);
        let deep = verified.deep;
        match (verified.outcome, &verified.error) {
            (Outcome::Clean, _) => tracing::info!(share, deep, in_change, "verify: everything is equal"),
            (Outcome::Mended, _) => {
                let found = result.found;
                tracing::warn!(share, deep, found, in_change, "verify: what differed is mended");
            }
            (Outcome::Failed, Some(error)) => {
                tracing::error!(share, deep, differences, "verify came to no end: {error}");
            }
            (Outcome::Differences | Outcome::Failed, _) => {
                tracing::error!(share, deep, differences, in_change, "verify: the copies differ");
            }
        }
        for difference in verified.left().differences.iter().take(LOGGED) {
            let site = difference.site.as_deref().unwrap_or("-");
            let (path, kind) = (&difference.path, difference.kind);
            tracing::error!(share, site, path, "verify: {kind}");
        }
        if let Err(error) = self.verifies().records().note(result) {
            tracing::error!(share, %error, "the result of this verify cannot be kept over a restart");
        }
    }

    fn refuse_paused(&self, only: Option<&str>) -> Result<(), VerifyError> {
        let paused = self.chosen(only).find(|site| self.is_paused(&site.name));
        match paused {
            None => Ok(()),
            Some(site) => Err(VerifyError::Paused {
                share: self.name().to_owned(),
                site: site.name.clone(),
            }),
        }
    }
}

/// Differences that are logged one by one.
const LOGGED: usize = 20;

pub(super) fn now_seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn now_text() -> String {
    jiff::Timestamp::now().to_string()
}
