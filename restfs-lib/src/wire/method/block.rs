//! Blocks by key.

use super::{Done, methods};
use crate::content::{decompress, patch};
use crate::wire::bytes::{Content, Hex};
use crate::wire::limits::MAX_PIECES;
use crate::wire::values::Compression;
use crate::wire::{Encoding, RpcError, check};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;

methods! {
    BlockMissing = "block.missing": BlockKeys => BlockMissingResult;
    /// Takes blocks in. They are durable once a commit that names them is answered.
    BlockPut = "block.put": BlockPutParams => Done;
    /// The same for blocks that differ little from blocks that are there: only what differs is sent.
    BlockPatch = "block.patch": BlockPatchParams => BlockPatchResult;
    /// Answers in the order asked, at least one, as many as fit into a message.
    BlockGet = "block.get": BlockKeys => BlockGetResult;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockKeys {
    pub keys: Vec<Hex<32>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMissingResult {
    pub missing: Vec<Hex<32>>,
}

/// A block on its way, perhaps compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockContent {
    pub key: Hex<32>,
    /// Bytes when plain.
    pub length: u32,
    /// How `content` travels.
    pub compression: Compression,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockPutParams {
    pub blocks: Vec<BlockContent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockGetResult {
    pub blocks: Vec<BlockContent>,
}

/// First byte and number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece(pub u32, pub u32);

/// A block as what it has other than its base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchContent {
    pub key: Hex<32>,
    /// Bytes of the block when plain. The base is cut there.
    pub length: u32,
    pub base: Hex<32>,
    /// Where the block has other bytes than the base, all beyond the base's end among them; in order, apart.
    pub pieces: Vec<Piece>,
    /// How `content` travels.
    pub compression: Compression,
    /// The bytes of all pieces, one after another.
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockPatchParams {
    pub patches: Vec<PatchContent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockPatchResult {
    /// Those that did not come out.
    pub wanted: Vec<WantedBlock>,
}

/// A block to be sent in another way: its base is not there or is damaged, or does not make the key's content with the
/// pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedBlock {
    pub key: Hex<32>,
    /// CRC-32C of each 4 KiB of the base, four bytes each: they tell which pieces would have made the block. Absent: there
    /// is no base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<Content>,
}

impl BlockContent {
    /// Bytes that its members take beside the content, rounded up.
    const OVERHEAD: usize = 256;

    /// Upper bound of its bytes in a message.
    pub fn encoded_len(&self, encoding: Encoding) -> usize {
        Self::OVERHEAD + content_len(&self.content, encoding)
    }

    /// The plain content, as long as it says. Whether it is the key's is for the receiver to check.
    pub fn plain(self) -> Result<Bytes, RpcError> {
        check::block_length(self.length)?;
        unpacked(self.content, self.compression, self.length as usize)
    }
}

impl PatchContent {
    /// Bytes that its members take beside pieces and content, rounded up.
    const OVERHEAD: usize = 320;
    /// Bytes that a piece takes in either encoding, rounded up.
    const PIECE: usize = 36;

    /// Upper bound of its bytes in a message.
    pub fn encoded_len(&self, encoding: Encoding) -> usize {
        Self::OVERHEAD + self.pieces.len() * Self::PIECE + content_len(&self.content, encoding)
    }

    /// What came, in order and as long as it says.
    pub fn checked(self) -> Result<Patch, RpcError> {
        check::block_length(self.length)?;
        check::count(self.pieces.len(), MAX_PIECES, "pieces of a block")?;
        let mut ranges: Vec<Range<u32>> = Vec::with_capacity(self.pieces.len());
        for Piece(at, length) in self.pieces {
            let before = ranges.last().map_or(0, |r| r.end);
            let end = at.checked_add(length).filter(|end| *end <= self.length);
            match end {
                Some(end) if at >= before && length > 0 => ranges.push(at..end),
                _ => {
                    let text = format!(
                        "a piece of {length} bytes at {at} is empty, out of order or outside its block"
                    );
                    return Err(RpcError::invalid_params(text));
                }
            }
        }
        let covered = ranges.iter().map(|r| (r.end - r.start) as usize).sum();
        let content = unpacked(self.content, self.compression, covered)?;
        Ok(Patch {
            length: self.length,
            ranges,
            content,
        })
    }
}

/// A patch whose parts fit together.
#[derive(Debug, Clone)]
pub struct Patch {
    length: u32,
    ranges: Vec<Range<u32>>,
    content: Bytes,
}

impl Patch {
    /// The block, as far as `base` is the right one. `None`: it does not reach up to the pieces.
    pub fn apply(&self, base: &[u8]) -> Option<Vec<u8>> {
        patch(base, self.length as usize, &self.ranges, &self.content)
    }
}

fn content_len(content: &Content, encoding: Encoding) -> usize {
    let length = content.0.len();
    match encoding {
        Encoding::Bson => length,
        Encoding::Json => length.div_ceil(3) * 4,
    }
}

fn unpacked(content: Content, compression: Compression, length: usize) -> Result<Bytes, RpcError> {
    let plain: Bytes = match compression {
        Compression::None => content.0,
        Compression::Zstd => decompress(&content.0, length)
            .map_err(|e| RpcError::invalid_params(format!("block: {e}")))?
            .into(),
    };
    if plain.len() != length {
        let text = format!("content of {} bytes says that it has {length}", plain.len());
        return Err(RpcError::invalid_params(text));
    }
    Ok(plain)
}
