//! Mending what a verify found: by the ways that bring any two states together.

use super::share_side::ShareSide;
use super::site_side::SiteSide;
use super::{Tell, VerifyError, VerifyOptions, VerifyProgress};
use crate::engine::share::ShareEngine;
use dr_replicator::SiteStatus;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A site that has got on with nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(120);

impl ShareEngine {
    /// What the share holds counts: files that differ are read again, and what that changes is shipped; sites are brought
    /// over by difference; bad blocks are sent again. Then everything that differed is looked at once more.
    pub(super) async fn repair(
        &self,
        share: &mut ShareSide<'_>,
        sites: &mut [SiteSide<'_>],
        options: &VerifyOptions,
        tell: Tell<'_>,
    ) -> Result<(), VerifyError> {
        let say = |stage: String| {
            tell(VerifyProgress {
                stage,
                done: 0,
                total: 0,
                bytes: 0,
            });
        };
        let objects = share.objects();
        if !objects.is_empty() {
            say("files that differ are taken over".to_owned());
            let catalog = self.catalog().clone();
            tokio::task::spawn_blocking(move || catalog.read_again(objects)).await??;
            // Finds the names, and ends when everything that is to be read is read.
            self.sync(|_| ()).await?;
            let head = self.catalog().status().head;
            for site in self.sites(options.site.as_deref()) {
                say(format!("{} gets what was taken over", site.name));
                let has_it = move |status: &SiteStatus| status.cursor >= head;
                reach(&site.name, site.status, has_it).await?;
            }
        }
        for side in sites.iter_mut().filter(|side| side.count() > 0) {
            say(format!("{} is mended", side.name));
            let sent = side.verifier.mend_blocks(&side.blocks.differences).await;
            sent.map_err(|e| side.failed(e))?;
            // Makes the trees equal, and the blocks durable: it ends with a commit.
            if let Some((number, status)) = self.compare(&side.name) {
                let done = move |status: &SiteStatus| status.compared >= number && status.cursor > 0;
                reach(&side.name, status, done).await?;
            }
        }
        share.again(tell).await?;
        for side in sites {
            side.again(options.deep, tell).await?;
        }
        Ok(())
    }
}

/// Waits as long as the site gets on.
async fn reach(
    site: &str,
    mut status: watch::Receiver<SiteStatus>,
    reached: impl Fn(&SiteStatus) -> bool,
) -> Result<(), VerifyError> {
    let mut mark = None;
    let mut moved = Instant::now();
    loop {
        let now = {
            let status = status.borrow_and_update();
            if reached(&status) {
                return Ok(());
            }
            (status.cursor, status.commits, status.shipped_bytes, status.resync)
        };
        if mark.as_ref() != Some(&now) {
            mark = Some(now);
            moved = Instant::now();
        }
        if moved.elapsed() >= STALLED || status.has_changed().is_err() {
            let status = status.borrow();
            return Err(VerifyError::Stalled {
                site: site.to_owned(),
                state: status.state.as_str(),
                why: status
                    .last_error
                    .as_ref()
                    .map(|e| format!(": {e}"))
                    .unwrap_or_default(),
            });
        }
        // Either way it is looked at again.
        let _ = timeout(Duration::from_secs(1), status.changed()).await;
    }
}
