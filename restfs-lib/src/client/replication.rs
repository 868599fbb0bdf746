//! Calls of a source, in the model's types.

use super::{Client, ClientError};
use crate::content;
use crate::model::{BlockKey, Compression, Digest, Op, RowKey, Time};
use crate::tree::commit::Position;
use crate::wire::limits::{MAX_BLOCKS, MAX_PAGE, TARGET_MESSAGE};
use crate::wire::method::*;
use crate::wire::values::Compression as WireCompression;
use crate::wire::{Content, Encoding, RpcError};
use bytes::Bytes;

/// One commit of a source: one recovery point.
#[derive(Debug, Clone)]
pub struct Commit {
    pub source: String,
    pub epoch: u64,
    /// First and last change it covers. A chunk of a resync names the base as `last` with `first` = 0.
    pub first: u64,
    pub last: u64,
    pub resync: bool,
    /// When the newest change in it was made, by the source's clock.
    pub time_ns: i64,
    pub exact: bool,
    pub ops: Vec<Op>,
}

impl Client {
    /// `None`: the bucket has nothing of this source. `point` is the bucket's head.
    pub async fn position(&self, bucket: &str, source: &str) -> Result<Option<Position>, ClientError> {
        let params = PositionParams {
            bucket: bucket.to_owned(),
            source: source.to_owned(),
        };
        let result = self.call::<ReplicationPosition>(&params).await?;
        Ok(result.position.map(|p| Position {
            epoch: p.epoch,
            sequence: p.sequence,
            point: p.point,
        }))
    }

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
        let packed = tokio::task::spawn_blocking(move || blocks.into_iter().map(pack).collect::<Vec<_>>())
            .await
            .map_err(|e| ClientError::TooLarge {
                method: BlockPut::NAME,
                reason: e.to_string(),
            })?;
        let encoded = packed
            .iter()
            .map(|block| block.encoded_len(self.0.encoding) as u64)
            .sum();
        for blocks in messages(packed, self.0.encoding) {
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

    /// The recovery point it made, or made when it was sent the first time.
    pub async fn commit(&self, bucket: &str, commit: &Commit) -> Result<u64, ClientError> {
        let params = CommitParams {
            bucket: bucket.to_owned(),
            source: commit.source.clone(),
            epoch: commit.epoch,
            first: commit.first,
            last: commit.last,
            resync: commit.resync,
            time: Time::from_ns(commit.time_ns.into()).into(),
            exact: commit.exact,
            ops: commit.ops.iter().cloned().map(Into::into).collect(),
        };
        Ok(self.call::<ReplicationCommit>(&params).await?.point)
    }

    /// Digest of the bucket's head and its point.
    pub async fn digest(&self, bucket: &str) -> Result<(Digest, u64), ClientError> {
        let result = self
            .call::<TreeDigest>(&TreeDigestParams {
                bucket: bucket.to_owned(),
            })
            .await?;
        Ok((result.digest.into(), result.point))
    }

    /// Fewer than `limit` only at the end.
    pub async fn groups(
        &self,
        bucket: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Digest)>, ClientError> {
        let mut groups: Vec<(u64, Digest)> = Vec::new();
        while groups.len() < limit {
            let page = (limit - groups.len()).min(MAX_PAGE);
            let params = TreeGroupsParams {
                bucket: bucket.to_owned(),
                after: groups.last().map(|(group, _)| *group).or(after),
                limit: page as u32,
            };
            let found = self.call::<TreeGroups>(&params).await?.groups;
            let end = found.len() < page;
            groups.extend(found.into_iter().map(|g| (g.group, g.digest.into())));
            if end {
                break;
            }
        }
        Ok(groups)
    }

    /// Rows of a group after `after`; fewer than `limit` only at the end.
    pub async fn rows(
        &self,
        bucket: &str,
        group: u64,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, ClientError> {
        let mut rows: Vec<(RowKey, Digest)> = Vec::new();
        while rows.len() < limit {
            let last = rows.last().map(|(row, _)| row.clone()).or_else(|| after.clone());
            let params = TreeRowsParams {
                bucket: bucket.to_owned(),
                group,
                after: last.map(Into::into),
                limit: (limit - rows.len()).min(MAX_PAGE) as u32,
            };
            let result = self.call::<TreeRows>(&params).await?;
            if result.rows.is_empty() && result.more {
                return Err(self.odd("tree.rows: more rows promised, none sent"));
            }
            for row in result.rows {
                rows.push((
                    row.row.try_into().map_err(|e: RpcError| self.odd(&e.message))?,
                    row.digest.into(),
                ));
            }
            if !result.more {
                break;
            }
        }
        Ok(rows)
    }

    pub(super) fn odd(&self, reason: &str) -> ClientError {
        ClientError::Protocol {
            url: self.url().to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn pack((key, content): (BlockKey, Bytes)) -> BlockContent {
    let length = content.len() as u32;
    let (compression, content) = match content::compress(&content, Compression::Zstd) {
        Some(packed) => (WireCompression::Zstd, packed.into()),
        None => (WireCompression::None, content),
    };
    BlockContent {
        key: key.into(),
        length,
        compression,
        content: Content(content),
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

/// Blocks, in order, cut into messages.
fn messages(blocks: Vec<BlockContent>, encoding: Encoding) -> Vec<Vec<BlockContent>> {
    let mut messages: Vec<Vec<BlockContent>> = Vec::new();
    let mut room = 0;
    for block in blocks {
        let size = block.encoded_len(encoding);
        match messages.last_mut() {
            Some(last) if size <= room && last.len() < MAX_BLOCKS => {
                room -= size;
                last.push(block);
            }
            _ => {
                room = TARGET_MESSAGE.saturating_sub(size);
                messages.push(vec![block]);
            }
        }
    }
    messages
}
