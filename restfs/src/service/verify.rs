//! `block.check`, `tree.recount`: what is on disk now, for a source that verifies its copy.

use super::Service;
use super::access::find_bucket;
use super::held::Unsure;
use crate::auth::{Identity, Need};
use crate::storage::StoreError;
use restfs_lib::model::BlockKey;
use restfs_lib::tree::Tree;
use restfs_lib::wire::limits::{MAX_BLOCKS, MAX_CHECKED, MAX_RECOUNTED};
use restfs_lib::wire::method::*;
use restfs_lib::wire::{RpcError, check};

pub(super) fn blocks(
    service: &Service,
    identity: &Identity,
    params: BlockKeys,
) -> Result<BlockCheckResult, RpcError> {
    identity.check(Need::Replicate)?;
    check::count(params.keys.len(), MAX_BLOCKS, "keys")?;
    let keys: Vec<BlockKey> = params.keys.iter().map(|key| (*key).into()).collect();
    let foreign = service.foreign(identity, &keys, Unsure::Yes)?;
    let (mut checked, mut faults, mut read) = (0, Vec::new(), 0);
    for key in params.keys {
        if read >= MAX_CHECKED {
            break;
        }
        let block = BlockKey::from(key);
        let found = match foreign.contains(&block) {
            true => Err(StoreError::Missing(block)),
            false => service.blocks.check(block),
        };
        let fault = match found {
            Ok(bytes) => {
                read += bytes;
                None
            }
            Err(StoreError::Missing(_)) => Some(BlockFault::Missing),
            Err(StoreError::Corrupt { .. }) => Some(BlockFault::Damaged),
            Err(error) => return Err(error.into()),
        };
        faults.extend(fault.map(|fault| BlockFaultInfo { key, fault }));
        checked += 1;
    }
    Ok(BlockCheckResult { checked, faults })
}

pub(super) fn groups(
    service: &Service,
    identity: &Identity,
    params: TreeGroupsParams,
) -> Result<TreeRecountResult, RpcError> {
    let limit = check::page(params.limit)?.min(MAX_RECOUNTED);
    // All of one moment: a digest is kept by the transaction that writes its rows.
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let tree = Tree::head(kv, bucket.id);
        let mut kept = tree.groups(params.after, limit + 1)?;
        let more = kept.len() > limit;
        kept.truncate(limit);
        let mut groups = Vec::with_capacity(kept.len());
        for (group, kept) in kept {
            groups.push(RecountedGroup {
                group,
                kept: kept.into(),
                counted: tree.recount(group)?.into(),
            });
        }
        Ok(TreeRecountResult { groups, more })
    })
}
