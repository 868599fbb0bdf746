//! Calls about blocks: asking, putting, getting.

use super::{Client, ClientError};
use crate::content::{self, Difference};
use crate::model::{BlockKey, Compression};
use crate::wire::limits::{MAX_BLOCKS, MAX_PATCHED, MAX_PUT, TARGET_MESSAGE};
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
        let packed = blocking(move || blocks.into_iter().map(pack).collect::<Vec<_>>()).await?;
        let (patched, whole): (Vec<_>, Vec<_>) =
            packed.into_iter().partition(|block| block.patch().is_some());
        let (first, wanted) = self.put_patches(patched).await?;
        let mend = move |(block, sums): (Packed, Option<Content>)| block.mended(sums.as_ref(), encoding);
        let mended = blocking(move || wanted.into_iter().map(mend).collect::<Vec<_>>()).await?;
        let (patched, more): (Vec<_>, Vec<_>) = mended.into_iter().partition(|block| block.patch().is_some());
        let (second, wanted) = self.put_patches(patched).await?;
        // Pages with other content and the same sum, or the base is gone by now: no third time.
        let rest = wanted.into_iter().map(|(block, _)| block);
        let all = whole.into_iter().chain(more).chain(rest);
        let whole: Vec<Packed> = all.collect();
        let whole = blocking(move || whole.into_iter().map(Packed::whole).collect()).await?;
        Ok(first + second + self.put_whole(whole).await?)
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

    async fn put_whole(&self, blocks: Vec<BlockContent>) -> Result<u64, ClientError> {
        let weigh = |block: &BlockContent| (block.encoded_len(self.0.encoding), block.length as usize);
        let encoded = blocks.iter().map(|block| weigh(block).0 as u64).sum();
        for blocks in messages(blocks, MAX_PUT, weigh) {
            self.call::<BlockPut>(&BlockPutParams { blocks }).await?;
        }
        Ok(encoded)
    }

    /// Bytes that the patches were encoded to, and the blocks that the server could not make, with the sums of their bases'
    /// pages.
    async fn put_patches(
        &self,
        blocks: Vec<Packed>,
    ) -> Result<(u64, Vec<(Packed, Option<Content>)>), ClientError> {
        let patches = blocks.iter().filter_map(|block| block.patch().cloned()).collect();
        let mut sent: HashMap<Hex<32>, Packed> = blocks.into_iter().map(|block| (block.key, block)).collect();
        let weigh = |patch: &PatchContent| (patch.encoded_len(self.0.encoding), patch.length as usize);
        let (mut encoded, mut wanted) = (0, Vec::new());
        for patches in messages(patches, MAX_PATCHED, weigh) {
            encoded += patches.iter().map(|patch| weigh(patch).0 as u64).sum::<u64>();
            for block in self.put_message(patches).await? {
                wanted.extend(sent.remove(&block.key).map(|packed| (packed, block.sums)));
            }
        }
        Ok((encoded, wanted))
    }

    /// What the server could not make: of one that does not know the call, all.
    async fn put_message(&self, patches: Vec<PatchContent>) -> Result<Vec<WantedBlock>, ClientError> {
        let params = BlockPatchParams { patches };
        match self.call::<BlockPatch>(&params).await {
            Ok(result) => {
                if !result.wanted.is_empty() {
                    let (wanted, of) = (result.wanted.len(), params.patches.len());
                    tracing::debug!(
                        url = self.url(),
                        wanted,
                        of,
                        "blocks did not come out of their patches"
                    );
                }
                Ok(result.wanted)
            }
            Err(error) if error.code() == Some(Code::MethodNotFound) => {
                self.0.without_patches.store(true, Ordering::Relaxed);
                tracing::info!(
                    url = self.url(),
                    "the server is of a version that takes whole blocks only"
                );
                let all = params.patches.iter();
                Ok(all
                    .map(|patch| WantedBlock {
                        key: patch.key,
                        sums: None,
                    })
                    .collect())
            }
            Err(error) => Err(error),
        }
    }
}

