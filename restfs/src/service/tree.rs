//! `tree.digest|groups|rows`: comparing a source's tree with the head here.

use super::Service;
use super::access::find_bucket;
use crate::auth::{Identity, Need};
use restfs_lib::model::RowKey;
use restfs_lib::tree::Tree;
use restfs_lib::wire::method::*;
use restfs_lib::wire::{RpcError, check};

pub(super) fn digest(
    service: &Service,
    identity: &Identity,
    params: TreeDigestParams,
) -> Result<TreeDigestResult, RpcError> {
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let digest = Tree::head(kv, bucket.id).digest()?;
        Ok(TreeDigestResult {
            digest: digest.into(),
            point: bucket.head,
        })
    })
}

pub(super) fn groups(
    service: &Service,
    identity: &Identity,
    params: TreeGroupsParams,
) -> Result<TreeGroupsResult, RpcError> {
    let limit = check::page(params.limit)?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let groups = Tree::head(kv, bucket.id).groups(params.after, limit)?;
        let info = |(group, digest): (u64, restfs_lib::model::Digest)| GroupInfo {
            group,
            digest: digest.into(),
        };
        Ok(TreeGroupsResult {
            groups: groups.into_iter().map(info).collect(),
        })
    })
}

pub(super) fn rows(
    service: &Service,
    identity: &Identity,
    params: TreeRowsParams,
) -> Result<TreeRowsResult, RpcError> {
    let limit = check::page(params.limit)?;
    let after: Option<RowKey> = params.after.map(TryInto::try_into).transpose()?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let mut rows = Tree::head(kv, bucket.id).rows(params.group, after.as_ref(), limit + 1)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let info = |(row, digest): (RowKey, restfs_lib::model::Digest)| RowInfo {
            row: row.into(),
            digest: digest.into(),
        };
        Ok(TreeRowsResult {
            rows: rows.into_iter().map(info).collect(),
            more,
        })
    })
}
