//! `bucket.create|list|info|set|delete`.

use super::access::find_bucket;
use super::{Service, now_ns};
use crate::auth::{Identity, Need};
use restfs_lib::kv::KvRead;
use restfs_lib::model::{Layout, Time};
use restfs_lib::tree::bucket::{self, Bucket};
use restfs_lib::tree::{Tree, commit, purge};
use restfs_lib::wire::RpcError;
use restfs_lib::wire::method::{
    Bucket as BucketInfo, BucketCreateParams, BucketListResult, BucketName, BucketSetParams, BucketSource,
    Done, NoParams,
};
use std::sync::Arc;

/// Rows of a deleted bucket that one transaction removes: others wait for it.
const PURGE_ROWS: usize = 2_000;
/// Buckets read at a time.
const PAGE: usize = 1_000;

pub(super) async fn create(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: BucketCreateParams,
) -> Result<BucketInfo, RpcError> {
    identity.check(Need::Administer)?;
    let layout: Layout = params
        .layout
        .map(TryInto::try_into)
        .transpose()?
        .unwrap_or_default();
    let created_ns = now_ns();
    service
        .metadata
        .write(move |txn| {
            let bucket = bucket::create(txn, &params.bucket, layout, created_ns)?;
            info_of(txn, bucket)
        })
        .await
}

pub(super) fn list(
    service: &Service,
    identity: &Identity,
    _: NoParams,
) -> Result<BucketListResult, RpcError> {
    identity.check(Need::Nothing)?;
    service.metadata.read(|kv| {
        let mut buckets = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = bucket::list(kv, after.as_deref(), PAGE)?;
            let end = page.len() < PAGE;
            after = page.last().map(|bucket| bucket.name.clone());
            for bucket in page {
                if identity.bucket.is_none_or(|own| own == bucket.id) {
                    buckets.push(info_of(kv, bucket)?);
                }
            }
            if end {
                return Ok(BucketListResult { buckets });
            }
        }
    })
}

pub(super) fn info(
    service: &Service,
    identity: &Identity,
    params: BucketName,
) -> Result<BucketInfo, RpcError> {
    service
        .metadata
        .read(|kv| info_of(kv, find_bucket(kv, identity, Need::Read, &params.bucket)?))
}

pub(super) async fn set(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: BucketSetParams,
) -> Result<BucketInfo, RpcError> {
    let layout: Option<Layout> = params.layout.map(TryInto::try_into).transpose()?;
    service
        .metadata
        .write(move |txn| {
            let mut bucket = find_bucket(txn, &identity, Need::Administer, &params.bucket)?;
            bucket.layout = layout.unwrap_or(bucket.layout);
            if params.release_source {
                commit::release(txn, &mut bucket)?;
            }
            bucket::set(txn, &bucket)?;
            info_of(txn, bucket)
        })
        .await
}

pub(super) async fn delete(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: BucketName,
) -> Result<Done, RpcError> {
    service
        .metadata
        .write(move |txn| {
            let bucket = find_bucket(txn, &identity, Need::Administer, &params.bucket)?;
            Ok(bucket::delete(txn, bucket.id)?)
        })
        .await?;
    // The name is gone; what is left of its rows goes on the side, after a restart if need be.
    tokio::spawn(async move {
        if let Err(error) = purge_deleted(&service).await {
            tracing::error!("removing the rows of a deleted bucket: {error}");
        }
    });
    Ok(Done {})
}

pub(super) async fn purge_deleted(service: &Arc<Service>) -> Result<(), RpcError> {
    let left = service
        .blocking(|service| service.metadata.read(|kv| Ok(bucket::deleted(kv)?)))
        .await?;
    for id in left {
        while service
            .metadata
            .write(move |txn| Ok(bucket::purge(txn, id, PURGE_ROWS)?))
            .await?
        {}
    }
    Ok(())
}

fn info_of(kv: &dyn KvRead, bucket: Bucket) -> Result<BucketInfo, RpcError> {
    let totals = Tree::head(kv, bucket.id).totals()?;
    let floor = purge::floor(kv, bucket.id)?;
    let source = match &bucket.source {
        None => None,
        Some(source) => {
            let position = commit::position(kv, bucket.id, source)?.unwrap_or_default();
            Some(BucketSource {
                source: source.clone(),
                epoch: bucket.epoch,
                sequence: position.sequence,
                point: position.point,
            })
        }
    };
    Ok(BucketInfo {
        bucket: bucket.name,
        layout: bucket.layout.into(),
        created: Time::from_ns(bucket.created_ns.into()).into(),
        head: bucket.head,
        floor: floor.as_ref().map_or(bucket.head.min(1), |floor| floor.point),
        purging: floor.is_some_and(|floor| floor.sweep.is_some()),
        objects: totals.objects,
        bytes: totals.bytes,
        source,
    })
}
