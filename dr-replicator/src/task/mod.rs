//! The owner of one site.

use crate::handle::Wish;
use crate::options::SiteOptions;
use crate::site::Site;
use crate::source::ChangeSource;
use crate::status::SiteStatus;
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) struct SiteTask {
    source: Arc<dyn ChangeSource>,
    site: Arc<dyn Site>,
    options: SiteOptions,
    wishes: watch::Receiver<Wish>,
    publish: watch::Sender<SiteStatus>,
}

impl SiteTask {
    pub(crate) fn new(
        source: Arc<dyn ChangeSource>,
        site: Arc<dyn Site>,
        options: SiteOptions,
        wishes: watch::Receiver<Wish>,
        publish: watch::Sender<SiteStatus>,
    ) -> Self {
        Self {
            source,
            site,
            options,
            wishes,
            publish,
        }
    }

    pub(crate) async fn run(self) {
        let _ = (self.source, self.site, self.options, self.wishes, self.publish);
    }
}
