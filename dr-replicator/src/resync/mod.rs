//! Makes a site's tree equal to the source's by shipping what differs, whatever led to the difference.
//!
//! Both trees change while they are compared. The source's rows are read at or after `base`, the head of the change log
//! when it began; replaying the log from `base` puts right what was read too early or too late, since every change
//! states a row's new value.

use crate::meet::Compare;
use crate::plan::{Differences, named_bytes};
use crate::ship::Shipper;
use crate::site::{Commit, Committed};
use crate::source::Cursor;
use crate::status::ResyncProgress;
use crate::trouble::Trouble;
use restfs_lib::model::Op;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

mod chunk;
pub(crate) mod merge;
pub(crate) mod pager;
mod wanted;

use chunk::Chunk;
use merge::{Side, next};
use pager::Pager;
use wanted::Wanted;

/// Rows asked for in one go. A segment's op alone may name a commit's worth of blocks, so what they give is cut again by
/// bytes.
const CHUNK_ROWS: usize = 1024;

/// One comparison.
pub(crate) struct Resync {
    pub(crate) shipper: Shipper,
    pub(crate) site_name: String,
    pub(crate) compare: Compare,
    pub(crate) max_ops: usize,
    pub(crate) max_bytes: u64,
    /// Parts committed: the site takes the one behind the last, and no other.
    pub(crate) parts: AtomicU64,
    pub(crate) progress: watch::Sender<ResyncProgress>,
}

/// The trees are in step, fuzzily, at change `base` of `epoch`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resynced {
    pub(crate) epoch: u64,
    pub(crate) base: u64,
    pub(crate) point: u64,
}

impl Resync {
    /// Can be dropped at any time: the next one finds what is left.
    pub(crate) async fn run(self) -> Result<Resynced, Trouble> {
        let base = *self.shipper.source.head().borrow();
        // Until it has ended the site's tree is no state of the source. The change log is needed from here on.
        self.save(Cursor {
            epoch: 0,
            sequence: base,
        })
        .await?;
        let groups = self.differing_groups().await?;
        self.progress
            .send_modify(|p| p.groups_total = groups.len() as u64);
        for group in groups {
            self.bring_group(group, base).await?;
            self.progress.send_modify(|p| p.groups_done += 1);
        }
        // Without a difference this is what moves the site's position.
        let end = self.commit(Vec::new(), base).await?;
        self.save(Cursor {
            epoch: self.compare.epoch,
            sequence: base,
        })
        .await?;
        Ok(Resynced {
            epoch: self.compare.epoch,
            base,
            point: end.point,
        })
    }

    async fn save(&self, cursor: Cursor) -> Result<(), Trouble> {
        Ok(self.shipper.source.save_cursor(&self.site_name, cursor).await?)
    }

    async fn differing_groups(&self) -> Result<Vec<u64>, Trouble> {
        let mut here = Pager::groups_of_source(&*self.shipper.source);
        let mut there = Pager::groups_of_site(&*self.shipper.site);
        let mut differing = Vec::new();
        while let Some((group, side)) = next(&mut here, &mut there).await? {
            if side != Side::Equal {
                differing.push(group);
            }
        }
        Ok(differing)
    }

    async fn bring_group(&self, group: u64, base: u64) -> Result<(), Trouble> {
        let mut here = Pager::rows_of_source(&*self.shipper.source, group);
        let mut there = Pager::rows_of_site(&*self.shipper.site, group);
        let mut wanted = Wanted::default();
        while let Some((row, side)) = next(&mut here, &mut there).await? {
            wanted.add(row, side);
            if wanted.len() >= CHUNK_ROWS {
                self.bring_rows(&mut wanted, base).await?;
            }
        }
        self.bring_rows(&mut wanted, base).await
    }

    /// Ships what these rows are at the source now.
    async fn bring_rows(&self, wanted: &mut Wanted, base: u64) -> Result<(), Trouble> {
        let rows = wanted.take_rows();
        if rows.is_empty() {
            return Ok(());
        }
        let ops = self.shipper.source.ops_for(rows).await?;
        self.shipper.distrust().await?;
        let mut chunk = Chunk::default();
        for op in ops {
            if !chunk.has_room(&op, self.max_ops, self.max_bytes) {
                self.commit(chunk.take(), base).await?;
            }
            chunk.add(op);
        }
        if !chunk.is_empty() {
            self.commit(chunk.take(), base).await?;
        }
        Ok(())
    }

    async fn commit(&self, mut ops: Vec<Op>, base: u64) -> Result<Committed, Trouble> {
        let bytes = ops.iter().map(named_bytes).sum::<u64>();
        let count = ops.len() as u64;
        self.shipper.ship(&mut ops, &Differences::new()).await?;
        let mut commit = Commit {
            source: self.shipper.source.source_id(),
            epoch: self.compare.epoch,
            first: self.parts.load(Ordering::Relaxed) + 1,
            last: base,
            resync: true,
            time_ns: now_ns(),
            exact: false,
            ops,
        };
        let committed = self.shipper.commit(&mut commit, false).await?;
        let committed = committed.ok_or_else(|| Trouble::Stuck("a commit was given up".to_owned()))?;
        self.parts.store(commit.first, Ordering::Relaxed);
        self.progress.send_modify(|p| {
            p.ops += count;
            p.bytes += bytes;
        });
        Ok(committed)
    }
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}
