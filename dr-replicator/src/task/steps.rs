//! What a site's task has others do while it waits: each is one future that may be dropped at any time, since the site's
//! position tells what has been done.

use crate::meet::{Start, meet};
use crate::options::SiteOptions;
use crate::plan::plan;
use crate::ship::Shipper;
use crate::site::Commit;
use crate::source::{BatchLimits, Cursor};
use crate::status::Verified;
use crate::trouble::Trouble;
use std::time::SystemTime;

/// A commit whose blocks are at the site.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) commit: Commit,
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

    /// Plans the changes after `after` and brings their blocks over. `None`: there are none.
    pub(super) async fn prepare(self, epoch: u64, after: u64) -> Result<Option<Prepared>, Trouble> {
        let limits = BatchLimits {
            max_ops: self.max_ops,
            max_bytes: self.max_bytes,
        };
        let corrections = self.shipper.corrections();
        let batch = self.shipper.source.changes(after, limits).await?;
        let Some(plan) = plan(&batch.changes, self.max_bytes) else {
            return Ok(None);
        };
        let whole = batch
            .changes
            .last()
            .is_some_and(|change| change.sequence == plan.last);
        let mut ops = plan.ops;
        let unchanged = self.shipper.ship(&mut ops, &plan.differences).await?;
        let commit = Commit {
            source: self.shipper.source.source_id(),
            epoch,
            first: plan.first,
            last: plan.last,
            resync: false,
            time_ns: plan.noted_ns.iter().copied().max().unwrap_or(0),
            exact: batch.exact && whole && unchanged,
            ops,
        };
        Ok(Some(Prepared {
            commit,
            corrections,
            noted_ns: plan.noted_ns,
            bytes: plan.bytes,
        }))
    }

    pub(super) async fn commit(self, prepared: Prepared) -> Result<Done, Trouble> {
        let Prepared {
            mut commit,
            corrections,
            noted_ns,
            ..
        } = prepared;
        // Content that another commit was given since is newer than these changes know.
        commit.exact &= self.shipper.corrections() == corrections;
        let committed = self.shipper.commit(&mut commit).await?;
        let cursor = Cursor {
            epoch: commit.epoch,
            sequence: commit.last,
        };
        self.shipper.source.save_cursor(&self.name, cursor).await?;
        Ok(Done {
            last: commit.last,
            point: committed.point,
            exact: commit.exact,
            noted_ns,
        })
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
        let limits = BatchLimits {
            max_ops: 1,
            max_bytes: u64::MAX,
        };
        let batch = self.shipper.source.changes(after, limits).await.ok()?;
        batch.changes.first().map(|change| change.time_ns)
    }
}
