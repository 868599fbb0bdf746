//! `tree.digest|groups|rows`: comparing a source's tree with the head here. A segment that lacks a block is not the source's, so
//! it counts as nothing: the source sends it again.

use super::Service;
use super::access::find_bucket;
use crate::auth::{Identity, Need};
use restfs_lib::model::{Digest, RowKey};
use restfs_lib::tree::{Tree, group_of};
use restfs_lib::wire::method::*;
use restfs_lib::wire::{RpcError, check};

pub(super) fn digest(
    service: &Service,
    identity: &Identity,
    params: TreeDigestParams,
) -> Result<TreeDigestResult, RpcError> {
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let whole = Tree::head(kv, bucket.id).digest()?;
        let lost = service.lost_rows(kv, bucket.id)?;
        let digest = lost.values().fold(whole, |digest, row| digest.minus(*row));
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
        let lost = service.lost_rows(kv, bucket.id)?;
        let info = |(group, whole): (u64, Digest)| {
            let lost = lost.iter().filter(|((id, _), _)| group_of(*id) == group);
            let digest = lost.fold(whole, |digest, (_, row)| digest.minus(*row));
            GroupInfo {
                group,
                digest: digest.into(),
            }
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
        let lost = service.lost_rows(kv, bucket.id)?;
        let is_lost = |row: &RowKey| match row {
            RowKey::Segment { id, segment } => lost.contains_key(&(*id, *segment)),
            _ => false,
        };
        let info = |(row, digest): (RowKey, Digest)| RowInfo {
            digest: if is_lost(&row) { Digest::ZERO } else { digest }.into(),
            row: row.into(),
        };
        Ok(TreeRowsResult {
            rows: rows.into_iter().map(info).collect(),
            more,
        })
    })
}
