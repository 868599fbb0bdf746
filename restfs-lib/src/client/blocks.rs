//! Calls about blocks: asking, putting, getting.

use super::{Client, ClientError};
use crate::content::{self, Difference};
use crate::model::{BlockKey, Compression};
use crate::wire::limits::{MAX_BLOCKS, MAX_PATCHED, TARGET_MESSAGE};
use crate::wire::method::*;
use crate::wire::values::Compression as WireCompression;
use crate::wire::{Code, Content, Encoding, Hex, RpcError};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// A block on its way to the server.
#[derive(Debug, Clone)]
pub struct Block {
    pub key: BlockKey,
    pub content: Bytes,
    /// How it differs from one that the server probably has.
    pub since: Option<Difference>,
}

impl From<(BlockKey, Bytes)> for Block {
    fn from((key, content): (BlockKey, Bytes)) -> Self {
        Self {
            key,
            content,
            since: None,
        }
    }
}

impl Client {
    /// Those of the keys that the server has no block for.
    pub async fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>, ClientError> {
        let mut missing = Vec::new();
        for part in keys.chunks(MAX_BLOCKS) {
            let params = BlockKeys {
                keys: part.iter().map(|key| (*key).into()).collect(),
            };
            let result = self.call::<BlockMissing>(&params).await?;
            missing.extend(result.missing.into_iter().map(BlockKey::from));
        }
        Ok(missing)
    }

    /// Ships blocks in as many messages as it takes: as their differences where those are smaller, and whole after all
    /// where the server cannot make the block of that; compressed where that is smaller. They are durable once a commit
    /// that names them has been answered. Returns the bytes they were encoded to.
    pub async fn put_blocks(&self, blocks: Vec<impl Into<Block>>) -> Result<u64, ClientError> {
        let blocks: Vec<Block> = blocks.into_iter().map(Into::into).collect();
        let encoding = self.0.encoding;
        let patching = !self.0.without_patches.load(Ordering::Relaxed);
        let pack = move |block| Packed::new(block, encoding, patching);
        // It takes a while, which the runtime's threads do not have.
        let packed = tokio::task::spawn_blocking(move || blocks.into_iter().map(pack).collect::<Vec<_>>())
            .await
            .map_err(|e| ClientError::TooLarge {
                method: BlockPut::NAME,
                reason: e.to_string(),
            })?;
        let (mut patches, mut patched, mut whole) = (Vec::new(), HashMap::new(), Vec::new());
        for block in packed {
            match block.patch {
                None => whole.push(block.whole),
                Some(patch) => {
                    patches.push(patch);
                    patched.insert(block.whole.key, block.whole);
                }
            }
        }
        let (mut encoded, wanted) = self.put_patches(patches).await?;
        whole.extend(wanted.iter().filter_map(|key| patched.remove(key)));
        let weigh = |block: &BlockContent| (block.encoded_len(encoding), 0);
        encoded += whole.iter().map(|block| weigh(block).0 as u64).sum::<u64>();
        for blocks in messages(whole, weigh) {
            self.call::<BlockPut>(&BlockPutParams { blocks }).await?;
        }
        Ok(encoded)
    }

    /// Plain content, verified, in the order asked.
    pub async fn get_blocks(&self, keys: &[BlockKey]) -> Result<Vec<Bytes>, ClientError> {
        let mut blocks = Vec::with_capacity(keys.len());
        while let Some(rest) = keys.get(blocks.len()..).filter(|rest| !rest.is_empty()) {
            let asked = rest.iter().take(MAX_BLOCKS).map(|key| (*key).into()).collect();
            let result = self.call::<BlockGet>(&BlockKeys { keys: asked }).await?;
            if result.blocks.is_empty() || result.blocks.len() > rest.len() {
                return Err(self.odd("block.get: another number of blocks than asked for"));
            }
            for (block, key) in result.blocks.into_iter().zip(rest) {
                blocks.push(unpack(block, *key).map_err(|e| self.odd(&e.message))?);
            }
        }
        Ok(blocks)
    }

    /// Bytes that the patches were encoded to, and the blocks that the server wants whole.
    async fn put_patches(&self, patches: Vec<PatchContent>) -> Result<(u64, Vec<Hex<32>>), ClientError> {
        let weigh = |patch: &PatchContent| (patch.encoded_len(self.0.encoding), patch.length as usize);
        let (mut encoded, mut wanted) = (0, Vec::new());
        for patches in messages(patches, weigh) {
            encoded += patches.iter().map(|patch| weigh(patch).0 as u64).sum::<u64>();
            wanted.extend(self.put_message(patches).await?);
        }
        Ok((encoded, wanted))
    }

