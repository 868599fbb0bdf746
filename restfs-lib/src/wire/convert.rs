//! The one place where wire values become model values, checked, and back.

use super::bytes::{Content, Hex, Name};
use super::check;
use super::error::RpcError;
use super::values as wire;
use crate::model;

type Checked<T> = Result<T, RpcError>;

impl From<model::Time> for wire::Time {
    fn from(time: model::Time) -> Self {
        Self(time.seconds, time.nanoseconds)
    }
}

impl TryFrom<wire::Time> for model::Time {
    type Error = RpcError;

    fn try_from(wire::Time(seconds, nanoseconds): wire::Time) -> Checked<Self> {
        check::below(nanoseconds.into(), 1_000_000_000, "nanoseconds of a time")?;
        Ok(Self { seconds, nanoseconds })
    }
}

impl From<model::Kind> for wire::Kind {
    fn from(kind: model::Kind) -> Self {
        match kind {
            model::Kind::File => Self::File,
            model::Kind::Directory => Self::Directory,
            model::Kind::Symlink { target } => Self::Symlink { target: Name(target) },
            model::Kind::Fifo => Self::Fifo,
            model::Kind::Socket => Self::Socket,
            model::Kind::CharDevice { major, minor } => Self::CharDevice { major, minor },
            model::Kind::BlockDevice { major, minor } => Self::BlockDevice { major, minor },
        }
    }
}

impl TryFrom<wire::Kind> for model::Kind {
    type Error = RpcError;

    fn try_from(kind: wire::Kind) -> Checked<Self> {
        Ok(match kind {
            wire::Kind::File => Self::File,
            wire::Kind::Directory => Self::Directory,
            wire::Kind::Symlink { target } => Self::Symlink {
                target: check::link_target(target)?,
            },
            wire::Kind::Fifo => Self::Fifo,
            wire::Kind::Socket => Self::Socket,
            wire::Kind::CharDevice { major, minor } => Self::CharDevice { major, minor },
            wire::Kind::BlockDevice { major, minor } => Self::BlockDevice { major, minor },
        })
    }
}

impl From<model::HashAlgorithm> for wire::HashAlgorithm {
    fn from(hash: model::HashAlgorithm) -> Self {
        match hash {
            model::HashAlgorithm::Blake3 => Self::Blake3,
            model::HashAlgorithm::Sha256 => Self::Sha256,
            model::HashAlgorithm::Sha1 => Self::Sha1,
        }
    }
}

impl From<wire::HashAlgorithm> for model::HashAlgorithm {
    fn from(hash: wire::HashAlgorithm) -> Self {
        match hash {
            wire::HashAlgorithm::Blake3 => Self::Blake3,
            wire::HashAlgorithm::Sha256 => Self::Sha256,
            wire::HashAlgorithm::Sha1 => Self::Sha1,
        }
    }
}

impl From<model::Compression> for wire::Compression {
    fn from(compression: model::Compression) -> Self {
        match compression {
            model::Compression::None => Self::None,
            model::Compression::Zstd => Self::Zstd,
        }
    }
}

impl From<wire::Compression> for model::Compression {
    fn from(compression: wire::Compression) -> Self {
        match compression {
            wire::Compression::None => Self::None,
            wire::Compression::Zstd => Self::Zstd,
        }
    }
}

impl From<model::Layout> for wire::Layout {
    fn from(layout: model::Layout) -> Self {
        Self {
            block_size: layout.block_size,
            segment_blocks: layout.segment_blocks,
            hash: layout.hash.into(),
            compression: layout.compression.into(),
        }
    }
}

impl TryFrom<wire::Layout> for model::Layout {
    type Error = RpcError;

    fn try_from(layout: wire::Layout) -> Checked<Self> {
        check::layout(layout.block_size, layout.segment_blocks)?;
        Ok(Self {
            block_size: layout.block_size,
            segment_blocks: layout.segment_blocks,
            hash: layout.hash.into(),
            compression: layout.compression.into(),
        })
    }
}

