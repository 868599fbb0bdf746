//! `bucket.purge`: recovery points below one are given up, and what only they needed is removed on the side.

use super::access::{check_point, find_bucket};
use super::point::{PointText, find_point, parse, time};
use super::{Service, now_ns};
use crate::auth::{Identity, Need};
use restfs_lib::kv::KvRead;
use restfs_lib::model::BucketId;
use restfs_lib::tree::bucket::Bucket;
use restfs_lib::tree::commit;
use restfs_lib::tree::purge::{self, Floor, Found, Limits, Place};
use restfs_lib::wire::method::{BucketPurgeParams, BucketPurgeResult};
use restfs_lib::wire::{Code, RpcError};
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Rows looked at in one read transaction, and removed in one write transaction: others wait for it.
const LIMITS: Limits = Limits {
    looked: 5_000,
    found: 2_000,
};
/// Rows looked at to say what would go, in one read transaction behind which the write-ahead log grows.
const COUNTED: usize = 5_000_000;
/// Commits looked at together.
const PAGE: usize = 500;
/// Until a sweep that broke off is tried again.
const AGAIN: Duration = Duration::from_secs(30);

pub(super) async fn purge(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: BucketPurgeParams,
) -> Result<BucketPurgeResult, RpcError> {
    // What is no point or time at all is told first.
    parse(&params.before, now_ns())?;
    if params.dry_run {
        let count = move |service: &Service| {
            service.metadata.read(|kv| {
                let bucket = find_bucket(kv, &identity, Need::Administer, &params.bucket)?;
                let mut planned = plan(kv, &bucket, &params.before)?;
                let (rows, more) = match planned.points {
                    0 => (0, false),
                    _ => purge::count(kv, bucket.id, planned.floor, COUNTED)?,
                };
                (planned.rows, planned.more) = (Some(rows), more);
                Ok(planned)
            })
        };
        return service.blocking(count).await;
    }
    let done = service
        .metadata
        .write(move |txn| {
            let bucket = find_bucket(txn, &identity, Need::Administer, &params.bucket)?;
            let planned = plan(txn, &bucket, &params.before)?;
            if planned.points > 0 {
                purge::raise(txn, bucket.id, planned.floor)?;
            }
            Ok(planned)
        })
        .await?;
    tokio::spawn(finish(Arc::downgrade(&service)));
    Ok(done)
}

/// What the floor would be raised to.
fn plan(kv: &dyn KvRead, bucket: &Bucket, before: &str) -> Result<BucketPurgeResult, RpcError> {
    let oldest = purge::oldest(kv, bucket.id)?;
    let floor = match find_point(kv, bucket, meant(kv, bucket, before)?)? {
        // One that was purged already asks for nothing more.
        Some(point @ 1..) if point < oldest => oldest,
        Some(point) => {
            check_point(kv, bucket, point)?;
            newest_whole(kv, bucket, oldest..=point)?.unwrap_or(oldest)
        }
        // All are newer.
        None => oldest,
    };
    check_point(kv, bucket, floor)?;
    let commit = commit::get(kv, bucket.id, floor)?;
    Ok(BucketPurgeResult {
        floor,
        time: time(commit.map_or(0, |commit| commit.info.time_ns)),
        points: floor - oldest,
        rows: None,
        more: false,
    })
}

/// An age counts back from the newest point: neither a clock that is ahead nor a source that is gone makes history old. A
/// time to come is a mistake.
fn meant(kv: &dyn KvRead, bucket: &Bucket, before: &str) -> Result<PointText, RpcError> {
    let now = now_ns();
    let newest = commit::get(kv, bucket.id, bucket.head)?;
    let newest = newest.map_or(now, |commit| commit.info.time_ns.min(now));
    let at = parse(before, newest)?;
    match at {
        PointText::Time(ns) if ns > now => Err(RpcError::new(
            Code::Invalid,
            format!("{before} is in the future: everything but the newest point would be purged"),
        )),
        at => Ok(at),
    }
}

/// Between the parts of a resync is no state that the source ever had: such a point must not be all that is left.
fn newest_whole(
    kv: &dyn KvRead,
    bucket: &Bucket,
    points: RangeInclusive<u64>,
) -> Result<Option<u64>, RpcError> {
    let mut newest = *points.end();
    loop {
        let page = commit::list(kv, bucket.id, *points.start()..=newest, PAGE)?;
        if let Some(whole) = page.iter().find(|commit| !commit.info.resync) {
            return Ok(Some(whole.point));
        }
        match page.last() {
            Some(last) if last.point > *points.start() => newest = last.point - 1,
            _ => return Ok(None),
        }
    }
}

#[cfg(test)]
impl Service {
    /// Once, without another try.
    pub(crate) async fn sweep_purged(self: &Arc<Self>) -> Result<(), RpcError> {
        sweep(self).await
    }
}

/// Removes what purged points alone needed, of all buckets.
pub(super) async fn finish(service: Weak<Service>) {
    loop {
        let Some(service) = service.upgrade() else { return };
        match sweep(&service).await {
            Ok(()) => return,
            Err(error) => tracing::error!("removing the rows of purged points: {error}; tried again"),
        }
        drop(service);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn sweep(service: &Arc<Service>) -> Result<(), RpcError> {
    let _one = service.sweeping.lock().await;
    loop {
        let unfinished = service
            .blocking(|service| service.metadata.read(|kv| Ok(purge::unfinished(kv)?)))
            .await?;
        let Some(bucket) = unfinished.first().copied().filter(|_| !service.is_ending()) else {
            return Ok(());
        };
        let rows = sweep_bucket(service, bucket).await?;
        tracing::info!("{rows} rows that only purged points needed were removed from bucket {bucket}");
        service.upkeep.shorten_soon();
    }
}

/// Until its end, or until its floor is another one. Rows removed.
async fn sweep_bucket(service: &Arc<Service>, bucket: BucketId) -> Result<u64, RpcError> {
    let mut rows = 0;
    let mut seen: Option<Place> = None;
    while !service.is_ending() {
        let from = seen.take();
        let look = move |service: &Service| {
            let find = |kv: &dyn KvRead| find(kv, bucket, from.as_ref());
            service.metadata.read(find)
        };
        let Some(found) = service.blocking(look).await? else {
            break;
        };
        // Where nothing goes, nothing has to be written.
        if found.rows() == 0 && found.next.is_some() {
            seen = found.next;
            continue;
        }
        let (count, ended) = (found.rows() as u64, found.next.is_none());
        let removed = service
            .metadata
            .write(move |txn| Ok(purge::remove(txn, bucket, &found)?))
            .await?;
        if !removed {
            break;
        }
        rows += count;
        if ended {
            break;
        }
    }
    Ok(rows)
}

fn find(kv: &dyn KvRead, bucket: BucketId, from: Option<&Place>) -> Result<Option<Found>, RpcError> {
    let Some(Floor {
        point,
        sweep: Some(kept),
    }) = purge::floor(kv, bucket)?
    else {
        return Ok(None);
    };
    Ok(Some(purge::find(
        kv,
        bucket,
        point,
        Some(from.unwrap_or(&kept)),
        LIMITS,
    )?))
}
