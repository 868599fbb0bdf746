//! Reads one block and checks it from the outside in: header, payload, content.

use super::index::Location;
use super::pack::Packs;
use super::record::{Encoding, RECORD_HEADER, RecordHeader};
use crate::storage::MAX_BLOCK;
use bytes::Bytes;
use restfs_lib::checksum::crc32c;
use restfs_lib::content;
use restfs_lib::model::BlockKey;
use std::io;

pub(super) enum ReadError {
    /// Reading again will not help.
    Damaged(String),
    Io(io::Error),
}

/// `EIO`: the medium no longer has the bytes.
impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        let medium = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("the pack file ends before it".to_owned()),
            _ if medium => Self::Damaged(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

pub(super) fn read(packs: &Packs, key: BlockKey, at: Location) -> Result<Bytes, ReadError> {
    let file = packs.for_reading(at.pack).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => ReadError::Damaged("the pack file is gone".to_owned()),
        _ => ReadError::Io(e),
    })?;
    let mut bytes = vec![0; RECORD_HEADER + at.stored as usize];
    file.read_exact_at(&mut bytes, at.offset)?;
    decode_record(key, at, bytes)
}

pub(super) fn decode_record(key: BlockKey, at: Location, mut bytes: Vec<u8>) -> Result<Bytes, ReadError> {
    let damaged = |reason: &str| ReadError::Damaged(reason.to_owned());
    let header = bytes
        .first_chunk::<RECORD_HEADER>()
        .and_then(|header| RecordHeader::decode(header, at.pack, at.offset))
        .ok_or_else(|| damaged("its header does not match its checksum"))?;
    if header.key != key || header.stored != at.stored || header.plain != at.plain {
        return Err(damaged("another record is in its place; rebuild the index"));
    }
    let payload = bytes.split_off(RECORD_HEADER);
    if crc32c(&[&payload]) != header.payload_crc {
        return Err(damaged("its payload does not match its checksum"));
    }
    let content = match Encoding::from_number(header.encoding) {
        Some(Encoding::Plain) => payload,
        Some(Encoding::Zstd) if header.plain as usize <= MAX_BLOCK => {
            content::decompress(&payload, header.plain as usize)
                .map_err(|e| ReadError::Damaged(e.to_string()))?
        }
        Some(Encoding::Zstd) => return Err(damaged("it is longer than a block can be")),
        None => return Err(damaged("its encoding is unknown to this version")),
    };
    if !content::verify(&key, &content) {
        return Err(damaged("its content does not match its key"));
    }
    Ok(Bytes::from(content))
}
