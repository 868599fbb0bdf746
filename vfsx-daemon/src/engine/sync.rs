//! Sync: the share is compared with its catalog, which closes a gap.

use super::settle::catalog_status;
use super::share::ShareEngine;
use crate::catalog::{Catalog, ScanProgress, ScanState};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SyncProgress {
    pub directories: u64,
    pub files: u64,
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
    #[error("share {share}: the catalog does not run: {why}")]
    Catalog { share: String, why: String },
}

impl ShareEngine {
    /// Scans the share and waits for the end. Whoever gives up waiting does not stop the scan.
    pub async fn sync(&self, mut progress: impl FnMut(SyncProgress)) -> Result<Synced, SyncError> {
        let down = |why: String| SyncError::Catalog {
            share: self.name().to_owned(),
            why,
        };
        // A gap that is flagged by now is to be closed by this scan, so the catalog has to know of it first.
        let intake = self.intake().clone();
        if let Err(error) = tokio::task::spawn_blocking(move || intake.tend()).await {
            tracing::error!(%error, "gap flags were not taken in before the scan");
        }
        let catalog = self.catalog().map_err(down)?;
        let known = self.journal().status().head;
        self.until(&catalog, &mut progress, |applied, _| applied >= known)
            .await?;
        let asked = catalog.request_scan().map_err(|e| down(e.to_string()))?;
        let end = self
            .until(&catalog, &mut progress, |_, scan| scan.finished >= asked)
            .await?;
        let gap = catalog_status(&catalog).await.gap.is_some() || self.intake().pending_gap().is_some();
        Ok(Synced {
            share: self.name().to_owned(),
            progress: told(&end),
            gap,
        })
    }

    async fn until(
        &self,
        catalog: &Catalog,
        progress: &mut impl FnMut(SyncProgress),
        reached: impl Fn(u64, &ScanProgress) -> bool,
    ) -> Result<ScanProgress, SyncError> {
        let down = |why: String| SyncError::Catalog {
            share: self.name().to_owned(),
            why,
        };
        let mut moved = catalog.progress();
        let mut tell_at = tokio::time::Instant::now() + TELL_EVERY;
        loop {
            moved.borrow_and_update();
            let status = catalog_status(catalog).await;
            if let Some(why) = status.failed {
                return Err(down(why));
            }
            if reached(status.applied, &status.scan) {
                return Ok(status.scan);
            }
            tokio::select! {
                changed = moved.changed() => changed.map_err(|_| down("it was stopped".into()))?,
                () = tokio::time::sleep_until(tell_at) => {
                    progress(told(&status.scan));
                    tell_at = tokio::time::Instant::now() + TELL_EVERY;
                }
            }
        }
    }
}

fn told(scan: &ScanProgress) -> SyncProgress {
    SyncProgress {
        directories: scan.directories,
        files: scan.files,
        bytes: scan.bytes,
        differences: scan.differences,
        unread_bytes: scan.unread_bytes,
        reading: scan.state == ScanState::Running && scan.unread_bytes > 0,
    }
}
