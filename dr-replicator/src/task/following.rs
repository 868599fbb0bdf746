//! Shipping the change log: while one commit is under way the next is prepared.

use super::steps::{Done, Preparation, Prepared, Steps};
use crate::status::{SiteState, Verified};
use crate::trouble::Trouble;
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::time::Instant;

/// Trees are compared at most this often while changes come in.
const VERIFY_APART: Duration = Duration::from_secs(1);
/// With nothing to ship they are compared this often all the same: it shows a site that is gone, or whose tree was
/// changed by someone else.
const VERIFY_IDLE: Duration = Duration::from_secs(15);

/// When no exact state could be shipped for so long, since what it names is never at hand, the source is told,
const TELL: Duration = Duration::from_secs(5);
/// and after this the site gets what there is.
const OUTDATED: Duration = Duration::from_secs(10);

type Work<T> = Option<BoxFuture<'static, Result<T, Trouble>>>;

pub(super) struct Following {
    pub(super) epoch: u64,
    /// Last change committed. Changes up to `prepared` or the one being committed follow it without a hole.
    pub(super) cursor: u64,
    /// The trees were equal when they were compared last, in this epoch.
    pub(super) verified: bool,
    /// While below it, the site is being filled for the first time.
    pub(super) initial_until: u64,
    preparing: Work<Preparation>,
    /// The head when that began.
    preparing_at: u64,
    prepared: Option<Box<Prepared>>,
    /// Since when no exact state was committed for what was outdated.
    outdated_since: Option<Instant>,
    committing: Option<Committing>,
    verifying: Work<Option<Verified>>,
    verified_at: Option<(Instant, u64)>,
    /// The source had no changes to ship though its head said so; asked again when the head moves, and now and then.
    empty_at: Option<u64>,
}

struct Committing {
    work: BoxFuture<'static, Result<Option<Done>, Trouble>>,
    last: u64,
    bytes: u64,
    oldest_ns: Option<i64>,
}

/// What has come of the work.
pub(super) enum Event {
    Prepared(Result<Preparation, Trouble>),
    Committed(Result<Option<Done>, Trouble>),
    Verified(Result<Option<Verified>, Trouble>),
    /// It is time to compare.
    VerifyDue,
}

impl Following {
    pub(super) fn new(epoch: u64, cursor: u64, initial_until: u64) -> Self {
        Self {
            epoch,
            cursor,
            verified: false,
            initial_until,
            preparing: None,
            preparing_at: 0,
            prepared: None,
            outdated_since: None,
            committing: None,
            verifying: None,
            verified_at: None,
            empty_at: None,
        }
    }

    pub(super) fn state(&self, head: u64) -> SiteState {
        match () {
            () if self.cursor < self.initial_until => SiteState::InitialSync,
            () if self.cursor >= head && self.verified => SiteState::InSync,
            () => SiteState::CatchingUp,
        }
    }

    /// Starts whatever can be started.
    pub(super) fn advance(&mut self, steps: &Steps, head: u64) {
        if self.committing.is_none()
            && let Some(prepared) = self.prepared.take()
        {
            self.verifying = None;
            self.committing = Some(Committing {
                last: prepared.commit.last,
                bytes: prepared.bytes,
                oldest_ns: oldest(&prepared.noted_ns),
                work: Box::pin(steps.clone().commit(*prepared)),
            });
        }
        let planned = self.planned();
        if self.preparing.is_none()
            && self.prepared.is_none()
            && planned < head
            && self.empty_at != Some(head)
        {
            let whole = self.outdated_since.is_none_or(|since| since.elapsed() < OUTDATED);
            self.preparing_at = head;
            self.preparing = Some(Box::pin(steps.clone().prepare(self.epoch, planned, whole)));
        }
        if self.is_idle(head) && self.verifying.is_none() && self.verify_at() <= Instant::now() {
            self.verifying = Some(Box::pin(steps.clone().verify(self.cursor)));
        }
    }

    /// Waits for the next event. May be dropped and called again.
    pub(super) async fn next(&mut self, head: u64) -> Event {
        let verify_due = (self.is_idle(head) && self.verifying.is_none()).then(|| self.verify_at());
        let event = tokio::select! {
            done = done(self.committing.as_mut().map(|c| &mut c.work)) => Event::Committed(done),
            prepared = done(self.preparing.as_mut()) => Event::Prepared(prepared),
            verified = done(self.verifying.as_mut()) => Event::Verified(verified),
            () = until(verify_due) => Event::VerifyDue,
        };
        match &event {
            Event::Committed(_) => self.committing = None,
            Event::Prepared(_) => self.preparing = None,
            Event::Verified(_) => self.verifying = None,
            Event::VerifyDue => {}
        }
        event
    }

    pub(super) fn prepared(&mut self, preparation: Preparation, steps: &Steps) {
        self.empty_at = None;
        match preparation {
            Preparation::Done(prepared) => self.prepared = Some(prepared),
            Preparation::Nothing => self.empty_at = Some(self.preparing_at),
            Preparation::Outdated => self.outdated(steps),
        }
    }

    /// The source may have changes by now, whatever its head is.
    pub(super) fn ask_again(&mut self) {
        self.empty_at = None;
    }

    /// What was planned is to be planned anew.
    pub(super) fn outdated(&mut self, steps: &Steps) {
        let since = *self.outdated_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= TELL {
            steps.shipper.source.cannot_follow(&steps.name);
        }
        self.preparing = None;
        self.prepared = None;
    }

    pub(super) fn committed(&mut self, done: &Done) {
        self.cursor = done.last;
        if done.exact || done.was_patient {
            self.outdated_since = None;
        }
    }

    pub(super) fn compared(&mut self, verified: Option<Verified>) {
        self.verified_at = Some((Instant::now(), self.cursor));
        if let Some(verified) = verified {
            self.verified = verified.equal;
        }
    }

    /// Begins nothing new; a commit under way goes on.
    pub(super) fn hold(&mut self) {
        self.preparing = None;
        self.prepared = None;
        self.verifying = None;
    }

    pub(super) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Plain bytes named by the batches under way.
    pub(super) fn pending_bytes(&self) -> u64 {
        let committing = self.committing.as_ref().map_or(0, |c| c.bytes);
        committing + self.prepared.as_ref().map_or(0, |p| p.bytes)
    }

    /// When the oldest change under way was noted.
    pub(super) fn oldest_ns(&self) -> Option<i64> {
        let committing = self.committing.as_ref().and_then(|c| c.oldest_ns);
        committing.or_else(|| oldest(&self.prepared.as_ref()?.noted_ns))
    }

    fn planned(&self) -> u64 {
        let prepared = self.prepared.as_ref().map(|p| p.commit.last);
        prepared
            .or(self.committing.as_ref().map(|c| c.last))
            .unwrap_or(self.cursor)
    }

    fn is_idle(&self, head: u64) -> bool {
        self.cursor == head && self.committing.is_none() && self.prepared.is_none()
    }

    fn verify_at(&self) -> Instant {
        match self.verified_at {
            None => Instant::now(),
            Some((at, sequence)) if sequence == self.cursor && self.verified => at + VERIFY_IDLE,
            Some((at, _)) => at + VERIFY_APART,
        }
    }
}

fn oldest(noted_ns: &[i64]) -> Option<i64> {
    noted_ns.iter().copied().min()
}

/// Never, when there is nothing to wait for.
async fn done<T>(work: Option<&mut BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
