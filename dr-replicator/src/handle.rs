//! How the rest of the program speaks to a site's task.

use crate::bandwidth::Bandwidth;
use crate::options::SiteOptions;
use crate::site::Site;
use crate::source::ChangeSource;
use crate::status::{SiteState, SiteStatus};
use crate::task::SiteTask;
use std::num::NonZeroU64;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the task is asked to be. The newest wish counts, so asking never waits and never queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) paused: bool,
    pub(crate) stopped: bool,
    pub(crate) limit: Option<NonZeroU64>,
    /// Comparisons asked for.
    pub(crate) comparisons: u64,
}

/// One site of one share. Dropping it stops the task.
#[derive(Debug)]
pub struct SiteHandle {
    name: String,
    bandwidth: Arc<Bandwidth>,
    wish: watch::Sender<Wish>,
    status: watch::Receiver<SiteStatus>,
    task: Option<JoinHandle<()>>,
}

/// The change will not be committed by this task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    #[error("the site's task has ended")]
    Stopped,
    #[error("the site takes no more changes from this source: {0}")]
    Fenced(String),
}

/// Starts shipping. Needs a running tokio runtime.
pub fn spawn(source: Arc<dyn ChangeSource>, site: Arc<dyn Site>, options: SiteOptions) -> SiteHandle {
    let (wish, wishes) = watch::channel(Wish {
        paused: options.paused,
        stopped: false,
        limit: options.limit,
        comparisons: 0,
    });
    let (publish, status) = watch::channel(SiteStatus::new());
    let name = options.name.clone();
    let bandwidth = Arc::new(Bandwidth::new(options.limit));
    let task = SiteTask::new(source, site, options, bandwidth.clone(), wishes, publish);
    let task = tokio::spawn(task.run());
    SiteHandle {
        name,
        bandwidth,
        wish,
        status,
        task: Some(task),
    }
}

impl SiteHandle {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What goes to the site beside its task has part in its limit.
    pub(crate) fn bandwidth(&self) -> Arc<Bandwidth> {
        self.bandwidth.clone()
    }

    /// The newest status, and a way to wait for the next one.
    pub fn status(&self) -> watch::Receiver<SiteStatus> {
        self.status.clone()
    }

    /// Finishes the commit under way, then ships nothing until [`Self::resume`].
    pub fn pause(&self) {
        self.wish.send_modify(|w| w.paused = true);
    }

    /// Goes on at once; also cuts short the pause before the next attempt after an error.
    pub fn resume(&self) {
        self.wish.send_modify(|w| w.paused = false);
    }

    /// Bytes per second for blocks from now on; `None` is no limit.
    pub fn set_limit(&self, limit: Option<NonZeroU64>) {
        self.wish.send_modify(|w| w.limit = limit);
    }

    /// Has the site brought over by tree difference, whatever is believed of it. Done when [`SiteStatus::compared`] is what
    /// is returned here.
    pub fn compare(&self) -> u64 {
        let mut number = 0;
        self.wish.send_modify(|w| {
            w.comparisons += 1;
            number = w.comparisons;
        });
        number
    }

    /// Returns when change `sequence` and all before it are durable at the site. Takes as long as that takes: the
    /// caller sets the time limit.
    pub async fn wait_committed(&self, sequence: u64) -> Result<(), WaitError> {
        wait_committed(self.status.clone(), sequence).await
    }

    /// Ends the task after the commit under way, or when `stop_within` is over.
    pub async fn stop(mut self) {
        self.wish.send_modify(|w| w.stopped = true);
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(site = self.name, "the site's task panicked: {error}");
        }
    }
}

impl Drop for SiteHandle {
    fn drop(&mut self) {
        self.wish.send_modify(|w| w.stopped = true);
    }
}

/// [`SiteHandle::wait_committed`] for one who has only the status.
pub async fn wait_committed(mut status: watch::Receiver<SiteStatus>, sequence: u64) -> Result<(), WaitError> {
    let reached = status
        .wait_for(|s| s.cursor >= sequence || matches!(s.state, SiteState::Fenced | SiteState::Stopped))
        .await
        .map_err(|_| WaitError::Stopped)?;
    if reached.cursor >= sequence {
        return Ok(());
    }
    match reached.state {
        SiteState::Fenced => Err(WaitError::Fenced(reached.last_error.clone().unwrap_or_default())),
        _ => Err(WaitError::Stopped),
    }
}
