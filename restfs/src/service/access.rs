//! Finding what a call names: bucket, point, object.

use crate::auth::{Identity, Need};
use restfs_lib::kv::KvRead;
use restfs_lib::model::ObjectId;
use restfs_lib::tree::bucket::{self, Bucket};
use restfs_lib::tree::{At, Tree, purge};
use restfs_lib::wire::values::ObjectAt;
use restfs_lib::wire::{Code, RpcError, check};

/// A bucket that the caller may use in this way.
pub(super) fn find_bucket(
    kv: &dyn KvRead,
    identity: &Identity,
    need: Need,
    name: &str,
) -> Result<Bucket, RpcError> {
    identity.check(need)?;
    let found = bucket::find(kv, name)?;
    identity.check_bucket(found.as_ref().map(|bucket| bucket.id), name)?;
    found.ok_or_else(|| RpcError::new(Code::NotFound, format!("bucket `{name}` does not exist")))
}

/// A bucket's tree at a point; `None`: now.
pub(super) fn tree_at<'a>(
    kv: &'a dyn KvRead,
    bucket: &Bucket,
    point: Option<u64>,
) -> Result<Tree<'a>, RpcError> {
    let at = match point {
        None => At::Head,
        Some(point) => {
            check_point(kv, bucket, point)?;
            At::Point(point)
        }
    };
    Ok(Tree::new(kv, bucket.id, at))
}

/// That there is such a point, and that it was not purged.
pub(super) fn check_point(kv: &dyn KvRead, bucket: &Bucket, point: u64) -> Result<(), RpcError> {
    if !(1..=bucket.head).contains(&point) {
        return Err(no_point(bucket, point));
    }
    match purge::oldest(kv, bucket.id)? {
        floor if point < floor => Err(purged(bucket, floor)),
        _ => Ok(()),
    }
}

fn purged(bucket: &Bucket, floor: u64) -> RpcError {
    let text = format!(
        "points of bucket `{}` below {floor} were purged; {floor} is the oldest",
        bucket.name
    );
    RpcError::new(Code::NotFound, text)
}

pub(super) fn no_point(bucket: &Bucket, point: u64) -> RpcError {
    let text = match bucket.head {
        0 => format!("bucket `{}` has no recovery point yet", bucket.name),
        head => format!(
            "bucket `{}` has no point {point}; the newest is {head}",
            bucket.name
        ),
    };
    RpcError::new(Code::NotFound, text)
}

/// The id behind a path, or the id as it is: whether there is such an object shows when it is read.
pub(super) fn find_object(tree: &Tree<'_>, at: &ObjectAt) -> Result<ObjectId, RpcError> {
    match at {
        ObjectAt::Id(id) => check::object_id(*id),
        ObjectAt::Path(path) => {
            check::path(path)?;
            tree.resolve(&path.0)?.ok_or_else(|| no_object(at))
        }
    }
}

pub(super) fn no_object(at: &ObjectAt) -> RpcError {
    let text = match at {
        // The first commits of a source may come before the one that has the root.
        _ if is_root(at) => "the bucket is empty so far: it has no root directory yet".to_owned(),
        ObjectAt::Id(id) => format!("object {id} does not exist"),
        ObjectAt::Path(path) => format!("{} does not exist", String::from_utf8_lossy(&path.0)),
    };
    RpcError::new(Code::NotFound, text)
}

fn is_root(at: &ObjectAt) -> bool {
    match at {
        ObjectAt::Id(id) => *id == ObjectId::ROOT.0,
        ObjectAt::Path(path) => path.0.iter().all(|byte| *byte == b'/'),
    }
}
