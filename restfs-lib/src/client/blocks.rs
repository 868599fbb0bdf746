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

/// A block to be put, and how it differs from one that the server probably has.
#[derive(Debug, Clone)]
pub struct ChangedBlock {
    pub key: BlockKey,
    pub content: Bytes,
    pub since: Difference,
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

    /// Ships blocks, compressed where that is smaller, in as many messages as it takes. They are durable once a commit
    /// that names them has been answered. Returns the bytes they were encoded to.
    pub async fn put_blocks(&self, blocks: Vec<(BlockKey, Bytes)>) -> Result<u64, ClientError> {
        let packed = packing(move || blocks.into_iter().map(pack).collect()).await?;
        self.put_packed(packed).await
    }

    /// As [`Self::put_blocks`]; each travels as its difference where that is smaller, and whole after all where the
    /// server cannot make it of that.
    pub async fn patch_blocks(&self, blocks: Vec<ChangedBlock>) -> Result<u64, ClientError> {
        let encoding = self.0.encoding;
        let contents: HashMap<Hex<32>, Bytes> = blocks
            .iter()
            .map(|block| (block.key.into(), block.content.clone()))
            .collect();
        let known = !self.0.without_patches.load(Ordering::Relaxed);
        let packed = packing(move || {
            blocks
                .into_iter()
                .map(|block| smaller(block, encoding, known))
                .collect()
        });
        let (mut patches, mut whole) = (Vec::new(), Vec::new());
        for packed in packed.await? {
            match packed {
                Packed::Patch(patch) => patches.push(patch),
                Packed::Whole(block) => whole.push(block),
            }
        }
        let weigh = |patch: &PatchContent| (patch.encoded_len(encoding), patch.length as usize);
        let mut encoded = 0;
        let mut wanted = Vec::new();
        for patches in messages(patches, weigh) {
            encoded += patches.iter().map(|patch| weigh(patch).0 as u64).sum::<u64>();
            wanted.extend(self.patch_message(patches).await?);
        }
        let again: Vec<_> = wanted
            .iter()
            .filter_map(|key| Some((BlockKey::from(*key), contents.get(key)?.clone())))
            .collect();
        whole.extend(packing(move || again.into_iter().map(pack).collect()).await?);
        Ok(encoded + self.put_packed(whole).await?)
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

    async fn put_packed(&self, packed: Vec<BlockContent>) -> Result<u64, ClientError> {
        let encoding = self.0.encoding;
        let encoded = packed
            .iter()
            .map(|block| block.encoded_len(encoding) as u64)
            .sum();
        for blocks in messages(packed, |block| (block.encoded_len(encoding), 0)) {
            self.call::<BlockPut>(&BlockPutParams { blocks }).await?;
        }
        Ok(encoded)
    }

    /// The blocks that the server wants whole: of a server that does not know the call, all.
    async fn patch_message(&self, patches: Vec<PatchContent>) -> Result<Vec<Hex<32>>, ClientError> {
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

enum Packed {
    Patch(PatchContent),
    Whole(BlockContent),
}

/// Compressing blocks takes a while, which the runtime's threads do not have.
async fn packing<T: Send + 'static>(
    pack: impl FnOnce() -> Vec<T> + Send + 'static,
) -> Result<Vec<T>, ClientError> {
    tokio::task::spawn_blocking(pack)
        .await
        .map_err(|e| ClientError::TooLarge {
            method: BlockPut::NAME,
            reason: e.to_string(),
        })
}

/// `patches`: the server takes them.
fn smaller(block: ChangedBlock, encoding: Encoding, patches: bool) -> Packed {
    let patch = patches.then(|| pack_difference(&block));
    let whole = pack((block.key, block.content));
    match patch {
        Some(patch) if patch.encoded_len(encoding) < whole.encoded_len(encoding) => Packed::Patch(patch),
        _ => Packed::Whole(whole),
    }
}

fn pack_difference(block: &ChangedBlock) -> PatchContent {
    let (ranges, bytes) = content::cut(&block.content, block.since.ranges());
    let (compression, content) = compressed(bytes.into());
    PatchContent {
        key: block.key.into(),
        length: block.content.len() as u32,
        base: block.since.base.into(),
        pieces: ranges.iter().map(|r| Piece(r.start, r.end - r.start)).collect(),
        compression,
        content,
    }
}

fn pack((key, content): (BlockKey, Bytes)) -> BlockContent {
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