    /// The blocks that the server wants whole: of one that does not know the call, all.
    async fn put_message(&self, patches: Vec<PatchContent>) -> Result<Vec<Hex<32>>, ClientError> {
        let params = BlockPatchParams { patches };
        match self.call::<BlockPatch>(&params).await {
            Ok(result) => {
                if !result.wanted.is_empty() {
                    let (wanted, of) = (result.wanted.len(), params.patches.len());
                    tracing::debug!(url = self.url(), wanted, of, "blocks are wanted whole");
                }
                Ok(result.wanted)
            }
            Err(error) if error.code() == Some(Code::MethodNotFound) => {
                self.0.without_patches.store(true, Ordering::Relaxed);
                tracing::info!(
                    url = self.url(),
                    "the server is of a version that takes whole blocks only"
                );
                Ok(params.patches.iter().map(|patch| patch.key).collect())
            }
            Err(error) => Err(error),
        }
    }
}

struct Packed {
    whole: BlockContent,
    /// When it is smaller.
    patch: Option<PatchContent>,
}

impl Packed {
    /// `patching`: the server takes patches.
    fn new(block: Block, encoding: Encoding, patching: bool) -> Self {
        let since = block.since.filter(|_| patching);
        let patch = since.map(|since| pack_difference(block.key, &block.content, &since));
        let whole = pack(block.key, block.content);
        let patch = patch.filter(|patch| patch.encoded_len(encoding) < whole.encoded_len(encoding));
        Self { whole, patch }
    }
}

fn pack_difference(key: BlockKey, content: &Bytes, since: &Difference) -> PatchContent {
    let (ranges, bytes) = content::cut(content, since.ranges());
    let (compression, pieces) = compressed(bytes.into());
    PatchContent {
        key: key.into(),
        length: content.len() as u32,
        base: since.base.into(),
        pieces: ranges.iter().map(|r| Piece(r.start, r.end - r.start)).collect(),
        compression,
        content: pieces,
    }
}

fn pack(key: BlockKey, content: Bytes) -> BlockContent {
    let length = content.len() as u32;
    let (compression, content) = compressed(content);
    BlockContent {
        key: key.into(),
        length,
        compression,
        content,
    }
}

fn compressed(plain: Bytes) -> (WireCompression, Content) {
    match content::compress(&plain, Compression::Zstd) {
        Some(packed) => (WireCompression::Zstd, Content(packed.into())),
        None => (WireCompression::None, Content(plain)),
    }
}

fn unpack(block: BlockContent, key: BlockKey) -> Result<Bytes, RpcError> {
    let content = block.plain()?;
    if !content::verify(&key, &content) {
        return Err(RpcError::invalid_params(format!(
            "block.get: the content of block {key} is not its own"
        )));
    }
    Ok(content)
}

/// Items, in order, cut into messages. `weigh`: an item's bytes in a message, and bytes of blocks that it makes the server
/// build.
fn messages<T>(items: Vec<T>, weigh: impl Fn(&T) -> (usize, usize)) -> Vec<Vec<T>> {
    let mut messages: Vec<Vec<T>> = Vec::new();
    let mut room = (0, 0);
    for item in items {
        let weight = weigh(&item);
        match messages.last_mut() {
            Some(last) if weight.0 <= room.0 && weight.1 <= room.1 && last.len() < MAX_BLOCKS => {
                last.push(item)
            }
            _ => {
                room = (TARGET_MESSAGE, MAX_PATCHED);
                messages.push(vec![item]);
            }
        }
        room = (room.0.saturating_sub(weight.0), room.1.saturating_sub(weight.1));
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_holds_more_than_a_server_takes() {
        let sizes = [1, TARGET_MESSAGE, 5, 5, TARGET_MESSAGE - 9, 1 << 30];
        let cut = messages(sizes.to_vec(), |size| (*size, 0));
        assert_eq!(
            cut,
            [
                vec![1],
                vec![TARGET_MESSAGE],
                vec![5, 5],
                vec![TARGET_MESSAGE - 9],
                vec![1 << 30]
            ]
        );
        let cut = messages(vec![MAX_PATCHED / 2; 5], |size| (1, *size));
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        let cut = messages(vec![(); MAX_BLOCKS + 1], |()| (1, 1));
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_BLOCKS, 1]);
    }
}
