//! What a task is at, and what can happen to it.

use super::following::{Event, Following};
use crate::meet::{Compare, Start};
use crate::resync::Resynced;
use crate::status::ResyncProgress;
use crate::trouble::Trouble;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

pub(super) enum Phase {
    Meeting(BoxFuture<'static, Result<Start, Trouble>>),
    Comparing(Comparing),
    Following(Box<Following>),
    Waiting { until: Instant, then: Then },
    Paused,
    Fenced,
}

pub(super) struct Comparing {
    pub(super) work: BoxFuture<'static, Result<Resynced, Trouble>>,
    pub(super) progress: watch::Receiver<ResyncProgress>,
    pub(super) initial: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Then {
    Meet,
    Compare(Compare),
}

pub(super) enum Action {
    /// Somebody has asked for something.
    Wish,
    /// The source has more changes.
    Head,
    /// The source or the handle is gone, or it has taken too long to stop.
    End,
    Met(Result<Start, Trouble>),
    Resynced(Result<Resynced, Trouble>),
    Follow(Event),
    Oldest(Option<i64>),
    /// A wait is over.
    Due(Then),
    Tick,
}

/// What comes next of the phase itself.
pub(super) async fn next(phase: &mut Phase, head: u64) -> Action {
    match phase {
        Phase::Meeting(work) => Action::Met(work.await),
        Phase::Comparing(comparing) => tokio::select! {
            resynced = &mut comparing.work => Action::Resynced(resynced),
            Ok(()) = comparing.progress.changed() => Action::Tick,
        },
        Phase::Following(following) => Action::Follow(following.next(head).await),
        Phase::Waiting { until, then } => {
            tokio::time::sleep_until(*until).await;
            Action::Due(then.clone())
        }
        Phase::Paused | Phase::Fenced => std::future::pending().await,
    }
}