impl From<model::Object> for wire::Object {
    fn from(object: model::Object) -> Self {
        Self {
            kind: object.kind.into(),
            mode: object.mode,
            uid: object.uid,
            gid: object.gid,
            size: object.size,
            mtime: object.mtime.into(),
            atime: object.atime.into(),
            btime: object.btime.into(),
            layout: object.layout.into(),
        }
    }
}

impl TryFrom<wire::Object> for model::Object {
    type Error = RpcError;

    fn try_from(object: wire::Object) -> Checked<Self> {
        let kind = model::Kind::try_from(object.kind)?;
        check::mode(object.mode)?;
        check::integer(object.size, "size")?;
        if object.size > 0 && kind != model::Kind::File {
            return Err(RpcError::invalid_params("`size` is 0 for everything but files"));
        }
        Ok(Self {
            kind,
            mode: object.mode,
            uid: object.uid,
            gid: object.gid,
            size: object.size,
            mtime: object.mtime.try_into()?,
            atime: object.atime.try_into()?,
            btime: object.btime.try_into()?,
            layout: object.layout.try_into()?,
        })
    }
}

impl From<model::BlockKey> for Hex<32> {
    fn from(key: model::BlockKey) -> Self {
        Self(key.0)
    }
}

impl From<Hex<32>> for model::BlockKey {
    fn from(key: Hex<32>) -> Self {
        Self(key.0)
    }
}

impl From<model::Digest> for Hex<32> {
    fn from(digest: model::Digest) -> Self {
        Self(digest.to_bytes())
    }
}

impl From<Hex<32>> for model::Digest {
    fn from(bytes: Hex<32>) -> Self {
        Self::from_bytes(bytes.0)
    }
}

impl wire::BlockAt {
    fn new(at: u32, block: Option<model::BlockRef>, serial: Option<u64>) -> Self {
        Self {
            at,
            key: block.map(|b| b.key.into()),
            length: block.map_or(0, |b| b.length),
            hash: block.and_then(|b| match b.hash {
                model::Hash::Blake3(_) => None,
                model::Hash::Sha256(hash) => Some(wire::BlockHash::Sha256(Hex(hash))),
                model::Hash::Sha1(hash) => Some(wire::BlockHash::Sha1(Hex(hash))),
            }),
            serial,
        }
    }

    fn block(&self) -> Checked<Option<model::BlockRef>> {
        check::below(
            self.at.into(),
            super::limits::MAX_SEGMENT_BLOCKS.into(),
            "position in a segment",
        )?;
        let Some(key) = self.key else {
            if self.length != 0 || self.hash.is_some() {
                return Err(RpcError::invalid_params("a hole has neither `length` nor `hash`"));
            }
            return Ok(None);
        };
        check::block_length(self.length)?;
        Ok(Some(model::BlockRef {
            key: key.into(),
            length: self.length,
            hash: match self.hash {
                None => model::Hash::Blake3(key.0),
                Some(wire::BlockHash::Sha256(hash)) => model::Hash::Sha256(hash.0),
                Some(wire::BlockHash::Sha1(hash)) => model::Hash::Sha1(hash.0),
            },
        }))
    }
}

pub fn segment_to_wire(segment: model::Segment) -> Vec<wire::BlockAt> {
    let block = |(at, block, serial)| wire::BlockAt::new(at, Some(block), Some(serial));
    segment.blocks.into_iter().map(block).collect()
}

pub fn segment_from_wire(blocks: &[wire::BlockAt]) -> Checked<model::Segment> {
    check::ascending(blocks)?;
    let mut segment = model::Segment::default();
    for block in blocks {
        let (Some(content), Some(serial)) = (block.block()?, block.serial) else {
            return Err(RpcError::invalid_params(
                "a block of a segment has `key` and `serial`",
            ));
        };
        segment.blocks.push((block.at, content, serial));
    }
    Ok(segment)
}

