//! Blocks by key.

use super::{Done, methods};
use crate::content::decompress;
use crate::wire::bytes::{Content, Hex};
use crate::wire::values::Compression;
use crate::wire::{Encoding, RpcError, check};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

methods! {
    BlockMissing = "block.missing": BlockKeys => BlockMissingResult;
    /// Takes blocks in. They are durable once a commit that names them is answered.
    BlockPut = "block.put": BlockPutParams => Done;
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

impl BlockContent {
    /// Bytes that its members take beside the content, rounded up.
    const OVERHEAD: usize = 256;

    /// Upper bound of its bytes in a message.
    pub fn encoded_len(&self, encoding: Encoding) -> usize {
        let content = self.content.0.len();
        Self::OVERHEAD
            + match encoding {
                Encoding::Bson => content,
                Encoding::Json => content.div_ceil(3) * 4,
            }
    }

    /// The plain content, as long as it says. Whether it is the key's is for the receiver to check.
    pub fn plain(self) -> Result<Bytes, RpcError> {
        check::block_length(self.length)?;
        let length = self.length as usize;
        let plain: Bytes = match self.compression {
            Compression::None => self.content.0,
            Compression::Zstd => decompress(&self.content.0, length)
                .map_err(|e| RpcError::invalid_params(format!("block: {e}")))?
                .into(),
        };
        if plain.len() != length {
            let text = format!("block of {} bytes says that it has {length}", plain.len());
            return Err(RpcError::invalid_params(text));
        }
        Ok(plain)
    }
}
