//! Keeping the rows of held blocks: those of commits that another version took in are entered at the start, and those of blocks
//! that a collection has removed go.

use crate::service::Service;
use crate::storage::Collection;
use restfs_lib::model::{BlockKey, BucketId};
use restfs_lib::tree::blocks::{After, SegmentRevision, revisions};
use restfs_lib::tree::{bucket, held};
use restfs_lib::wire::RpcError;
use std::sync::Arc;

/// Segments looked at in one read transaction.
const PAGE: usize = 500;
/// Rows of one write transaction: others wait for it.
const ROWS: usize = 4096;

impl Service {
    /// Enters what older commits named. Goes on at the next start when there is no space, or when it is told to end.
    pub(super) fn enter_held(&self) {
        let buckets = self.metadata.read(|kv| {
            let mut open = Vec::new();
            for id in bucket::alive(kv)? {
                if let Some(record) = bucket::get(kv, id)?
                    && !held::is_whole(kv, &record)?
                {
                    open.push(id);
                }
            }
            Ok(open)
        });
        let entered = buckets.and_then(|buckets| {
            for bucket in buckets {
                if !self.enter_held_of(bucket)? {
                    break;
                }
                tracing::info!("the blocks that bucket {bucket} holds were entered");
            }
            Ok(())
        });
        if let Err(error) = entered {
            tracing::warn!("entering the blocks that buckets hold: {error}; tried again at the next start");
        }
    }

    /// False: it was told to end, or there is no space.
    fn enter_held_of(&self, bucket: BucketId) -> Result<bool, RpcError> {
        let mut after: Option<After> = None;
        loop {
            let (page, next) = self
                .metadata
                .read(|kv| Ok(revisions(kv, bucket, after.as_ref(), PAGE)?))?;
            let keys: Vec<BlockKey> = page.iter().flat_map(SegmentRevision::keys).collect();
            for keys in keys.chunks(ROWS) {
                if self.is_ending() || self.space.for_commit().is_err() {
                    return Ok(false);
                }
                let keys = keys.to_vec();
                self.metadata
                    .write_blocking(move |txn| Ok(held::enter(txn, bucket, keys.iter().copied())?))?;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        // Commits that came meanwhile have entered theirs.
        self.metadata
            .write_blocking(move |txn| Ok(held::set_whole(txn, bucket)?))?;
        Ok(true)
    }

    /// Removes the rows of blocks that no point needs and that are not here any more. False: it was told to end.
    pub(super) fn drop_held(&self, collection: &dyn Collection) -> Result<bool, RpcError> {
        for bucket in self.metadata.read(|kv| Ok(bucket::alive(kv)?))? {
            let mut after: Option<BlockKey> = None;
            loop {
                let page = self
                    .metadata
                    .read(|kv| Ok(held::list(kv, bucket, after.as_ref(), ROWS)?))?;
                let Some(last) = page.last() else { break };
                after = Some(*last);
                let mut gone = Vec::new();
                for key in page.into_iter().filter(|key| !collection.needs(key)) {
                    if !self.blocks.contains(key)? {
                        gone.push(key);
                    }
                }
                if self.is_ending() {
                    return Ok(false);
                }
                if !gone.is_empty() {
                    self.drop_held_rows(bucket, gone)?;
                }
            }
        }
        Ok(true)
    }

    /// A commit that brings one back is before the transaction, with its block here, or behind it.
    fn drop_held_rows(&self, bucket: BucketId, gone: Vec<BlockKey>) -> Result<(), RpcError> {
        let blocks = Arc::clone(&self.blocks);
        self.metadata.write_blocking(move |txn| {
            for key in &gone {
                if !blocks.contains(*key)? {
                    held::remove(txn, bucket, key)?;
                }
            }
            Ok(())
        })
    }
}
