//! `object.attribute.*`.

use super::access::{find_bucket, find_object, no_object, tree_at};
use super::object::show;
use super::{Service, edit};
use crate::auth::{Identity, Need};
use restfs_lib::tree::Tree;
use restfs_lib::wire::limits::TARGET_MESSAGE;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::ObjectAt;
use restfs_lib::wire::{Code, Content, Name, RpcError, check};
use std::sync::Arc;

/// Values in one answer, so that their base64 fits into a message.
const ANSWER_BYTES: usize = TARGET_MESSAGE / 2;

pub(super) async fn set(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: AttributeSetParams,
) -> Result<PointResult, RpcError> {
    let AttributeSetParams {
        bucket,
        object,
        name,
        value,
    } = params;
    check::user_attribute_name(name.clone())?;
    edit::apply_one(
        service,
        identity,
        bucket,
        Edit::SetAttribute { object, name, value },
    )
    .await
}

pub(super) async fn delete(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: AttributeDeleteParams,
) -> Result<PointResult, RpcError> {
    let AttributeDeleteParams { bucket, object, name } = params;
    check::user_attribute_name(name.clone())?;
    edit::apply_one(service, identity, bucket, Edit::DeleteAttribute { object, name }).await
}

pub(super) fn get(
    service: &Service,
    identity: &Identity,
    params: AttributeParams,
) -> Result<AttributeGetResult, RpcError> {
    let name = check::attribute_name(params.name)?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let tree = tree_at(kv, &bucket, params.point)?;
        let id = find_object(&tree, &params.object)?;
        let value = tree
            .attribute(id, &name)?
            .ok_or_else(|| no_attribute(&tree, &params.object, &name))?;
        Ok(AttributeGetResult {
            value: Content(value.into()),
        })
    })
}

pub(super) fn list(
    service: &Service,
    identity: &Identity,
    params: AttributeListParams,
) -> Result<AttributeListResult, RpcError> {
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let tree = tree_at(kv, &bucket, params.point)?;
        let id = find_object(&tree, &params.object)?;
        tree.object(id)?.ok_or_else(|| no_object(&params.object))?;
        let mut all = tree.attributes(id)?;
        if let Some(after) = &params.after {
            all.retain(|(name, _)| *name > after.0);
        }
        Ok(page(all))
    })
}

fn page(all: Vec<(Vec<u8>, Vec<u8>)>) -> AttributeListResult {
    let mut result = AttributeListResult {
        attributes: Vec::new(),
        more: false,
    };
    let mut bytes = 0;
    for (name, value) in all {
        bytes += name.len() + value.len();
        if bytes > ANSWER_BYTES && !result.attributes.is_empty() {
            result.more = true;
            break;
        }
        result.attributes.push(Attribute {
            name: Name(name),
            value: Content(value.into()),
        });
    }
    result
}

fn no_attribute(tree: &Tree<'_>, at: &ObjectAt, name: &[u8]) -> RpcError {
    let exists = find_object(tree, at).and_then(|id| Ok(tree.object(id)?.is_some()));
    match exists {
        Ok(false) => no_object(at),
        _ => {
            let text = format!("{} has no attribute {}", show(at), String::from_utf8_lossy(name));
            RpcError::new(Code::NotFound, text)
        }
    }
}
