//! What modules say of names that are not replicated goes to the catalog.

use super::share::ShareEngine;
use std::sync::Arc;
use std::time::Duration;
use vfsx_proto::Exclude;

/// After the catalog could not take it.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Runs until the intake is gone.
pub(super) async fn pass_on(share: Arc<ShareEngine>) {
    let mut said = share.intake().exclude();
    // A module may have been quicker than this.
    said.mark_changed();
    while said.changed().await.is_ok() {
        let exclude = said.borrow_and_update().clone();
        if exclude == Exclude::default() {
            continue;
        }
        let of_thread = Arc::clone(&share);
        let set = move || {
            let catalog = of_thread.catalog();
            catalog.set_exclude(exclude.patterns, exclude.case_sensitive, exclude.read_ns)
        };
        match tokio::task::spawn_blocking(set).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(share = share.name(), %error, "other names are to be excluded, and the catalog does not take it");
                tokio::time::sleep(AFTER_FAILURE).await;
                said.mark_changed();
            }
            Err(error) => tracing::error!(share = share.name(), %error, "excluding names panicked"),
        }
    }
}