/// Packing takes a while, which the runtime's threads do not have.
async fn blocking<T: Send + 'static>(pack: impl FnOnce() -> T + Send + 'static) -> Result<T, ClientError> {
    tokio::task::spawn_blocking(pack)
        .await
        .map_err(|e| ClientError::TooLarge {
            method: BlockPut::NAME,
            reason: e.to_string(),
        })
}

/// A patch of so small a part of its block is taken without a look at what the whole would be compressed to, which costs
/// more time than that could save on the wire.
const SMALL: usize = 8;

/// A block in the form in which it is to be sent.
struct Packed {
    key: Hex<32>,
    plain: Bytes,
    form: Form,
}

enum Form {
    /// It is smaller than the whole.
    Patch(PatchContent),
    Whole(BlockContent),
}

impl Packed {
    /// `patching`: the server takes patches.
    fn new(block: Block, encoding: Encoding, patching: bool) -> Self {
        let since = block.since.filter(|_| patching);
        Self::of(block.key.into(), block.content, since, encoding)
    }

    fn of(key: Hex<32>, plain: Bytes, since: Option<Difference>, encoding: Encoding) -> Self {
        let patch = since.map(|since| pack_difference(key, &plain, &since));
        let form = match patch {
            Some(patch) if patch.encoded_len(encoding) <= plain.len() / SMALL => Form::Patch(patch),
            patch => {
                let whole = pack(key, plain.clone());
                let bytes = whole.encoded_len(encoding);
                match patch.filter(|patch| patch.encoded_len(encoding) < bytes) {
                    Some(patch) => Form::Patch(patch),
                    None => Form::Whole(whole),
                }
            }
        };
        Self { key, plain, form }
    }

    fn patch(&self) -> Option<&PatchContent> {
        match &self.form {
            Form::Patch(patch) => Some(patch),
            Form::Whole(_) => None,
        }
    }

    /// With the patch that the sums say is right.
    fn mended(self, sums: Option<&Content>, encoding: Encoding) -> Self {
        let since = self.patch().zip(sums).map(|(patch, sums)| {
            Difference::new(patch.base.into(), content::other_pages(&sums.0, &self.plain))
        });
        Self::of(self.key, self.plain, since, encoding)
    }

    fn whole(self) -> BlockContent {
        match self.form {
            Form::Patch(_) => pack(self.key, self.plain),
            Form::Whole(whole) => whole,
        }
    }
}

fn pack_difference(key: Hex<32>, content: &Bytes, since: &Difference) -> PatchContent {
    let (ranges, bytes) = content::cut(content, since.ranges());
    let (compression, pieces) = compressed(bytes.into());
    PatchContent {
        key,
        length: content.len() as u32,
        base: since.base.into(),
        pieces: ranges.iter().map(|r| Piece(r.start, r.end - r.start)).collect(),
        compression,
        content: pieces,
    }
}

fn pack(key: Hex<32>, content: Bytes) -> BlockContent {
    let length = content.len() as u32;
    let (compression, content) = compressed(content);
    BlockContent {
        key,
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
/// build, at most `built` for a message.
fn messages<T>(items: Vec<T>, built: usize, weigh: impl Fn(&T) -> (usize, usize)) -> Vec<Vec<T>> {
    let mut messages: Vec<Vec<T>> = Vec::new();
    let mut room = (0, 0);
    for item in items {
        let weight = weigh(&item);
        match messages.last_mut() {
            Some(last) if weight.0 <= room.0 && weight.1 <= room.1 && last.len() < MAX_BLOCKS => {
                last.push(item)
            }
            _ => {
                room = (TARGET_MESSAGE, built);
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
        let cut = messages(sizes.to_vec(), MAX_PUT, |size| (*size, 0));
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
        let cut = messages(vec![MAX_PATCHED / 2; 5], MAX_PATCHED, |size| (1, *size));
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        let cut = messages(vec![(); MAX_BLOCKS + 1], MAX_PUT, |()| (1, 1));
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_BLOCKS, 1]);
    }
}
