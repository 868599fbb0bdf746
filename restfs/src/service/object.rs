//! `object.stat|lookup|list|log`.

use super::Service;
use super::access::{find_bucket, find_object, no_object, tree_at};
use crate::auth::{Identity, Need};
use restfs_lib::kv::KvRead;
use restfs_lib::model::{BucketId, Kind, ObjectId, Time};
use restfs_lib::tree::{At, Changes, Tree, commit, history};
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::ObjectAt;
use restfs_lib::wire::{Code, Name, RpcError, check};

pub(super) fn stat(
    service: &Service,
    identity: &Identity,
    params: ObjectParams,
) -> Result<ObjectStatResult, RpcError> {
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let tree = tree_at(kv, &bucket, params.point)?;
        let id = find_object(&tree, &params.object)?;
        let (object, serial) = tree.object(id)?.ok_or_else(|| no_object(&params.object))?;
        Ok(ObjectStatResult {
            id: id.0,
            serial,
            object: object.into(),
            paths: paths(&tree, id)?,
        })
    })
}

/// A replicated directory may for a moment hang nowhere: then it has no path.
fn paths(tree: &Tree<'_>, id: ObjectId) -> Result<Vec<Name>, RpcError> {
    if id == ObjectId::ROOT {
        return Ok(vec!["/".into()]);
    }
    let mut paths = Vec::new();
    for (dir, name) in tree.names(id)? {
        if let Some(dir_path) = tree.path_of(dir)? {
            let parent = if dir_path.is_empty() {
                Vec::new()
            } else {
                [b"/", &dir_path[..]].concat()
            };
            paths.push(Name([&parent[..], b"/", &name].concat()));
        }
    }
    Ok(paths)
}

pub(super) fn lookup(
    service: &Service,
    identity: &Identity,
    params: ObjectLookupParams,
) -> Result<ObjectLookupResult, RpcError> {
    let name = check::entry_name(params.name)?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let tree = tree_at(kv, &bucket, params.point)?;
        let dir = directory(&tree, &params.object)?;
        Ok(ObjectLookupResult {
            id: tree.lookup(dir, &name)?.map(|id| id.0),
        })
    })
}

pub(super) fn list(
    service: &Service,
    identity: &Identity,
    params: ObjectListParams,
) -> Result<ObjectListResult, RpcError> {
    let limit = check::page(params.limit)?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let tree = tree_at(kv, &bucket, params.point)?;
        let dir = directory(&tree, &params.object)?;
        page(&tree, dir, params.after.map(|name| name.0), limit)
    })
}

/// A page that says that there is more is never empty.
fn page(
    tree: &Tree<'_>,
    dir: ObjectId,
    mut after: Option<Vec<u8>>,
    limit: usize,
) -> Result<ObjectListResult, RpcError> {
    let mut entries = Vec::new();
    loop {
        let mut found = tree.entries(dir, after.as_deref(), limit + 1)?;
        let more = found.len() > limit;
        found.truncate(limit);
        after = found.last().map(|(name, _)| name.clone());
        for (name, id) in found {
            // An entry whose object is not there yet is shown once it is.
            if let Some((object, _)) = tree.object(id)? {
                entries.push(EntryInfo {
                    name: Name(name),
                    id: id.0,
                    object: object.into(),
                });
            }
        }
        if !more || !entries.is_empty() {
            return Ok(ObjectListResult { entries, more });
        }
    }
}

fn directory(tree: &Tree<'_>, at: &ObjectAt) -> Result<ObjectId, RpcError> {
    let id = find_object(tree, at)?;
    let (object, _) = tree.object(id)?.ok_or_else(|| no_object(at))?;
    if object.kind == Kind::Directory {
        return Ok(id);
    }
    Err(RpcError::new(
        Code::Invalid,
        format!("{} is no directory", show(at)),
    ))
}

pub(super) fn show(at: &ObjectAt) -> String {
    match at {
        ObjectAt::Id(id) => format!("object {id}"),
        ObjectAt::Path(path) => String::from_utf8_lossy(&path.0).into_owned(),
    }
}

pub(super) fn log(
    service: &Service,
    identity: &Identity,
    params: ObjectLogParams,
) -> Result<ObjectLogResult, RpcError> {
    let limit = check::page(params.limit)?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let id = find_object(&tree_at(kv, &bucket, params.point)?, &params.object)?;
        let changes = history(kv, bucket.id, id, params.before, limit)?;
        let revisions = changes
            .into_iter()
            .map(|changes| revision(kv, bucket.id, id, &changes));
        Ok(ObjectLogResult {
            id: id.0,
            revisions: revisions.collect::<Result<_, _>>()?,
        })
    })
}

fn revision(
    kv: &dyn KvRead,
    bucket: BucketId,
    id: ObjectId,
    changes: &Changes,
) -> Result<Revision, RpcError> {
    let point = changes.point;
    let commit = commit::get(kv, bucket, point)?;
    let object = Tree::new(kv, bucket, At::Point(point)).object(id)?;
    Ok(Revision {
        point,
        time: Time::from_ns(commit.map_or(0, |commit| commit.info.time_ns).into()).into(),
        object: object.map(|(object, _)| object.into()),
        properties: changes.properties || changes.removed,
        content: changes.segments > 0,
        attributes: !changes.attributes.is_empty(),
        names: !changes.named.is_empty() || !changes.unnamed.is_empty(),
    })
}
