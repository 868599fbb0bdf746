//! The owner of one site: [`SiteTask::select`] says what has happened, [`SiteTask::apply`] what follows from it.

mod following;
mod phase;
mod report;
mod show;
mod steps;

use crate::bandwidth::Bandwidth;
use crate::handle::Wish;
use crate::meet::{Compare, Start};
use crate::options::SiteOptions;
use crate::resync::{Resync, Resynced};
use crate::ship::Shipper;
use crate::site::Site;
use crate::source::ChangeSource;
use crate::status::{ResyncProgress, SiteState, SiteStatus, Verified};
use crate::trouble::{Backoff, Pause, Remedy, Trouble};
use following::{Event, Following};
use futures_util::future::BoxFuture;
use phase::{Action, Comparing, Phase, Then, next};
use report::Report;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use steps::{Done, Steps};
use tokio::sync::watch;
use tokio::time::Instant;

/// Status is published this often while work is under way that gives no events (a long message).
const TICK: Duration = Duration::from_secs(1);
/// Comparisons in a row, without the trees being found equal, after which there are growing pauses between them.
const PATIENCE: u32 = 2;

pub(crate) struct SiteTask {
    steps: Steps,
    stop_within: Duration,
    wishes: watch::Receiver<Wish>,
    head: watch::Receiver<u64>,
    phase: Phase,
    /// Time of the oldest pending change, asked for while nothing is under way.
    oldest: Option<BoxFuture<'static, Option<i64>>>,
    stop_at: Option<Instant>,
    ended: bool,
    backoff: Backoff,
    /// Comparisons since the trees were equal.
    comparisons: u32,
    /// What went wrong last; shown until there is progress, since asking for the position again proves nothing.
    suffering: Option<(SiteState, String)>,
    /// The trees differ, and comparing them did not help.
    differs: Option<String>,
    /// The newest comparison asked for that has begun.
    asked: u64,
    /// When it is worth trying again.
    compare_at: Option<Instant>,
    report: Report,
}

impl SiteTask {
    pub(crate) fn new(
        source: Arc<dyn ChangeSource>,
        site: Arc<dyn Site>,
        options: SiteOptions,
        bandwidth: Arc<Bandwidth>,
        wishes: watch::Receiver<Wish>,
        publish: watch::Sender<SiteStatus>,
    ) -> Self {
        let head = source.head();
        let shipper = Shipper {
            source,
            site,
            bandwidth,
            concurrency: options.concurrency,
            shipped: Arc::new(AtomicU64::new(0)),
            corrected: Arc::default(),
            trusted: Arc::default(),
        };
        let steps = Steps::new(shipper, &options);
        Self {
            steps,
            stop_within: options.stop_within,
            wishes,
            head,
            phase: Phase::Paused,
            oldest: None,
            stop_at: None,
            ended: false,
            backoff: Backoff::default(),
            comparisons: 0,
            suffering: None,
            differs: None,
            asked: 0,
            compare_at: None,
            report: Report::new(publish),
        }
    }

    pub(crate) async fn run(mut self) {
        self.show_cursor().await;
        self.wishes.mark_changed();
        while !self.ended {
            self.publish();
            let action = self.select().await;
            self.apply(action);
        }
        self.report.state(SiteState::Stopped, None);
        self.report.publish();
    }

    /// So that the status is right while the site cannot be reached. What is wrong with the source shows later.
    async fn show_cursor(&mut self) {
        if let Ok(Some(cursor)) = self.steps.shipper.source.load_cursor(&self.steps.name).await
            && cursor.epoch > 0
        {
            self.report.status.epoch = cursor.epoch;
            self.report.status.cursor = cursor.sequence;
        }
    }

    async fn select(&mut self) -> Action {
        let head = *self.head.borrow();
        tokio::select! {
            wish = self.wishes.changed() => if wish.is_ok() { Action::Wish } else { Action::End },
            moved = self.head.changed() => if moved.is_ok() { Action::Head } else { Action::End },
            action = next(&mut self.phase, head) => action,
            oldest = async { match &mut self.oldest { Some(work) => work.await, None => std::future::pending().await } }
                => Action::Oldest(oldest),
            () = async { match self.stop_at { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } }
                => Action::End,
            () = tokio::time::sleep(TICK) => Action::Tick,
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Wish => self.obey(),
            Action::Head => self.ask_again(),
            Action::Tick => {
                self.ask_again();
                self.look_for_oldest();
            }
            Action::End => self.ended = true,
            Action::Met(Ok(Start::Follow {
                epoch,
                sequence,
                point,
                initial,
            })) => {
                self.suffering
                    .take_if(|(state, _)| *state == SiteState::Unreachable);
                self.report.status.point = point;
                self.follow(epoch, sequence, initial);
            }
            Action::Met(Ok(Start::Compare(compare))) => self.compare(compare, SiteState::CatchingUp),
            Action::Resynced(Ok(resynced)) => self.resynced(resynced),
            Action::Met(Err(trouble)) | Action::Resynced(Err(trouble)) => self.suffer(trouble),
            Action::Follow(event) => self.followed(event),
            Action::Oldest(oldest) => {
                self.oldest = None;
                self.report.status.pending.oldest_ns = oldest;
            }
            Action::Due(Then::Meet) => self.meet(),
            Action::Due(Then::Compare(compare)) => self.compare(compare, SiteState::CatchingUp),
        }
        self.advance();
    }

