//! Settle: everything done on the share before the call is committed at the sites.

use super::share::{ShareEngine, SiteView};
use crate::catalog::{ScanState, Status};
use crate::intake::BarrierError;
use dr_replicator::{SiteState, WaitError, wait_committed};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What is waited for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettleStage {
    /// smbd processes send what they hold back.
    Modules,
    /// The catalog takes in the journal and reads what changed, and a scan that is under way.
    Catalog,
    /// The site commits.
    Site { site: String },
}

/// It is done: everything captured before the call is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub share: String,
    /// The journal's newest record at the call.
    pub journal: u64,
    /// The change that all sites have.
    pub change: u64,
    pub sites: Vec<String>,
    /// A gap is open: changes that were not captured may be missing at the sites until a sync.
    pub gap: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    #[error("share {share}: vfsxd is starting or stopping")]
    NotRunning { share: String },
    #[error("share {share}: time is over while the catalog takes in changes ({left})")]
    CatalogTimeout { share: String, left: String },
    #[error("share {share}: time is over while site {site} is {state}{why}")]
    SiteTimeout {
        share: String,
        site: String,
        state: SiteState,
        why: String,
    },
    #[error("share {share}, site {site}: {source}")]
    Site {
        share: String,
        site: String,
        source: WaitError,
    },
}

impl ShareEngine {
    /// Waits at most until `deadline`. `only` names a site; else all are waited for.
    pub async fn settle(
        &self,
        only: Option<&str>,
        deadline: Instant,
        mut progress: impl FnMut(SettleStage),
    ) -> Result<Settled, SettleError> {
        progress(SettleStage::Modules);
        let not_running = || SettleError::NotRunning {
            share: self.name().to_owned(),
        };
        let barriers = self.barriers().ok_or_else(not_running)?;
        let journal = barriers.barrier(self.intake(), deadline).await?;
        progress(SettleStage::Catalog);
        let status = self.covered(journal, deadline).await?;
        let mut sites = Vec::new();
        let tasks = self.sites(only);
        // While vfsxd stops, the sites' tasks are gone: then nothing can be promised.
        if tasks.len() < self.chosen(only).count() {
            return Err(not_running());
        }
        for site in tasks {
            progress(SettleStage::Site {
                site: site.name.clone(),
            });
            sites.push(site.name.clone());
            self.committed(site, status.head, deadline).await?;
        }
        let gap = status.gap.is_some() || self.intake().gap_after(status.applied).is_some();
        Ok(Settled {
            share: self.name().to_owned(),
            journal,
            change: status.head,
            sites,
            gap,
        })
    }

    /// Waits until everything that clients have done before this call is in the catalog.
    pub(super) async fn all_in(&self, deadline: Instant) -> Result<Status, SettleError> {
        let barriers = self.barriers().ok_or_else(|| SettleError::NotRunning {
            share: self.name().to_owned(),
        })?;
        let journal = barriers.barrier(self.intake(), deadline).await?;
        self.covered(journal, deadline).await
    }

    /// Waits until all from records up to `journal`, and from a scan under way, is in the change log.
    async fn covered(&self, journal: u64, deadline: Instant) -> Result<Status, SettleError> {
        let mut moved = self.catalog().progress();
        loop {
            moved.borrow_and_update();
            let status = self.catalog().status();
            let done = status.covered >= journal && status.scan.state == ScanState::Done;
            if done && status.failed.is_none() {
                return Ok(status);
            }
            match tokio::time::timeout_at(deadline, moved.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    return Err(SettleError::NotRunning {
                        share: self.name().to_owned(),
                    });
                }
                Err(_) => {
                    let left = left(&status, journal);
                    return Err(SettleError::CatalogTimeout {
                        share: self.name().to_owned(),
                        left,
                    });
                }
            }
        }
    }

    async fn committed(&self, site: SiteView, change: u64, deadline: Instant) -> Result<(), SettleError> {
        match tokio::time::timeout_at(deadline, wait_committed(site.status.clone(), change)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(SettleError::Site {
                share: self.name().to_owned(),
                site: site.name,
                source,
            }),
            Err(_) => {
                let status = site.status.borrow();
                let why = status
                    .last_error
                    .as_ref()
                    .map(|e| format!(": {e}"))
                    .unwrap_or_default();
                Err(SettleError::SiteTimeout {
                    share: self.name().to_owned(),
                    site: site.name,
                    state: status.state,
                    why,
                })
            }
        }
    }
}

fn left(status: &Status, journal: u64) -> String {
    if let Some(trouble) = &status.failed {
        return trouble.why.clone();
    }
    if status.scan.state != ScanState::Done {
        return format!("a scan runs: {} files seen", status.scan.files);
    }
    format!(
        "{} of {journal} journal records are covered, {} files and {} bytes are to be read",
        status.covered, status.dirty_objects, status.dirty_bytes
    )
}
