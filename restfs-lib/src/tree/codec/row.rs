//! Objects, attributes, entries, segments.

use super::{VERSION, damaged, decode, encode, versioned};
use crate::model::{
    BlockKey, BlockRef, Compression, Hash, HashAlgorithm, Kind, Layout, MAX_BLOCK_SIZE, MAX_SEGMENT_BLOCKS,
    Object, ObjectId, Segment, Time,
};
use crate::tree::TreeError;
use crate::tree::valid::check_object;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct ObjectRow {
    kind: KindRow,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: TimeRow,
    atime: TimeRow,
    btime: TimeRow,
    layout: LayoutRow,
}

/// Variants are numbered in this order.
#[derive(Serialize, Deserialize)]
enum KindRow {
    File,
    Directory,
    Symlink(#[serde(with = "serde_bytes")] Vec<u8>),
    Fifo,
    Socket,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

#[derive(Serialize, Deserialize)]
struct TimeRow(i64, u32);

#[derive(Serialize, Deserialize)]
pub(super) struct LayoutRow {
    block_size: u32,
    segment_blocks: u32,
    hash: AlgorithmRow,
    compression: CompressionRow,
}

#[derive(Serialize, Deserialize)]
enum AlgorithmRow {
    Blake3,
    Sha256,
    Sha1,
}

#[derive(Serialize, Deserialize)]
enum CompressionRow {
    None,
    Zstd,
}

#[derive(Serialize, Deserialize)]
struct PlacedBlockRow {
    position: u32,
    block: BlockRow,
    serial: u64,
}

#[derive(Serialize, Deserialize)]
struct BlockRow {
    key: [u8; 32],
    length: u32,
    hash: HashRow,
}

#[derive(Serialize, Deserialize)]
enum HashRow {
    /// BLAKE3: the same bytes as the key.
    Key,
    Sha256([u8; 32]),
    Sha1([u8; 20]),
}

pub(in crate::tree) fn encode_object(object: &Object) -> Vec<u8> {
    encode(&ObjectRow::from(object))
}

/// Of an object that could be put: who reads it divides by its block size.
pub(in crate::tree) fn decode_object(bytes: &[u8]) -> Result<Object, TreeError> {
    let what = "an object's row";
    let object = decode::<ObjectRow>(bytes, what).map(Object::from)?;
    check_object(&object).map_err(|why| damaged(what, &format!("says what none can be: {why}")))?;
    Ok(object)
}

/// The value as it is, behind the version byte.
pub(in crate::tree) fn encode_attribute(value: &[u8]) -> Vec<u8> {
    [&[VERSION], value].concat()
}

pub(in crate::tree) fn decode_attribute(bytes: &[u8]) -> Result<&[u8], TreeError> {
    versioned(bytes, "an attribute's row")
}

pub(in crate::tree) fn encode_child(child: ObjectId) -> Vec<u8> {
    encode(&child.0)
}

pub(in crate::tree) fn decode_child(bytes: &[u8]) -> Result<ObjectId, TreeError> {
    decode(bytes, "an entry's row").map(ObjectId)
}

pub(in crate::tree) fn encode_segment(segment: &Segment) -> Vec<u8> {
    let blocks = segment
        .blocks
        .iter()
        .map(|(position, block, serial)| PlacedBlockRow {
            position: *position,
            block: BlockRow::from(block),
            serial: *serial,
        });
    encode(&blocks.collect::<Vec<_>>())
}

pub(in crate::tree) fn decode_segment(bytes: &[u8]) -> Result<Segment, TreeError> {
    let what = "a segment's row";
    let rows: Vec<PlacedBlockRow> = decode(bytes, what)?;
    if !rows.is_sorted_by(|a, b| a.position < b.position) {
        return Err(damaged(what, "is out of order"));
    }
    let lengths = 1..=MAX_BLOCK_SIZE;
    let possible =
        |row: &PlacedBlockRow| row.position < MAX_SEGMENT_BLOCKS && lengths.contains(&row.block.length);
    if !rows.iter().all(possible) {
        return Err(damaged(what, "has a block that none can have"));
    }
    let blocks = rows
        .into_iter()
        .map(|row| (row.position, BlockRef::from(row.block), row.serial));
    Ok(Segment {
        blocks: blocks.collect(),
    })
}

impl From<&Object> for ObjectRow {
    fn from(object: &Object) -> Self {
        Self {
            kind: KindRow::from(&object.kind),
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

impl From<ObjectRow> for Object {
    fn from(row: ObjectRow) -> Self {
        Self {
            kind: row.kind.into(),
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            size: row.size,
            mtime: row.mtime.into(),
            atime: row.atime.into(),
            btime: row.btime.into(),
            layout: row.layout.into(),
        }
    }
}

impl From<&Kind> for KindRow {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Symlink { target } => Self::Symlink(target.clone()),
            Kind::Fifo => Self::Fifo,
            Kind::Socket => Self::Socket,
            Kind::CharDevice { major, minor } => Self::CharDevice(*major, *minor),
            Kind::BlockDevice { major, minor } => Self::BlockDevice(*major, *minor),
        }
    }
}

impl From<KindRow> for Kind {
    fn from(row: KindRow) -> Self {
        match row {
            KindRow::File => Self::File,
            KindRow::Directory => Self::Directory,
            KindRow::Symlink(target) => Self::Symlink { target },
            KindRow::Fifo => Self::Fifo,
            KindRow::Socket => Self::Socket,
            KindRow::CharDevice(major, minor) => Self::CharDevice { major, minor },
            KindRow::BlockDevice(major, minor) => Self::BlockDevice { major, minor },
        }
    }
}

impl From<Time> for TimeRow {
    fn from(time: Time) -> Self {
        Self(time.seconds, time.nanoseconds)
    }
}

impl From<TimeRow> for Time {
    fn from(TimeRow(seconds, nanoseconds): TimeRow) -> Self {
        Self { seconds, nanoseconds }
    }
}

impl From<Layout> for LayoutRow {
    fn from(layout: Layout) -> Self {
        Self {
            block_size: layout.block_size,
            segment_blocks: layout.segment_blocks,
            hash: match layout.hash {
                HashAlgorithm::Blake3 => AlgorithmRow::Blake3,
                HashAlgorithm::Sha256 => AlgorithmRow::Sha256,
                HashAlgorithm::Sha1 => AlgorithmRow::Sha1,
            },
            compression: match layout.compression {
                Compression::None => CompressionRow::None,
                Compression::Zstd => CompressionRow::Zstd,
            },
        }
    }
}

impl From<LayoutRow> for Layout {
    fn from(row: LayoutRow) -> Self {
        Self {
            block_size: row.block_size,
            segment_blocks: row.segment_blocks,
            hash: match row.hash {
                AlgorithmRow::Blake3 => HashAlgorithm::Blake3,
                AlgorithmRow::Sha256 => HashAlgorithm::Sha256,
                AlgorithmRow::Sha1 => HashAlgorithm::Sha1,
            },
            compression: match row.compression {
                CompressionRow::None => Compression::None,
                CompressionRow::Zstd => Compression::Zstd,
            },
        }
    }
}

impl From<&BlockRef> for BlockRow {
    fn from(block: &BlockRef) -> Self {
        Self {
            key: block.key.0,
            length: block.length,
            hash: match block.hash {
                Hash::Blake3(_) => HashRow::Key,
                Hash::Sha256(bytes) => HashRow::Sha256(bytes),
                Hash::Sha1(bytes) => HashRow::Sha1(bytes),
            },
        }
    }
}

impl From<BlockRow> for BlockRef {
    fn from(row: BlockRow) -> Self {
        Self {
            key: BlockKey(row.key),
            length: row.length,
            hash: match row.hash {
                HashRow::Key => Hash::Blake3(row.key),
                HashRow::Sha256(bytes) => Hash::Sha256(bytes),
                HashRow::Sha1(bytes) => Hash::Sha1(bytes),
            },
        }
    }
}
