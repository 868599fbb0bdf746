//! What a share needs all the time: its journal is trimmed, and its intake knows whether written data is of use.

use super::share::ShareEngine;
use crate::catalog::ScanState;
use crate::intake::Demand;
use std::sync::Arc;
use std::time::Duration;

/// At least so often.
const EVERY: Duration = Duration::from_secs(1);
/// And at most, however often the catalog moves on.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn keep_up(share: Arc<ShareEngine>) {
    let mut moved = share.catalog().progress();
    loop {
        moved.borrow_and_update();
        let kept = Arc::clone(&share);
        if tokio::task::spawn_blocking(move || keep(&kept)).await.is_err() {
            tracing::error!(share = share.name(), "trimming the journal panicked");
        }
        tokio::time::sleep(PAUSE).await;
        if let Ok(Err(_)) = tokio::time::timeout(EVERY, moved.changed()).await {
            return;
        }
    }
}

fn keep(share: &ShareEngine) {
    share.trim();
    let status = share.catalog().status();
    share.intake().note_demand(Demand {
        scan: status.scan.state != ScanState::Done,
        gap: status.gap.is_some(),
        rest: status.cuts.rests(),
        kept: status.kept_bytes,
    });
}
