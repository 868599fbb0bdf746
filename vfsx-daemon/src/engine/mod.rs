//! Puts the parts together: for each share journal, intake, catalog and one task per site; one intake socket for all.

mod boot;
mod commits;
mod exclude;
mod pauses;
mod reconcile;
mod records;
mod settle;
mod share;
mod space;
mod state_dir;
mod sync;
mod upkeep;
mod verify;
mod wall_clock;

#[cfg(test)]
mod tests;

pub use reconcile::{Due, Why};
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
use crate::intake::{BindError, Intake, ShareIntake, now_ns};
use crate::journal::OpenError;
use crate::status::StatusReport;
use boot::Boot;
use restfs_lib::client::Endpoint;
use space::Space;
use std::num::NonZeroU64;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use wall_clock::{Now, WallClock};

/// A clean stop waits so long for the shares' disks.
const WRITE_BACK_WITHIN: Duration = Duration::from_secs(10);

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
    #[error("state_dir: the boot that vfsxd runs on cannot be noted: {0}")]
    Boot(std::io::Error),
    #[error("state_dir: its free space is not known: {0}")]
    Space(std::io::Error),
}

/// All that runs. Needs a tokio runtime with several threads. Dropping it is like a kill: nothing is lost, but the
/// next start has more to do.
pub struct Engine {
    shares: Vec<Arc<ShareEngine>>,
    intake: Intake,
    upkeep: JoinSet<()>,
    boot: Arc<Boot>,
    /// Held until the end.
    _state_dir: StateDir,
}

impl Engine {
    /// `handed_over`: what the service manager listens on for modules, if it does ([`crate::intake::handed_over`]).
    pub async fn start(config: &Config, handed_over: Option<UnixListener>) -> Result<Self, StartError> {
        let state_dir = StateDir::take(&config.state_dir)?;
        let names: Vec<_> = config.shares.iter().map(|share| share.name.as_str()).collect();
        state_dir.prepare(&names)?;
        let space = Space::of(&config.state_dir, config.space).map_err(StartError::Space)?;
        let space = Arc::new(space);
        let (boot, lost_since) = Boot::look(&config.state_dir).map_err(StartError::Boot)?;
        let mut shares = Vec::new();
        for share in &config.shares {
            let sites: Vec<Site> = config
                .sites
                .iter()
                .filter(|site| site.takes(&share.name))
                .cloned()
                .collect();
            shares.push(Arc::new(ShareEngine::open(
                share, sites, config, &state_dir, &space,
            )?));
        }
        if let Some(since_ns) = lost_since {
            shares.iter().for_each(|share| share.machine_stopped(since_ns));
        }
        let intakes: Vec<Arc<ShareIntake>> = shares.iter().map(|s| Arc::clone(s.intake())).collect();
        // Gaps that the last run or absent times have left are in the journal before anything is told to be in sync.
        for intake in &intakes {
            let intake = Arc::clone(intake);
            // It can only have panicked, and the next tending tells.
            let _ = tokio::task::spawn_blocking(move || intake.tend()).await;
        }
        // On a full disk the mark of the last run stays, and what is lost from now on may be looked for in vain, or not at all.
        let clock = boot.clock();
        if let Err(error) = boot.note(clock.earliest(Now::look())) {
            tracing::error!(%error, "the boot that vfsxd runs on cannot be noted");
        }
        let boot = Arc::new(boot);
        let intake = Intake::start(
            &config.socket,
            handed_over,
            &config.allow_uids,
            config.sessions_max,
            intakes,
        )?;
        let mut upkeep = JoinSet::new();
        for share in &shares {
            share.start(intake.barriers())?;
            upkeep.spawn(upkeep::keep_up(Arc::clone(share)));
            upkeep.spawn(commits::pass_on(Arc::clone(share)));
            upkeep.spawn(exclude::pass_on(Arc::clone(share)));
            upkeep.spawn(verify::on_schedule(Arc::clone(share), config.verify.clone()));
            upkeep.spawn(reconcile::by_itself(Arc::clone(share)));
        }
        upkeep.spawn(space::watch(space, shares.clone()));
        upkeep.spawn(note_changes(Arc::clone(&boot), clock, shares.clone()));
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
        // What clients change from now on is up to the modules, and may be lost with the machine.
        let quiet = self.shares.iter().all(|share| share.intake().is_quiet());
        self.intake.stop().await;
        self.upkeep.shutdown().await;
        for share in &self.shares {
            share.stop().await;
        }
        // Of a journal that has failed nobody knows what it has.
        let whole = self.shares.iter().all(|share| !share.journal().status().failed);
        if quiet && whole {
            write_back(self.shares, self.boot).await;
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
        space: shares.first().and_then(|share| share.space().report()),
        modules: shares.first().and_then(|share| share.modules()),
        shares: reports,
    }
}

/// So that a loss of power from now on is none of a running vfsxd.
async fn write_back(shares: Vec<Arc<ShareEngine>>, boot: Arc<Boot>) {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: the process does not wait for it at its end.
    std::thread::spawn(move || {
        // Before anything is written: what a client changes meanwhile comes after it.
        let stopped_ns = now_ns();
        let written = shares.iter().try_for_each(|share| share.write_back());
        let ended = written.and_then(|()| boot.end(stopped_ns, boot::machine_goes_down()));
        // Nobody listens any more when it has taken too long.
        let _ = tell.send(ended);
    });
    let why = match tokio::time::timeout(WRITE_BACK_WITHIN, told).await {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it takes longer than {WRITE_BACK_WITHIN:?}"),
    };
    tracing::warn!("the shares are not known to be on disk, so a start on another boot compares them: {why}");
}

/// Keeps the time of the last changes on disk: see [`boot`]. A clock that was set makes what is noted wrong at once: back, what changes
/// from now on has earlier times.
async fn note_changes(boot: Arc<Boot>, mut clock: WallClock, shares: Vec<Arc<ShareEngine>>) {
    let position = || shares.iter().map(|share| share.position()).collect::<Vec<_>>();
    let mut noted = position();
    let (mut next, mut was_set) = (Instant::now() + boot::NOTE_EVERY, false);
    loop {
        tokio::time::sleep(boot::LOOK_EVERY).await;
        let (now, due) = (Now::look(), Instant::now() >= next);
        was_set |= clock.was_set(now);
        if due {
            next = Instant::now() + boot::NOTE_EVERY;
        }
        let changed = position();
        if !was_set && (!due || changed == noted) {
            continue;
        }
        let (boot, earliest) = (Arc::clone(&boot), clock.earliest(now));
        match tokio::task::spawn_blocking(move || boot.note(earliest)).await {
            Ok(Ok(())) => (noted, was_set) = (changed, false),
            Ok(Err(error)) => tracing::warn!(%error, "the time of the last changes cannot be noted"),
            Err(error) => tracing::error!(%error, "noting the time of the last changes panicked"),
        }
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
        ("sessions_max", old.sessions_max != new.sessions_max),
        ("changes_max", old.changes_max != new.changes_max),
        ("age", old.age != new.age),
        ("log", old.log != new.log),
        ("metrics", old.metrics != new.metrics),
        ("[verify]", old.verify != new.verify),
        ("[space]", old.space != new.space),
        ("[[share]] or [reconcile]", old.shares != new.shares),
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
