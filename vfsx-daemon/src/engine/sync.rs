//! Reconcile: the share is compared with its catalog, which closes a gap.

use super::share::ShareEngine;
use crate::catalog::{ScanState, Status};
use crate::trouble::Trouble;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SyncProgress {
    pub directories: u64,
    pub files: u64,
    /// Files and directories that there are, as far as known: those of the catalog.
    pub known: u64,
    /// Of the files seen.
    pub bytes: u64,
    /// Names that differed from the catalog.
    pub differences: u64,
    /// Found new or changed, and not read yet.
    pub unread_bytes: u64,
    /// The walk is over; what it found is read.
    pub reading: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    pub share: String,
    pub progress: SyncProgress,
    /// A gap is open all the same: it was raised while the scan ran.
    pub gap: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("share {share}: the catalog cannot go on: {why}; the scan is done when it can")]
    Catalog { share: String, why: String },
    #[error("share {share}: vfsxd is stopping")]
    Stopping { share: String },
}

impl ShareEngine {
    /// Scans the share and waits for the end. Whoever gives up waiting does not stop the scan.
    pub async fn sync(&self, mut progress: impl FnMut(SyncProgress)) -> Result<Synced, SyncError> {
        // A gap that is flagged by now is to be closed by this scan, so the catalog has to know of it first.
        let intake = self.intake().clone();
        if let Err(error) = tokio::task::spawn_blocking(move || intake.tend()).await {
            tracing::error!(%error, "gap flags were not taken in before the scan");
        }
        let known = self.journal().status().head;
        self.until(&mut progress, |status| status.applied >= known)
            .await?;
        let asked = tokio::task::block_in_place(|| self.catalog().request_scan());
        let asked = asked.map_err(|e| SyncError::Catalog {
            share: self.name().to_owned(),
            why: e.to_string(),
        })?;
        let end = self
            .until(&mut progress, |status| status.scan.finished >= asked)
            .await?;
        let gap = end.gap.is_some() || self.intake().gap_after(end.applied).is_some();
        Ok(Synced {
            share: self.name().to_owned(),
            progress: told(&end),
            gap,
        })
    }

    async fn until(
        &self,
        progress: &mut impl FnMut(SyncProgress),
        reached: impl Fn(&Status) -> bool,
    ) -> Result<Status, SyncError> {
        let mut moved = self.catalog().progress();
        let mut tell_at = Instant::now() + TELL_EVERY;
        loop {
            moved.borrow_and_update();
            let status = self.catalog().status();
            if reached(&status) {
                return Ok(status);
            }
            if let Some(Trouble { why, .. }) = status.failed {
                return Err(SyncError::Catalog {
                    share: self.name().to_owned(),
                    why,
                });
            }
            tokio::select! {
                changed = moved.changed() => if changed.is_err() {
                    return Err(SyncError::Stopping { share: self.name().to_owned() });
                },
                () = tokio::time::sleep_until(tell_at) => {
                    progress(told(&status));
                    tell_at = Instant::now() + TELL_EVERY;
                }
            }
        }
    }
}

fn told(status: &Status) -> SyncProgress {
    let scan = &status.scan;
    SyncProgress {
        known: status.objects,
        directories: scan.directories,
        files: scan.files,
        bytes: scan.bytes,
        differences: scan.differences,
        unread_bytes: scan.unread_bytes,
        reading: scan.state == ScanState::Running && scan.unread_bytes > 0,
    }
}
