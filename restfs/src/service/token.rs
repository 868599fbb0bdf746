//! `token.*`.

use super::{Service, now_ns};
use crate::auth::{Identity, Need, Token, TokenRecord, tokens};
use restfs_lib::kv::KvRead;
use restfs_lib::model::Time;
use restfs_lib::tree::bucket;
use restfs_lib::wire::limits::MAX_LABEL;
use restfs_lib::wire::method::*;
use restfs_lib::wire::{Code, RpcError};
use std::sync::Arc;

pub(super) async fn create(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: TokenCreateParams,
) -> Result<TokenCreateResult, RpcError> {
    identity.check(Need::Administer)?;
    check_name(&params.name)?;
    let token =
        Token::generate().map_err(|e| RpcError::new(Code::Internal, format!("random numbers: {e}")))?;
    let result = TokenCreateResult {
        id: token.id(),
        token: token.reveal(),
    };
    let created_ns = now_ns();
    service
        .metadata
        .write(move |txn| {
            let bucket = match &params.bucket {
                None => None,
                Some(name) => Some(bucket::find(txn, name)?.ok_or_else(|| no_bucket(name))?.id),
            };
            let record = TokenRecord {
                id: token.id(),
                name: params.name.clone(),
                hash: token.hash(),
                role: params.role,
                bucket,
                created_ns,
                revoked_ns: None,
            };
            tokens::put(txn, &record)
        })
        .await?;
    Ok(result)
}

pub(super) fn list(service: &Service, identity: &Identity, _: NoParams) -> Result<TokenListResult, RpcError> {
    identity.check(Need::Administer)?;
    service.metadata.read(|kv| {
        let records = tokens::list(kv)?;
        let tokens = records
            .into_iter()
            .map(|record| info(kv, record))
            .collect::<Result<_, _>>()?;
        Ok(TokenListResult { tokens })
    })
}

pub(super) async fn revoke(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: TokenRevokeParams,
) -> Result<Done, RpcError> {
    identity.check(Need::Administer)?;
    let (id, now) = (params.id.clone(), now_ns());
    service
        .metadata
        .write(move |txn| tokens::revoke(txn, &params.id, now))
        .await?;
    service.auth.revoked(&id);
    Ok(Done {})
}

fn info(kv: &dyn KvRead, record: TokenRecord) -> Result<TokenInfo, RpcError> {
    let bucket = match record.bucket {
        None => None,
        // A token whose bucket is gone is good for nothing, and still listed.
        Some(id) => Some(
            bucket::get(kv, id)?
                .filter(|b| !b.deleted)
                .map_or("(deleted)".to_owned(), |b| b.name),
        ),
    };
    let time = |ns: i64| Time::from_ns(ns.into()).into();
    Ok(TokenInfo {
        id: record.id,
        name: record.name,
        role: record.role,
        bucket,
        created: time(record.created_ns),
        revoked: record.revoked_ns.map(time),
    })
}

fn no_bucket(name: &str) -> RpcError {
    RpcError::new(Code::NotFound, format!("bucket `{name}` does not exist"))
}

/// For people: any text that fits into a line of a table.
fn check_name(name: &str) -> Result<(), RpcError> {
    if !name.is_empty() && name.len() <= MAX_LABEL && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!(
        "name of a token: 1 to {MAX_LABEL} bytes without control characters"
    )))
}
