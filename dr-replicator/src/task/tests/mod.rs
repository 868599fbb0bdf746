//! A task between a source and a site in memory. Time is tokio's paused clock: pauses pass at once.

mod comparing;
mod everything;
mod following;
mod troubles;

use crate::fake::{FakeSite, FakeSource};
use crate::handle::{SiteHandle, spawn};
use crate::options::SiteOptions;
use crate::status::{SiteState, SiteStatus};
use std::sync::Arc;
use std::time::Duration;

/// Longer than any back-off, many times over.
const LONG: Duration = Duration::from_secs(3600);

struct Pair {
    source: Arc<FakeSource>,
    site: Arc<FakeSite>,
    name: &'static str,
}

impl Pair {
    fn new(seed: u64) -> Self {
        Self::with(Arc::new(FakeSource::default()), seed, "site")
    }

    fn with(source: Arc<FakeSource>, seed: u64, name: &'static str) -> Self {
        let site = Arc::new(FakeSite::new(seed));
        source.watch_site(name, site.clone());
        Self { source, site, name }
    }

    fn start(&self) -> SiteHandle {
        self.start_with(|_| {})
    }

    fn start_with(&self, set: impl FnOnce(&mut SiteOptions)) -> SiteHandle {
        let mut options = SiteOptions::new(self.name);
        options.stop_within = Duration::from_secs(5);
        set(&mut options);
        spawn(self.source.clone(), self.site.clone(), options)
    }

    /// In sync at the source's head of now, with equal trees and all blocks.
    async fn assert_equal(&self, handle: &SiteHandle) {
        let head = self.source.head_now();
        let status = until(handle, |s| s.state == SiteState::InSync && s.cursor >= head).await;
        assert_eq!(status.last_verified.map(|v| v.equal), Some(true));
        assert_eq!(self.source.model(), self.site.model());
        assert!(
            self.site.is_whole(),
            "the site's tree names blocks that it does not have"
        );
        assert_eq!(self.source.violations(), Vec::<String>::new());
        self.assert_applied_once();
    }

    /// Within an epoch every change is applied once, in order.
    fn assert_applied_once(&self) {
        let mut at = (0, 0);
        for (epoch, first, last) in self.site.commits() {
            if first == 0 {
                assert!(
                    epoch > at.0 || (epoch, last) == at,
                    "chunk of {epoch}/{last} after {at:?}"
                );
            } else if epoch == at.0 {
                assert_eq!(first, at.1 + 1, "epoch {epoch}");
            } else {
                assert_eq!(
                    (at, first),
                    ((0, 0), 1),
                    "an epoch begins with the log's start or a resync"
                );
            }
            at = (epoch, last);
        }
    }
}

async fn until(handle: &SiteHandle, what: impl FnMut(&SiteStatus) -> bool) -> SiteStatus {
    let mut status = handle.status();
    let waited = tokio::time::timeout(LONG, status.wait_for(what)).await;
    match waited {
        Ok(found) => found.expect("the task goes on").clone(),
        Err(_) => panic!("not reached; it is {:?}", handle.status().borrow()),
    }
}
