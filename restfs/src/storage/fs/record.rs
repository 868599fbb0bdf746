//! Bytes of a pack file: its header, the records' headers. Drawn in `docs/formats/packs.md`.

use restfs_lib::checksum::crc32c;
use restfs_lib::model::BlockKey;

pub(super) const FILE_HEADER: usize = 24;
pub(super) const RECORD_HEADER: usize = 56;
/// Starts every record: what the search for the next record after a damaged place looks for.
pub(super) const RECORD_MAGIC: [u8; 4] = *b"rBlk";
const FILE_MAGIC: [u8; 8] = *b"RestFSpk";
const FILE_VERSION: u32 = 1;

/// Longest payload a record may have. zstd output is kept only where it is smaller than the block.
pub(super) const MAX_PAYLOAD: usize = crate::storage::MAX_BLOCK;

/// What a record is. Kinds that a reader does not know are skipped by their length.
pub(super) const KIND_BLOCK: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Zstd,
}

impl Encoding {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    /// As on disk: a number that this version does not know is reported when the record is read.
    pub(super) encoding: u8,
    pub(super) plain: u32,
    pub(super) stored: u32,
    pub(super) key: BlockKey,
    pub(super) payload_crc: u32,
}

impl RecordHeader {
    /// The header's CRC also covers where the record stands, so a copy of a record inside some file's content is
    /// never taken for one.
    pub(super) fn encode(&self, pack: u64, offset: u64) -> [u8; RECORD_HEADER] {
        let mut bytes = [0; RECORD_HEADER];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4] = self.kind;
        bytes[5] = self.encoding;
        bytes[8..12].copy_from_slice(&self.plain.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.stored.to_be_bytes());
        bytes[16..48].copy_from_slice(&self.key.0);
        bytes[48..52].copy_from_slice(&self.payload_crc.to_be_bytes());
        let crc = header_crc(&bytes, pack, offset);
        bytes[52..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None`: no record starts here.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER], pack: u64, offset: u64) -> Option<Self> {
        if bytes[..4] != RECORD_MAGIC || be32(bytes, 52) != header_crc(bytes, pack, offset) {
            return None;
        }
        let mut key = [0; 32];
        key.copy_from_slice(&bytes[16..48]);
        let header = Self {
            kind: bytes[4],
            encoding: bytes[5],
            plain: be32(bytes, 8),
            stored: be32(bytes, 12),
            key: BlockKey(key),
            payload_crc: be32(bytes, 48),
        };
        (header.stored as usize <= MAX_PAYLOAD).then_some(header)
    }

    pub(super) fn record_length(&self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.stored)
    }
}

fn header_crc(bytes: &[u8; RECORD_HEADER], pack: u64, offset: u64) -> u32 {
    crc32c(&[&bytes[..52], &pack.to_be_bytes(), &offset.to_be_bytes()])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileHeaderError {
    Damaged(&'static str),
    /// Written by a newer version.
    Version(u32),
}

pub(super) fn encode_file_header(pack: u64) -> [u8; FILE_HEADER] {
    let mut bytes = [0; FILE_HEADER];
    bytes[..8].copy_from_slice(&FILE_MAGIC);
    bytes[8..12].copy_from_slice(&FILE_VERSION.to_be_bytes());
    bytes[12..20].copy_from_slice(&pack.to_be_bytes());
    let crc = crc32c(&[&bytes[..20]]);
    bytes[20..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

pub(super) fn check_file_header(bytes: &[u8; FILE_HEADER], pack: u64) -> Result<(), FileHeaderError> {
    if bytes[..8] != FILE_MAGIC {
        return Err(FileHeaderError::Damaged("no magic number in the file header"));
    }
    if be32(bytes, 20) != crc32c(&[&bytes[..20]]) {
        return Err(FileHeaderError::Damaged("wrong checksum of the file header"));
    }
    match be32(bytes, 8) {
        FILE_VERSION if bytes[12..20] == pack.to_be_bytes() => Ok(()),
        FILE_VERSION => Err(FileHeaderError::Damaged("the file header names another pack")),
        version => Err(FileHeaderError::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        RecordHeader {
            kind: KIND_BLOCK,
            encoding: 1,
            plain: 0x0001_0000,
            stored: 0x0203,
            key: BlockKey([0xAB; 32]),
            payload_crc: 0xDEAD_BEEF,
        }
    }

    /// The format is on disks: these bytes never change.
    #[test]
    fn golden_bytes() {
        assert_eq!(
            hex::encode(encode_file_header(7)),
            "526573744653706b000000010000000000000007fa8ce932"
        );
        assert_eq!(
            hex::encode(header().encode(7, 24)),
            format!(
                "72426c6b010100000001000000000203{}deadbeef{}",
                "ab".repeat(32),
                "7a3b70e9"
            )
        );
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_seen() {
        let good = header().encode(7, 24);
        assert_eq!(RecordHeader::decode(&good, 7, 24), Some(header()));
        for bit in 0..RECORD_HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bad, 7, 24), None, "bit {bit}");
        }
        let good = encode_file_header(7);
        assert_eq!(check_file_header(&good, 7), Ok(()));
        for bit in 0..FILE_HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check_file_header(&bad, 7).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_copied_to_another_place_is_not_a_record() {
        let bytes = header().encode(7, 24);
        assert_eq!(RecordHeader::decode(&bytes, 7, 25), None);
        assert_eq!(RecordHeader::decode(&bytes, 8, 24), None);
    }

    #[test]
    fn a_newer_version_is_named_not_called_damage() {
        let mut bytes = encode_file_header(7);
        bytes[11] = 2;
        let crc = crc32c(&[&bytes[..20]]);
        bytes[20..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(check_file_header(&bytes, 7), Err(FileHeaderError::Version(2)));
    }
}
