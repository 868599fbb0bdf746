//! `block.wanted`: what a bucket lacks, for whoever can bring it from elsewhere.

use crate::auth::{Identity, Need};
use crate::service::Service;
use crate::service::access::find_bucket;
use restfs_lib::model::BlockKey;
use restfs_lib::wire::limits::MAX_BLOCKS;
use restfs_lib::wire::method::{BlockWantedParams, BlockWantedResult};
use restfs_lib::wire::{RpcError, check};
use std::ops::Bound;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

pub(in crate::service) fn wanted(
    service: &Service,
    identity: &Identity,
    params: BlockWantedParams,
) -> Result<BlockWantedResult, RpcError> {
    let limit = check::page(params.limit)?.min(MAX_BLOCKS);
    let bucket = service
        .metadata
        .read(|kv| find_bucket(kv, identity, Need::Replicate, &params.bucket))?;
    let after = params.after.map(BlockKey::from);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let lost = service.upkeep.lost.read().unwrap_or_else(PoisonError::into_inner);
    let of_bucket = lost.blocks.get(&bucket.id).into_iter();
    let keys: Vec<BlockKey> = of_bucket
        .flat_map(|keys| keys.range((from, Bound::Unbounded)))
        .copied()
        .collect();
    let cut = lost.cut;
    drop(lost);
    // Some have been written anew since they were found.
    let mut wanted = service.blocks.missing(&keys)?;
    if cut && wanted.is_empty() && after.is_none() {
        service.upkeep.look_again.store(true, Ordering::Relaxed);
    }
    let more = wanted.len() > limit;
    wanted.truncate(limit);
    Ok(BlockWantedResult {
        keys: wanted.into_iter().map(Into::into).collect(),
        more,
    })
}
