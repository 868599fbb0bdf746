//! Values inside params and results. Never the model's types: those convert in `convert`.
//!
//! Enums are written as `{"variant": {..}}`, or `"variant"` when there is nothing inside.

use super::bytes::{Content, Hex, Name};
use serde::{Deserialize, Serialize};

/// `[seconds, nanoseconds]` since the epoch; before it, seconds are negative and nanoseconds count up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time(pub i64, pub u32);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    File,
    Directory,
    Symlink { target: Name },
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashAlgorithm {
    Blake3,
    Sha256,
    Sha1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    None,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    pub block_size: u32,
    pub segment_blocks: u32,
    pub hash: HashAlgorithm,
    pub compression: Compression,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: Time,
    pub atime: Time,
    pub btime: Time,
    pub layout: Layout,
}

/// A block's hash where it is not the key itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockHash {
    Sha256(Hex<32>),
    Sha1(Hex<20>),
}

/// A block at a position of a segment. Without `key` it is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockAt {
    pub at: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Hex<32>>,
    /// Bytes of plain content; 0 for a hole.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub length: u32,
    /// Absent when the object's hash is BLAKE3: it equals the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<BlockHash>,
    /// Revision that put it there; in answers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
}

fn is_zero(length: &u32) -> bool {
    *length == 0
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    PutObject {
        id: u64,
        object: Object,
    },
    DropObject {
        id: u64,
    },
    PutEntry {
        dir: u64,
        name: Name,
        child: u64,
    },
    DropEntry {
        dir: u64,
        name: Name,
    },
    PutAttribute {
        id: u64,
        name: Name,
        value: Content,
    },
    DropAttribute {
        id: u64,
        name: Name,
    },
    PutBlocks {
        id: u64,
        segment: u64,
        blocks: Vec<BlockAt>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RowKey {
    Object { id: u64 },
    Attribute { id: u64, name: Name },
    Entry { dir: u64, name: Name },
    Segment { id: u64, segment: u64 },
}

/// Which object a call is about: by its id, or by a path from the bucket's root (`/a/b`; `/` is the root).
/// Symlinks are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectAt {
    Id(u64),
    Path(Name),
}

impl ObjectAt {
    pub fn path(path: impl Into<Vec<u8>>) -> Self {
        Self::Path(Name(path.into()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, on every bucket: buckets, tokens.
    Admin,
    /// Commits of a source, blocks, and reading what it needs for that. Cannot delete history.
    Replicator,
    /// Reads and edits buckets that no source owns.
    Writer,
    Reader,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Replicator, Self::Writer, Self::Reader];

    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Replicator => "replicator",
            Self::Writer => "writer",
            Self::Reader => "reader",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| format!("unknown role `{text}`: it is admin, replicator, writer or reader"))
    }
}
