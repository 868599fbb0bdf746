//! `block.missing|put|patch|get`.

use super::Service;
use super::held::Unsure;
use crate::auth::{Identity, Need};
use crate::storage::StoreError;
use bytes::Bytes;
use restfs_lib::content::{compress, page_sums, verify};
use restfs_lib::model::{BlockKey, Compression};
use restfs_lib::wire::limits::{MAX_BASES, MAX_BLOCKS, MAX_PATCHED, MAX_PUT, TARGET_MESSAGE};
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::Compression as WireCompression;
use restfs_lib::wire::{Code, Content, Encoding, RpcError, check};

pub(super) fn missing(
    service: &Service,
    identity: &Identity,
    params: BlockKeys,
) -> Result<BlockMissingResult, RpcError> {
    identity.check(Need::Replicate)?;
    check::count(params.keys.len(), MAX_BLOCKS, "keys")?;
    let keys: Vec<BlockKey> = params.keys.into_iter().map(Into::into).collect();
    let missing = service.missing_for(identity, &keys)?;
    Ok(BlockMissingResult {
        missing: missing.into_iter().map(Into::into).collect(),
    })
}

pub(super) fn put(service: &Service, identity: &Identity, params: BlockPutParams) -> Result<Done, RpcError> {
    identity.check(Need::Replicate)?;
    check::count(params.blocks.len(), MAX_BLOCKS, "blocks")?;
    let bytes: u64 = params.blocks.iter().map(|block| u64::from(block.length)).sum();
    if bytes > MAX_PUT as u64 {
        let text = format!("blocks of {bytes} bytes are more than the limit of {MAX_PUT} in one call");
        return Err(RpcError::new(Code::TooLarge, text));
    }
    service.space.for_content()?;
    for block in params.blocks {
        let key = BlockKey::from(block.key);
        // What came compressed compresses well here too; what did not was tried before.
        let compression = match block.compression {
            WireCompression::None => Compression::None,
            WireCompression::Zstd => Compression::Zstd,
        };
        let content = block.plain()?;
        if !verify(&key, &content) {
            return Err(RpcError::invalid_params(format!(
                "the content of block {key} is not its own"
            )));
        }
        service.blocks.put(key, &content, compression)?;
        service.note_sent(identity, key);
    }
    Ok(Done {})
}

pub(super) fn patch(
    service: &Service,
    identity: &Identity,
    params: BlockPatchParams,
) -> Result<BlockPatchResult, RpcError> {
    identity.check(Need::Replicate)?;
    check::count(params.patches.len(), MAX_BLOCKS, "patches")?;
    let bytes: u64 = params.patches.iter().map(|patch| u64::from(patch.length)).sum();
    if bytes > MAX_PATCHED as u64 {
        let text =
            format!("patches that make {bytes} bytes are more than the limit of {MAX_PATCHED} in one call");
        return Err(RpcError::new(Code::TooLarge, text));
    }
    service.space.for_content()?;
    let bases: Vec<BlockKey> = params.patches.iter().map(|patch| patch.base.into()).collect();
    let mut foreign = service.foreign(identity, &bases, Unsure::No)?;
    let mut wanted = Vec::new();
    // A base is read whole, however little of it a block takes.
    let mut room = MAX_BASES;
    for patch in params.patches {
        let (key, base) = (patch.key, patch.base.into());
        let patch = patch.checked()?;
        let base = match room > 0 && !foreign.contains(&base) {
            true => find_base(service, base),
            false => None,
        };
        room = room.saturating_sub(base.as_ref().map_or(0, |base| base.len()));
        let made = make(service, key.into(), base.as_deref(), &patch)?;
        // One that is here all the same was brought before, as a block that took the place of its base on the way.
        if made {
            service.note_sent(identity, key.into());
            foreign.remove(&key.into());
        } else if !service.missing_for(identity, &[key.into()])?.is_empty() {
            let sums = base.map(|base| Content(page_sums(&base).into()));
            wanted.push(WantedBlock { key, sums });
        }
    }
    Ok(BlockPatchResult { wanted })
}

fn find_base(service: &Service, key: BlockKey) -> Option<Bytes> {
    match service.blocks.get(key) {
        Ok(base) => Some(base),
        Err(StoreError::Missing(_)) => None,
        // What is to be made of it can be stored all the same, when it comes whole.
        Err(error) => {
            tracing::warn!("block {key} cannot be read to make another one of it: {error}");
            None
        }
    }
}

/// Stores the block that the patch makes of its base. `false`: it does not make the block with this key.
fn make(service: &Service, key: BlockKey, base: Option<&[u8]>, patch: &Patch) -> Result<bool, RpcError> {
    let Some(content) = base.and_then(|base| patch.apply(base)) else {
        return Ok(false);
    };
    match service.blocks.put(key, &content, Compression::Zstd) {
        Ok(()) => Ok(true),
        Err(StoreError::WrongKey { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn get(
    service: &Service,
    identity: &Identity,
    params: BlockKeys,
) -> Result<BlockGetResult, RpcError> {
    identity.check(Need::Read)?;
    check::count(params.keys.len(), MAX_BLOCKS, "keys")?;
    let keys: Vec<BlockKey> = params.keys.iter().map(|key| (*key).into()).collect();
    let foreign = service.foreign(identity, &keys, Unsure::Yes)?;
    let mut room = TARGET_MESSAGE;
    let mut blocks = Vec::new();
    for key in params.keys {
        let plain = match BlockKey::from(key) {
            key if foreign.contains(&key) => return Err(StoreError::Missing(key).into()),
            key => service.blocks.get(key)?,
        };
        let length = plain.len() as u32;
        let (compression, content) = match compress(&plain, Compression::Zstd) {
            Some(packed) => (WireCompression::Zstd, packed.into()),
            None => (WireCompression::None, plain),
        };
        let block = BlockContent {
            key,
            length,
            compression,
            content: Content(content),
        };
        // JSON's size, whatever the encoding: the answer may be a little shorter than it could be.
        let size = block.encoded_len(Encoding::Json);
        if size > room && !blocks.is_empty() {
            break;
        }
        room = room.saturating_sub(size);
        blocks.push(block);
    }
    Ok(BlockGetResult { blocks })
}
