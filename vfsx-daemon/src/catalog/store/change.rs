//! The change log.

use super::table::Row;
use crate::catalog::CatalogError;
use restfs_lib::model::{
    BlockKey, BlockRef, Compression, Hash, HashAlgorithm, Kind, Layout, Object, ObjectId, Op, Time,
};
use serde::{Deserialize, Serialize};

/// `L`: one change of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct LogRow {
    /// Journal sequence of the record it came from.
    pub(in crate::catalog) journal: u64,
    pub(in crate::catalog) time_ns: i64,
    /// Everything from journal records up to here is in the changes before this one's transaction.
    pub(in crate::catalog) covered: u64,
    /// When the oldest record was noted that is not in those changes.
    pub(in crate::catalog) oldest_ns: i64,
    /// Plain bytes of the blocks that changes before this one have named.
    pub(in crate::catalog) bytes: u64,
    pub(in crate::catalog) end: EndRow,
    pub(in crate::catalog) op: OpRow,
}

/// What the tree is behind a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) enum EndRow {
    /// In the middle of a transaction.
    Within,
    /// A whole.
    Whole,
    /// A state that the share had.
    Exact,
}

impl Row for LogRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "change row";
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) enum OpRow {
    PutObject {
        id: u64,
        object: ObjectRow,
    },
    DropObject {
        id: u64,
    },
    PutEntry {
        dir: u64,
        name: Vec<u8>,
        child: u64,
    },
    DropEntry {
        dir: u64,
        name: Vec<u8>,
    },
    PutAttribute {
        id: u64,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    DropAttribute {
        id: u64,
        name: Vec<u8>,
    },
    PutBlocks {
        id: u64,
        segment: u64,
        blocks: Vec<(u32, Option<BlockRow>)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct ObjectRow {
    kind: KindRow,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: (i64, u32),
    atime: (i64, u32),
    btime: (i64, u32),
    block_size: u32,
    segment_blocks: u32,
    hash: AlgorithmRow,
    compressed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum KindRow {
    File,
    Directory,
    Symlink { target: Vec<u8> },
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum AlgorithmRow {
    Blake3,
    Sha256,
    Sha1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalog) struct BlockRow {
    key: [u8; 32],
    length: u32,
    hash: HashRow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum HashRow {
    /// BLAKE3: the key's bytes.
    Key,
    Sha256([u8; 32]),
    Sha1([u8; 20]),
}

impl OpRow {
    /// The blocks it names.
    pub(in crate::catalog) fn keys(&self) -> impl Iterator<Item = BlockKey> {
        let blocks = match self {
            Self::PutBlocks { blocks, .. } => &blocks[..],
            _ => &[],
        };
        blocks
            .iter()
            .filter_map(|(_, block)| block.map(|b| BlockKey(b.key)))
    }

    /// Plain bytes of the blocks it names.
    pub(in crate::catalog) fn bytes(&self) -> u64 {
        match self {
            Self::PutBlocks { blocks, .. } => blocks
                .iter()
                .filter_map(|(_, block)| *block)
                .map(|b| u64::from(b.length))
                .sum(),
            _ => 0,
        }
    }
}

impl From<Op> for OpRow {
    fn from(op: Op) -> Self {
        match op {
            Op::PutObject { id, object } => Self::PutObject {
                id: id.0,
                object: object.into(),
            },
            Op::DropObject { id } => Self::DropObject { id: id.0 },
            Op::PutEntry { dir, name, child } => Self::PutEntry {
                dir: dir.0,
                name,
                child: child.0,
            },
            Op::DropEntry { dir, name } => Self::DropEntry { dir: dir.0, name },
            Op::PutAttribute { id, name, value } => Self::PutAttribute {
                id: id.0,
                name,
                value,
            },
            Op::DropAttribute { id, name } => Self::DropAttribute { id: id.0, name },
            Op::PutBlocks { id, segment, blocks } => {
                let blocks = blocks
                    .into_iter()
                    .map(|(position, block)| (position, block.map(Into::into)));
                Self::PutBlocks {
                    id: id.0,
                    segment,
                    blocks: blocks.collect(),
                }
            }
        }
    }
}

impl TryFrom<OpRow> for Op {
    type Error = CatalogError;

    fn try_from(row: OpRow) -> Result<Self, CatalogError> {
        Ok(match row {
            OpRow::PutObject { id, object } => Self::PutObject {
                id: ObjectId(id),
                object: object.try_into()?,
            },
            OpRow::DropObject { id } => Self::DropObject { id: ObjectId(id) },
            OpRow::PutEntry { dir, name, child } => Self::PutEntry {
                dir: ObjectId(dir),
                name,
                child: ObjectId(child),
            },
            OpRow::DropEntry { dir, name } => Self::DropEntry {
                dir: ObjectId(dir),
                name,
            },
            OpRow::PutAttribute { id, name, value } => Self::PutAttribute {
                id: ObjectId(id),
                name,
                value,
            },
            OpRow::DropAttribute { id, name } => Self::DropAttribute {
                id: ObjectId(id),
                name,
            },
            OpRow::PutBlocks { id, segment, blocks } => {
                let blocks = blocks
                    .into_iter()
                    .map(|(position, block)| (position, block.map(Into::into)));
                Self::PutBlocks {
                    id: ObjectId(id),
                    segment,
                    blocks: blocks.collect(),
                }
            }
        })
    }
}

impl From<Object> for ObjectRow {
    fn from(o: Object) -> Self {
        let pair = |time: Time| (time.seconds, time.nanoseconds);
        Self {
            kind: o.kind.into(),
            mode: o.mode,
            uid: o.uid,
            gid: o.gid,
            size: o.size,
            mtime: pair(o.mtime),
            atime: pair(o.atime),
            btime: pair(o.btime),
            block_size: o.layout.block_size,
            segment_blocks: o.layout.segment_blocks,
            hash: match o.layout.hash {
                HashAlgorithm::Blake3 => AlgorithmRow::Blake3,
                HashAlgorithm::Sha256 => AlgorithmRow::Sha256,
                HashAlgorithm::Sha1 => AlgorithmRow::Sha1,
            },
            compressed: o.layout.compression == Compression::Zstd,
        }
    }
}

impl TryFrom<ObjectRow> for Object {
    type Error = CatalogError;

    fn try_from(row: ObjectRow) -> Result<Self, CatalogError> {
        let layout = Layout {
            block_size: row.block_size,
            segment_blocks: row.segment_blocks,
            hash: match row.hash {
                AlgorithmRow::Blake3 => HashAlgorithm::Blake3,
                AlgorithmRow::Sha256 => HashAlgorithm::Sha256,
                AlgorithmRow::Sha1 => HashAlgorithm::Sha1,
            },
            compression: if row.compressed {
                Compression::Zstd
            } else {
                Compression::None
            },
        };
        layout
            .validate()
            .map_err(|e| CatalogError::Damaged(format!("change row: {e}")))?;
        let time = |(seconds, nanoseconds)| {
            Time::new(seconds, nanoseconds)
                .ok_or_else(|| CatalogError::Damaged("change row: impossible time".to_owned()))
        };
        Ok(Self {
            kind: row.kind.into(),
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            size: row.size,
            mtime: time(row.mtime)?,
            atime: time(row.atime)?,
            btime: time(row.btime)?,
            layout,
        })
    }
}

impl From<Kind> for KindRow {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Symlink { target } => Self::Symlink { target },
            Kind::Fifo => Self::Fifo,
            Kind::Socket => Self::Socket,
            Kind::CharDevice { major, minor } => Self::CharDevice { major, minor },
            Kind::BlockDevice { major, minor } => Self::BlockDevice { major, minor },
        }
    }
}

impl From<KindRow> for Kind {
    fn from(kind: KindRow) -> Self {
        match kind {
            KindRow::File => Self::File,
            KindRow::Directory => Self::Directory,
            KindRow::Symlink { target } => Self::Symlink { target },
            KindRow::Fifo => Self::Fifo,
            KindRow::Socket => Self::Socket,
            KindRow::CharDevice { major, minor } => Self::CharDevice { major, minor },
            KindRow::BlockDevice { major, minor } => Self::BlockDevice { major, minor },
        }
    }
}

impl From<BlockRef> for BlockRow {
    fn from(block: BlockRef) -> Self {
        let hash = match block.hash {
            Hash::Blake3(_) => HashRow::Key,
            Hash::Sha256(bytes) => HashRow::Sha256(bytes),
            Hash::Sha1(bytes) => HashRow::Sha1(bytes),
        };
        Self {
            key: block.key.0,
            length: block.length,
            hash,
        }
    }
}

impl From<BlockRow> for BlockRef {
    fn from(row: BlockRow) -> Self {
        let hash = match row.hash {
            HashRow::Key => Hash::Blake3(row.key),
            HashRow::Sha256(bytes) => Hash::Sha256(bytes),
            HashRow::Sha1(bytes) => Hash::Sha1(bytes),
        };
        Self {
            key: BlockKey(row.key),
            length: row.length,
            hash,
        }
    }
}