    fn obey(&mut self) {
        let wish = *self.wishes.borrow_and_update();
        self.steps.shipper.bandwidth.set(wish.limit);
        self.report.status.limit = wish.limit.map(|limit| limit.get());
        if wish.stopped && self.stop_at.is_none() {
            self.stop_at = Some(Instant::now() + self.stop_within);
        }
        if wish.paused || wish.stopped {
            self.hold();
        } else if matches!(self.phase, Phase::Paused | Phase::Fenced | Phase::Waiting { .. }) {
            self.meet();
        }
    }

    /// Ends all work but a commit, whose answer is worth waiting for.
    fn hold(&mut self) {
        match &mut self.phase {
            Phase::Following(following) if following.is_committing() => following.hold(),
            Phase::Fenced => self.ended |= self.stop_at.is_some(),
            _ => {
                self.phase = Phase::Paused;
                self.report.state(SiteState::Paused, None);
                self.ended |= self.stop_at.is_some();
            }
        }
    }

    fn is_held(&self) -> bool {
        let wish = self.wishes.borrow();
        wish.paused || wish.stopped
    }

    fn advance(&mut self) {
        if self.head.has_changed().unwrap_or_default() {
            self.ask_again();
        }
        let head = *self.head.borrow_and_update();
        if self.is_held() {
            return self.hold();
        }
        self.compare_as_asked();
        if let Phase::Following(following) = &mut self.phase {
            following.advance(&self.steps, head);
        }
    }

    /// Between two commits, when somebody has asked for a comparison.
    fn compare_as_asked(&mut self) {
        let asked = self.wishes.borrow().comparisons;
        let Phase::Following(following) = &self.phase else {
            return;
        };
        if asked <= self.asked || following.is_committing() {
            return;
        }
        self.asked = asked;
        let compare = Compare {
            epoch: following.epoch.saturating_add(1),
            initial: false,
            why: "somebody has asked for it".to_owned(),
        };
        self.compare(compare, SiteState::CatchingUp);
    }

    /// The source may have changes by now.
    fn ask_again(&mut self) {
        if let Phase::Following(following) = &mut self.phase {
            following.ask_again();
        }
    }

    fn meet(&mut self) {
        self.phase = Phase::Meeting(Box::pin(self.steps.clone().meet()));
    }

    fn follow(&mut self, epoch: u64, sequence: u64, initial: bool) {
        let head = *self.head.borrow();
        self.report.status.epoch = epoch;
        self.report.status.cursor = sequence;
        let following = Following::new(epoch, sequence, if initial { head } else { 0 });
        self.phase = Phase::Following(Box::new(following));
    }

    /// `state` is shown unless it is the first time.
    fn compare(&mut self, compare: Compare, state: SiteState) {
        tracing::warn!(
            site = self.steps.name,
            epoch = compare.epoch,
            "the trees are compared and the difference is shipped: {}",
            compare.why
        );
        self.comparisons = self.comparisons.saturating_add(1);
        // What was committed before is no longer known to be there.
        self.report.status.cursor = 0;
        self.report.status.epoch = compare.epoch;
        let initial = compare.initial;
        match initial {
            true => self.report.state(SiteState::InitialSync, None),
            false => self.report.state(state, Some(compare.why.clone())),
        }
        let (sender, progress) = watch::channel(ResyncProgress::default());
        let resync = Resync {
            shipper: self.steps.shipper.clone(),
            site_name: self.steps.name.clone(),
            compare,
            max_ops: self.steps.max_ops,
            max_bytes: self.steps.max_bytes,
            parts: AtomicU64::new(0),
            progress: sender,
        };
        self.phase = Phase::Comparing(Comparing {
            work: Box::pin(resync.run()),
            progress,
            initial,
        });
    }

    fn resynced(&mut self, resynced: Resynced) {
        self.progressed();
        self.report.status.commits += 1;
        self.report.status.point = resynced.point;
        self.report.status.compared = self.asked;
        let initial = matches!(&self.phase, Phase::Comparing(comparing) if comparing.initial);
        tracing::info!(
            site = self.steps.name,
            epoch = resynced.epoch,
            base = resynced.base,
            "the difference is shipped"
        );
        self.follow(resynced.epoch, resynced.base, initial);
    }