impl From<model::Op> for wire::Op {
    fn from(op: model::Op) -> Self {
        match op {
            model::Op::PutObject { id, object } => Self::PutObject {
                id: id.0,
                object: object.into(),
            },
            model::Op::DropObject { id } => Self::DropObject { id: id.0 },
            model::Op::PutEntry { dir, name, child } => Self::PutEntry {
                dir: dir.0,
                name: Name(name),
                child: child.0,
            },
            model::Op::DropEntry { dir, name } => Self::DropEntry {
                dir: dir.0,
                name: Name(name),
            },
            model::Op::PutAttribute { id, name, value } => Self::PutAttribute {
                id: id.0,
                name: Name(name),
                value: Content(value.into()),
            },
            model::Op::DropAttribute { id, name } => Self::DropAttribute {
                id: id.0,
                name: Name(name),
            },
            model::Op::PutBlocks { id, segment, blocks } => Self::PutBlocks {
                id: id.0,
                segment,
                blocks: blocks
                    .into_iter()
                    .map(|(at, block)| wire::BlockAt::new(at, block, None))
                    .collect(),
            },
        }
    }
}

impl TryFrom<wire::Op> for model::Op {
    type Error = RpcError;

    fn try_from(op: wire::Op) -> Checked<Self> {
        Ok(match op {
            wire::Op::PutObject { id, object } => Self::PutObject {
                id: check::object_id(id)?,
                object: object.try_into()?,
            },
            wire::Op::DropObject { id } => Self::DropObject {
                id: check::object_id(id)?,
            },
            wire::Op::PutEntry { dir, name, child } => Self::PutEntry {
                dir: check::object_id(dir)?,
                name: check::entry_name(name)?,
                child: check::object_id(child)?,
            },
            wire::Op::DropEntry { dir, name } => Self::DropEntry {
                dir: check::object_id(dir)?,
                name: check::entry_name(name)?,
            },
            wire::Op::PutAttribute { id, name, value } => Self::PutAttribute {
                id: check::object_id(id)?,
                name: check::attribute_name(name)?,
                value: check::attribute_value(value)?,
            },
            wire::Op::DropAttribute { id, name } => Self::DropAttribute {
                id: check::object_id(id)?,
                name: check::attribute_name(name)?,
            },
            wire::Op::PutBlocks { id, segment, blocks } => Self::PutBlocks {
                id: check::object_id(id)?,
                segment: check::integer(segment, "segment")?,
                blocks: blocks_from_wire(&blocks)?,
            },
        })
    }
}

fn blocks_from_wire(blocks: &[wire::BlockAt]) -> Checked<Vec<(u32, Option<model::BlockRef>)>> {
    check::ascending(blocks)?;
    if blocks.iter().any(|block| block.serial.is_some()) {
        return Err(RpcError::invalid_params(
            "`serial` of a block is given by the server",
        ));
    }
    blocks
        .iter()
        .map(|block| Ok((block.at, block.block()?)))
        .collect()
}

impl From<model::RowKey> for wire::RowKey {
    fn from(row: model::RowKey) -> Self {
        match row {
            model::RowKey::Object { id } => Self::Object { id: id.0 },
            model::RowKey::Attribute { id, name } => Self::Attribute {
                id: id.0,
                name: Name(name),
            },
            model::RowKey::Entry { dir, name } => Self::Entry {
                dir: dir.0,
                name: Name(name),
            },
            model::RowKey::Segment { id, segment } => Self::Segment { id: id.0, segment },
        }
    }
}

impl TryFrom<wire::RowKey> for model::RowKey {
    type Error = RpcError;

    fn try_from(row: wire::RowKey) -> Checked<Self> {
        Ok(match row {
            wire::RowKey::Object { id } => Self::Object {
                id: check::object_id(id)?,
            },
            wire::RowKey::Attribute { id, name } => Self::Attribute {
                id: check::object_id(id)?,
                name: check::attribute_name(name)?,
            },
            wire::RowKey::Entry { dir, name } => Self::Entry {
                dir: check::object_id(dir)?,
                name: check::entry_name(name)?,
            },
            wire::RowKey::Segment { id, segment } => Self::Segment {
                id: check::object_id(id)?,
                segment: check::integer(segment, "segment")?,
            },
        })
    }
}
