//! Puts the parts together: for each share journal, intake, catalog and one task per site; one intake socket for all.

mod boot;
mod commits;
mod exclude;
mod pauses;
mod records;
mod settle;
mod share;
mod state_dir;
mod sync;
mod upkeep;
mod verify;

#[cfg(test)]
mod tests;

pub use settle::{SettleError, SettleStage, Settled};
pub use share::ShareEngine;
pub use state_dir::{StateDir, StateDirError};
pub use sync::{SyncError, SyncProgress, Synced};
pub use verify::{
    Difference, DifferenceKind, Findings, LISTED, Outcome, Running, SiteResult, Verified, VerifyError,
    VerifyOptions, VerifyProgress, VerifyReport, VerifyResult,
};

use crate::catalog::CatalogError;
use crate::config::{Config, Site};
use crate::intake::{BindError, Intake, ShareIntake};
use crate::journal::OpenError;
use crate::status::StatusReport;
use boot::Boot;
use restfs_lib::client::Endpoint;
use std::num::NonZeroU64;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Why vfsxd cannot start. One line each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    #[error("share {share}: {source}")]
    Journal { share: String, source: OpenError },
    #[error("share {share}: {what}: {source}")]
    Share {
        share: String,
        what: &'static str,
        source: std::io::Error,
    },
    #[error("share {share}: {source}")]
    Catalog { share: String, source: CatalogError },
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// All that runs. Needs a tokio runtime with several threads. Dropping it is like a kill: nothing is lost, but the
/// next start has more to do.
pub struct Engine {
    shares: Vec<Arc<ShareEngine>>,
    intake: Intake,
    upkeep: JoinSet<()>,
    boot: Boot,
    /// Held until the end.
    _state_dir: StateDir,
}

impl Engine {
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let state_dir = StateDir::take(&config.state_dir)?;
        let boot = Boot::of(&config.state_dir);
        let crashed = boot.crashed_before();
        let mut shares = Vec::new();
        for share in &config.shares {
            let sites: Vec<Site> = config
                .sites
                .iter()
                .filter(|site| site.takes(&share.name))
                .cloned()
                .collect();
            shares.push(Arc::new(ShareEngine::open(share, sites, config, &state_dir)?));
        }
        let intakes: Vec<Arc<ShareIntake>> = shares.iter().map(|s| Arc::clone(s.intake())).collect();
        // Gaps that the last run or absent times have left are in the journal before anything is told to be in sync.
        for intake in &intakes {
            let intake = Arc::clone(intake);
            // It can only have panicked, and the next tending tells.
            let _ = tokio::task::spawn_blocking(move || intake.tend()).await;
        }
        let intake = Intake::start(&config.socket, &config.allow_uids, intakes)?;
        let mut upkeep = JoinSet::new();
        for share in &shares {
            share.start(intake.barriers())?;
            if crashed {
                share.look_for_what_a_crash_lost();
            }
            upkeep.spawn(upkeep::keep_up(Arc::clone(share)));
            upkeep.spawn(commits::pass_on(Arc::clone(share)));
            upkeep.spawn(exclude::pass_on(Arc::clone(share)));
            upkeep.spawn(verify::on_schedule(Arc::clone(share), config.verify.clone()));
        }
        boot.note();
        Ok(Self {
            shares,
            intake,
            upkeep,
            boot,
            _state_dir: state_dir,
        })
    }

    pub fn shares(&self) -> &[Arc<ShareEngine>] {
        &self.shares
    }

    /// Finishes what is under way and ends. What modules have not had acknowledged stays with them.
    pub async fn stop(mut self) {
        self.intake.stop().await;
        self.upkeep.shutdown().await;
        for share in &self.shares {
            share.stop().await;
        }
        // Of a journal that has failed nobody knows what it has.
        if self.shares.iter().all(|share| !share.journal().status().failed) {
            self.boot.forget();
        }
    }

    /// Takes over what can be changed while running: the sites' limits. Returns what needs a restart, one line each.
    pub fn reload(&self, old: &Config, new: &Config) -> Vec<String> {
        for site in &new.sites {
            for share in &self.shares {
                share.set_limit(&site.name, site.limit);
            }
        }
        needs_restart(old, new)
    }
}

/// Status of all shares. Asks catalogs, so it takes a thread.
pub async fn report(shares: &[Arc<ShareEngine>]) -> StatusReport {
    let mut reports = Vec::new();
    for share in shares {
        let share = Arc::clone(share);
        match tokio::task::spawn_blocking(move || share.report()).await {
            Ok(report) => reports.push(report),
            Err(error) => tracing::error!(%error, "the status of a share cannot be made"),
        }
    }
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        shares: reports,
    }
}

fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let without_limits = |sites: &[Site]| -> Vec<Site> {
        sites
            .iter()
            .map(|site| Site {
                limit: None::<NonZeroU64>,
                ..site.clone()
            })
            .collect()
    };
    let changed = [
        ("state_dir", old.state_dir != new.state_dir),
        ("socket", old.socket != new.socket),
        ("control", old.control != new.control),
        ("allow_uids", old.allow_uids != new.allow_uids),
        ("journal_max", old.journal_max != new.journal_max),
        ("changes_max", old.changes_max != new.changes_max),
        ("age", old.age != new.age),
        ("log", old.log != new.log),
        ("metrics", old.metrics != new.metrics),
        ("[verify]", old.verify != new.verify),
        ("[[share]]", old.shares != new.shares),
        (
            "[[site]] other than limit",
            without_limits(&old.sites) != without_limits(&new.sites),
        ),
    ];
    let lines = changed.iter().filter(|(_, changed)| *changed);
    lines
        .map(|(key, _)| format!("{key} has changed; restart vfsxd for it to take effect"))
        .collect()
}

/// How to reach a site.
fn endpoint(site: &Site) -> Endpoint {
    Endpoint {
        url: site.url.clone(),
        token: site.token.clone(),
        trust: site.trust.clone(),
        encoding: Default::default(),
        limits: Default::default(),
        wire: Default::default(),
    }
}