    fn followed(&mut self, event: Event) {
        let Phase::Following(following) = &mut self.phase else {
            return;
        };
        match event {
            Event::Prepared(Ok(preparation)) => following.prepared(preparation, &self.steps),
            Event::Committed(Ok(Some(done))) => self.committed(&done),
            Event::Committed(Ok(None)) => following.outdated(&self.steps),
            Event::Verified(Ok(verified)) => self.verified(verified),
            Event::VerifyDue => {}
            Event::Prepared(Err(trouble))
            | Event::Committed(Err(trouble))
            | Event::Verified(Err(trouble)) => {
                self.suffer(trouble);
            }
        }
    }

    fn committed(&mut self, done: &Done) {
        let Phase::Following(following) = &mut self.phase else {
            return;
        };
        following.committed(done);
        self.progressed();
        self.oldest = None;
        self.report.committed(&done.noted_ns);
        let status = &mut self.report.status;
        status.cursor = done.last;
        status.point = done.point;
        status.exact = done.exact;
        status.pending.oldest_ns = None;
    }

    fn verified(&mut self, verified: Option<Verified>) {
        let Phase::Following(following) = &mut self.phase else {
            return;
        };
        following.compared(verified);
        let epoch = following.epoch.saturating_add(1);
        self.progressed();
        let Some(verified) = verified else { return };
        self.report.status.last_verified = Some(verified);
        if verified.equal {
            self.comparisons = 0;
            self.differs = None;
        } else {
            self.report.status.mismatches += 1;
            self.differ(epoch, verified.sequence);
        }
    }

    /// The trees differ though all changes are committed. While shipping the difference does not help, changes are
    /// shipped all the same.
    fn differ(&mut self, epoch: u64, sequence: u64) {
        let now = Instant::now();
        let rests = self.comparisons > PATIENCE && self.compare_at.is_some_and(|at| at > now);
        let why = "the site's tree differs from the share's though all changes are committed";
        if self.differs.is_none() || !rests {
            tracing::error!(site = self.steps.name, sequence, "{why}");
        }
        if rests {
            let tries = self.comparisons;
            self.differs = Some(format!(
                "{why}, after {tries} comparisons; see the logs of both ends"
            ));
            return;
        }
        self.compare_at = Some(now + Backoff::LONGEST);
        self.compare(
            Compare {
                epoch,
                initial: false,
                why: why.to_owned(),
            },
            SiteState::CatchingUp,
        );
    }

    /// The change log cannot be followed; when that goes on, not at once again.
    fn compare_again(&mut self, epoch: u64, why: String) {
        let compare = Compare {
            epoch,
            initial: false,
            why: why.clone(),
        };
        if self.comparisons <= PATIENCE {
            return self.compare(compare, SiteState::Gap);
        }
        self.wait(
            SiteState::Failed,
            why,
            Pause::Fixed(Backoff::LONGEST),
            Then::Compare(compare),
        );
    }

    fn suffer(&mut self, trouble: Trouble) {
        let error = trouble.to_string();
        match (trouble.remedy(), &self.phase) {
            (Remedy::Fence, _) => self.fence(error),
            (Remedy::Compare, Phase::Following(following)) => {
                let epoch = following.epoch.saturating_add(1);
                self.compare_again(epoch, error);
            }
            (Remedy::Compare, _) => self.wait(SiteState::Failed, error, Pause::Growing, Then::Meet),
            (Remedy::Retry { state, pause }, _) => self.wait(state, error, pause, Then::Meet),
        }
    }

    fn progressed(&mut self) {
        self.backoff.reset();
        self.suffering = None;
    }

    fn wait(&mut self, state: SiteState, error: String, pause: Pause, then: Then) {
        let pause = match pause {
            Pause::Growing => self.backoff.next(),
            Pause::Fixed(pause) => pause,
        };
        if self.suffering.as_ref().is_none_or(|(_, before)| *before != error) {
            tracing::warn!(
                site = self.steps.name,
                state = state.as_str(),
                "{error}; tried again in {pause:?}"
            );
        }
        self.suffering = Some((state, error.clone()));
        self.report.state(state, Some(error));
        self.phase = Phase::Waiting {
            until: Instant::now() + pause,
            then,
        };
    }

    fn fence(&mut self, error: String) {
        let error = format!(
            "{error}: another server took over, or the bucket was released for one; nothing more is sent from here. If this \
             end is to go on, run `restfs bucket set BUCKET --release-source` at the site, and `vfsxctl resume` here"
        );
        tracing::error!(site = self.steps.name, "{error}");
        self.report.state(SiteState::Fenced, Some(error));
        self.phase = Phase::Fenced;
    }
}

#[cfg(test)]
mod tests;
