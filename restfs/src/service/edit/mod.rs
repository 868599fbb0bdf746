//! `bucket.apply`: edits by hand, as ops of one commit.

mod blocks;
mod steps;

use super::access::find_bucket;
use super::{Service, now, now_ns};
use crate::auth::{Identity, Need};
use blocks::Written;
use restfs_lib::kv::{KvWrite, Overlay};
use restfs_lib::model::{Kind, Layout, Object, ObjectId, Op, Time};
use restfs_lib::tree::bucket::{self, Bucket};
use restfs_lib::tree::commit::{self, CommitInfo};
use restfs_lib::tree::{Checks, History, Tree, apply_all};
use restfs_lib::wire::limits::MAX_OPS;
use restfs_lib::wire::method::{BucketApplyParams, BucketApplyResult, Edit, PointResult};
use restfs_lib::wire::{Code, RpcError, check};
use std::sync::Arc;
use steps::Steps;

/// Mode of a root directory that edits make.
const ROOT_MODE: u32 = 0o755;

pub(super) async fn apply(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: BucketApplyParams,
) -> Result<BucketApplyResult, RpcError> {
    identity.check(Need::Write)?;
    check::count(params.edits.len(), MAX_OPS, "edits")?;
    if params.edits.iter().any(|edit| matches!(edit, Edit::Write { .. })) {
        service.space.for_content()?;
    } else if !params.edits.iter().all(only_removes) {
        service.space.for_commit()?;
    }
    let naming = service.naming.clone().read_owned().await;
    let (bucket, edits) = (params.bucket, params.edits);
    let (bucket, edits, written) = match edits.iter().any(|edit| matches!(edit, Edit::Write { .. })) {
        false => (bucket, edits, Vec::new()),
        true => {
            let who = identity.clone();
            let store = move |service: &Service| {
                let written = blocks::store(service, &who, &bucket, &edits)?;
                Ok((bucket, edits, written))
            };
            service.blocking(store).await?
        }
    };
    service
        .metadata
        .write(move |txn| {
            // Even if nobody waits for it any more.
            let _until_it_is_done = &naming;
            commit_edits(txn, &identity, &bucket, &edits, &written)
        })
        .await
}

pub(super) async fn apply_one(
    service: Arc<Service>,
    identity: Arc<Identity>,
    bucket: String,
    edit: Edit,
) -> Result<PointResult, RpcError> {
    let result = apply(
        service,
        identity,
        BucketApplyParams {
            bucket,
            edits: vec![edit],
        },
    )
    .await?;
    Ok(PointResult { point: result.point })
}

/// What a full site still takes.
fn only_removes(edit: &Edit) -> bool {
    matches!(
        edit,
        Edit::Unlink { .. } | Edit::DeleteAttribute { .. } | Edit::Truncate { .. }
    )
}

fn commit_edits(
    txn: &mut dyn KvWrite,
    identity: &Identity,
    name: &str,
    edits: &[Edit],
    written: &[Written],
) -> Result<BucketApplyResult, RpcError> {
    let bucket = find_bucket(txn, identity, Need::Write, name)?;
    if let Some(source) = &bucket.source {
        let text = format!(
            "bucket `{name}` is the copy of source {source}: what is changed there comes here by itself"
        );
        return Err(RpcError::new(Code::Conflict, text));
    }
    let mut made = Made::default();
    ensure_root(txn, &bucket, &mut made)?;
    match edits {
        [edit] => made.steps(txn, &bucket, written).take(edit)?,
        edits => see_each_other(txn, &bucket, &mut made, edits, written)?,
    }
    let info = CommitInfo {
        time_ns: now_ns(),
        committed_ns: now_ns(),
        exact: true,
        ..CommitInfo::default()
    };
    let (commit, _) = commit::commit(txn, bucket.id, Checks::Strict, info, &made.ops)?;
    Ok(BucketApplyResult {
        point: commit.point,
        created: made.created,
    })
}

/// Each edit sees what those before it did: they are tried out on top of the transaction, and thrown away again.
fn see_each_other(
    txn: &mut dyn KvWrite,
    bucket: &Bucket,
    made: &mut Made,
    edits: &[Edit],
    written: &[Written],
) -> Result<(), RpcError> {
    let mut trial = Overlay::new(txn);
    let mut tried = 0;
    for edit in edits {
        let new = made.ops.get(tried..).unwrap_or_default();
        apply_all(
            &mut trial,
            bucket.id,
            bucket.head + 1,
            History::Keep,
            Checks::Strict,
            new,
        )?;
        tried = made.ops.len();
        made.steps(&mut trial, bucket, written).take(edit)?;
    }
    // Ids given out on trial were given out.
    let next = bucket::get(&trial, bucket.id)?.map(|bucket| bucket.next_object);
    drop(trial);
    if let (Some(next), Some(before)) = (next, bucket::get(txn, bucket.id)?)
        && next > before.next_object
    {
        bucket::allocate(txn, bucket.id, next.0 - before.next_object.0)?;
    }
    Ok(())
}

/// What the edits come to.
#[derive(Default)]
struct Made {
    ops: Vec<Op>,
    created: Vec<u64>,
    writes: usize,
}

impl Made {
    fn steps<'a>(
        &'a mut self,
        txn: &'a mut dyn KvWrite,
        bucket: &'a Bucket,
        written: &'a [Written],
    ) -> Steps<'a> {
        Steps {
            txn,
            bucket,
            written,
            made: self,
        }
    }
}

/// The first edit of a bucket finds it without a root.
fn ensure_root(txn: &dyn KvWrite, bucket: &Bucket, made: &mut Made) -> Result<(), RpcError> {
    if Tree::head(txn, bucket.id).object(ObjectId::ROOT)?.is_none() {
        let object = new_object(Kind::Directory, ROOT_MODE, bucket.layout);
        made.ops.push(Op::PutObject {
            id: ObjectId::ROOT,
            object,
        });
    }
    Ok(())
}

fn new_object(kind: Kind, mode: u32, layout: Layout) -> Object {
    let time: Time = now();
    Object {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: time,
        atime: time,
        btime: time,
        layout,
    }
}
