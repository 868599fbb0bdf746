//! `server.info`, `auth.whoami`.

use super::Service;
use crate::auth::{Identity, Need};
use restfs_lib::tree::bucket;
use restfs_lib::wire::RpcError;
use restfs_lib::wire::limits::{MAX_BLOCKS, MAX_IN_FLIGHT, MAX_MESSAGE, MAX_OPS};
use restfs_lib::wire::method::{NoParams, ServerInfoResult, WhoamiResult};

pub(super) fn server_info(
    service: &Service,
    identity: &Identity,
    _: NoParams,
) -> Result<ServerInfoResult, RpcError> {
    identity.check(Need::Nothing)?;
    let stats = service.blocks.stats()?;
    let room = service.space.look()?;
    Ok(ServerInfoResult {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: service.started.into(),
        blocks: stats.blocks,
        plain_bytes: stats.plain_bytes,
        stored_bytes: stats.stored_bytes,
        damaged_blocks: stats.damaged_blocks,
        free_bytes: room.free,
        reserve_bytes: room.marks.reserve,
        warn_bytes: room.marks.warn,
        connections: service.open_connections(),
        max_message: MAX_MESSAGE as u64,
        max_ops: MAX_OPS as u64,
        max_blocks: MAX_BLOCKS as u64,
        max_in_flight: MAX_IN_FLIGHT as u64,
    })
}

pub(super) fn whoami(service: &Service, identity: &Identity, _: NoParams) -> Result<WhoamiResult, RpcError> {
    identity.check(Need::Nothing)?;
    let bucket = match identity.bucket {
        None => None,
        Some(id) => service
            .metadata
            .read(|kv| Ok(bucket::get(kv, id)?))?
            .map(|bucket| bucket.name),
    };
    Ok(WhoamiResult {
        name: identity.name.clone(),
        role: identity.role,
        bucket,
    })
}
