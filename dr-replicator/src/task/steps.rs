//! What a site's task has others do while it waits: each is one future that may be dropped at any time, since the site's
//! position tells what has been done.

use crate::meet::{Start, meet};
use crate::options::SiteOptions;
use crate::plan::{Plan, plan, plan_whole};
use crate::ship::Shipper;
use crate::site::Commit;
use crate::source::{Batch, BatchLimits, Cursor};
use crate::status::Verified;
use crate::trouble::Trouble;
use std::time::SystemTime;

/// What has come of the changes that were to be shipped next.
#[derive(Debug)]
pub(super) enum Preparation {
    /// There are none.
    Nothing,
    /// Content that they name is gone. They lead to a state that is exact, or to none that a site gets: they are to be
    /// planned anew, with those that follow.
    Outdated,
    Done(Box<Prepared>),
}

/// A commit whose blocks are at the site.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) commit: Commit,
    /// It is exact, or it is not made.
    or_not: bool,
    /// It was not tried for too long to have one that is.
    was_patient: bool,
    /// Of the shipper, when it was planned.
    corrections: u64,
    pub(super) noted_ns: Vec<i64>,
    pub(super) bytes: u64,
}

/// A commit that is durable, and the cursor behind it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) last: u64,
    pub(super) point: u64,
    pub(super) exact: bool,
    /// See [`Prepared`].
    pub(super) was_patient: bool,
    pub(super) noted_ns: Vec<i64>,
}

#[derive(Clone)]
pub(super) struct Steps {
    pub(super) shipper: Shipper,
    pub(super) name: String,
    pub(super) max_ops: usize,
    pub(super) max_bytes: u64,
}

impl Steps {
    pub(super) fn new(shipper: Shipper, options: &SiteOptions) -> Self {
        Self {
            shipper,
            name: options.name.clone(),
            max_ops: options.max_ops.clamp(1, SiteOptions::MOST_OPS),
            max_bytes: options.max_bytes.max(1),
        }
    }

    /// Where to go on. The cursor takes over what the site says.
    pub(super) async fn meet(self) -> Result<Start, Trouble> {
        let source = &*self.shipper.source;
        let cursor = source.load_cursor(&self.name).await?;
        let start = meet(source, &*self.shipper.site, cursor).await?;
        if let Start::Follow { epoch, sequence, .. } = start {
            let met = Cursor { epoch, sequence };
            if cursor != Some(met) {
                tracing::info!(
                    site = self.name,
                    ?cursor,
                    ?met,
                    "the site's position wins over the cursor"
                );
                source.save_cursor(&self.name, met).await?;
            }
        }
        Ok(start)
    }

    /// Plans the changes after `after` and brings their blocks over. `whole`: where the source has exact states, up to one
    /// of these.
    pub(super) async fn prepare(self, epoch: u64, after: u64, whole: bool) -> Result<Preparation, Trouble> {
        let limits = BatchLimits {
            max_ops: self.max_ops,
            max_bytes: self.max_bytes,
            whole,
            trusted_from: self.shipper.trusted_from().await?,
        };
        let corrections = self.shipper.corrections();
        let batch = self.shipper.source.changes(after, limits).await?;
        let Some((plan, or_not)) = self.plan(&batch) else {
            return Ok(Preparation::Nothing);
        };
        let to_its_end = batch
            .changes
            .last()
            .is_some_and(|change| change.sequence == plan.last);
        let mut ops = plan.ops;
        let unchanged = self.shipper.ship(&mut ops, &plan.differences).await?;
        if or_not && !unchanged {
            return Ok(Preparation::Outdated);
        }
        let commit = Commit {
            source: self.shipper.source.source_id(),
            epoch,
            first: plan.first,
            last: plan.last,
            resync: false,
            time_ns: plan.noted_ns.iter().copied().max().unwrap_or(0),
            exact: batch.exact && to_its_end && unchanged,
            ops,
        };
        Ok(Preparation::Done(Box::new(Prepared {
            commit,
            or_not,
            was_patient: whole,
            corrections,
            noted_ns: plan.noted_ns,
            bytes: plan.bytes,
        })))
    }

    /// With whether it is exact or not to be committed. `None`: there is nothing to plan.
    fn plan(&self, batch: &Batch) -> Option<(Plan, bool)> {
        if batch.whole {
            if let Some(plan) = plan_whole(&batch.changes) {
                return Some((plan, true));
            }
            tracing::warn!(
                site = self.name,
                changes = batch.changes.len(),
                "no commit takes all changes up to the next exact state: there is a point between that is not"
            );
        }
        Some((plan(&batch.changes, self.max_bytes)?, false))
    }

    /// `None`: it is outdated, see [`Preparation`].
    pub(super) async fn commit(self, prepared: Prepared) -> Result<Option<Done>, Trouble> {
        let Prepared {
            mut commit,
            or_not,
            was_patient,
            corrections,
            noted_ns,
            ..
        } = prepared;
        // Content that another commit was given since is newer than these changes know.
        commit.exact &= self.shipper.corrections() == corrections;
        if or_not && !commit.exact {
            return Ok(None);
        }
        let Some(committed) = self.shipper.commit(&mut commit, or_not).await? else {
            return Ok(None);
        };
        let cursor = Cursor {
            epoch: commit.epoch,
            sequence: commit.last,
        };
        self.shipper.source.save_cursor(&self.name, cursor).await?;
        Ok(Some(Done {
            last: commit.last,
            point: committed.point,
            exact: commit.exact,
            was_patient,
            noted_ns,
        }))
    }

    /// Compares the digests of the trees at change `cursor`. `None`: the source has moved on. Nothing may be committed
    /// meanwhile.
    pub(super) async fn verify(self, cursor: u64) -> Result<Option<Verified>, Trouble> {
        let (sequence, here) = self.shipper.source.digest().await?;
        if sequence != cursor {
            return Ok(None);
        }
        let there = self.shipper.site.digest().await?;
        Ok(Some(Verified {
            at: SystemTime::now(),
            sequence,
            equal: here == there,
        }))
    }

    /// When the event of the first change after `after` was noted.
    pub(super) async fn oldest(self, after: u64) -> Option<i64> {
        let limits = BatchLimits::of_log(1);
        let batch = self.shipper.source.changes(after, limits).await.ok()?;
        batch.changes.first().map(|change| change.time_ns)
    }
}
