//! Bytes of a commit log's file: its header, the records' headers. Drawn in `docs/formats/commits.md`.

use restfs_lib::checksum::crc32c;

pub(super) const FILE_HEADER: usize = 40;
pub(super) const RECORD_HEADER: usize = 32;
/// Longest payload of a record, packed or not: a part is left at [`PART`] bytes, and the row that went over it has at
/// most a key and a value.
pub(super) const MAX_PAYLOAD: usize = 4 * 1024 * 1024;
/// Bytes of rows after which a transaction goes on in another record: what is held in memory to read it.
pub(super) const PART: usize = 1024 * 1024;

const RECORD_MAGIC: [u8; 4] = *b"mTxn";
const FILE_VERSION: u32 = 1;

const LAST_PART: u8 = 0;
const MORE_PARTS: u8 = 1;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Random, made with a log: a metadata store and its log know each other by it.
pub(super) type LogId = [u8; 16];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Transactions, the first one's number in the file's header.
    Log,
    /// All rows as of a transaction, as one transaction of that number.
    Image,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) kind: FileKind,
    pub(super) log: LogId,
    pub(super) sequence: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileHeaderError {
    Damaged(&'static str),
    /// Written by a newer version.
    Version(u32),
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER] {
        let mut bytes = [0; FILE_HEADER];
        bytes[..8].copy_from_slice(magic(self.kind));
        bytes[8..12].copy_from_slice(&FILE_VERSION.to_be_bytes());
        bytes[12..28].copy_from_slice(&self.log);
        bytes[28..36].copy_from_slice(&self.sequence.to_be_bytes());
        let crc = crc32c(&[&bytes[..36]]);
        bytes[36..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FILE_HEADER]) -> Result<Self, FileHeaderError> {
        let kind = [FileKind::Log, FileKind::Image]
            .into_iter()
            .find(|kind| bytes[..8] == *magic(*kind))
            .ok_or(FileHeaderError::Damaged("no magic number in the file header"))?;
        if be32(bytes, 36) != crc32c(&[&bytes[..36]]) {
            return Err(FileHeaderError::Damaged("wrong checksum of the file header"));
        }
        match be32(bytes, 8) {
            FILE_VERSION => {}
            version => return Err(FileHeaderError::Version(version)),
        }
        let mut log = LogId::default();
        log.copy_from_slice(&bytes[12..28]);
        Ok(Self {
            kind,
            log,
            sequence: be64(bytes, 28),
        })
    }
}

fn magic(kind: FileKind) -> &'static [u8; 8] {
    match kind {
        FileKind::Log => b"RestFScl",
        FileKind::Image => b"RestFSci",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Of its transaction.
    pub(super) last: bool,
    pub(super) packed: bool,
    pub(super) plain: u32,
    pub(super) stored: u32,
    pub(super) sequence: u64,
    pub(super) payload_crc: u32,
}

impl RecordHeader {
    /// The header's CRC also covers where the record stands.
    pub(super) fn encode(&self, file: &FileHeader, offset: u64) -> [u8; RECORD_HEADER] {
        let mut bytes = [0; RECORD_HEADER];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4] = if self.last { LAST_PART } else { MORE_PARTS };
        bytes[5] = if self.packed { ZSTD } else { PLAIN };
        bytes[8..12].copy_from_slice(&self.plain.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.stored.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.payload_crc.to_be_bytes());
        let crc = header_crc(&bytes, file, offset);
        bytes[28..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None`: no record starts here.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER], file: &FileHeader, offset: u64) -> Option<Self> {
        if bytes[..4] != RECORD_MAGIC || be32(bytes, 28) != header_crc(bytes, file, offset) {
            return None;
        }
        let header = Self {
            last: match bytes[4] {
                LAST_PART => true,
                MORE_PARTS => false,
                _ => return None,
            },
            packed: match bytes[5] {
                PLAIN => false,
                ZSTD => true,
                _ => return None,
            },
            plain: be32(bytes, 8),
            stored: be32(bytes, 12),
            sequence: be64(bytes, 16),
            payload_crc: be32(bytes, 24),
        };
        let most = MAX_PAYLOAD as u32;
        (header.stored <= most && header.plain <= most).then_some(header)
    }

    pub(super) fn record_length(&self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.stored)
    }
}

fn header_crc(bytes: &[u8; RECORD_HEADER], file: &FileHeader, offset: u64) -> u32 {
    let (sequence, offset) = (file.sequence.to_be_bytes(), offset.to_be_bytes());
    crc32c(&[&bytes[..28], &file.log, &sequence, &offset])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileHeader = FileHeader {
        kind: FileKind::Log,
        log: [0xAB; 16],
        sequence: 7,
    };

    fn record() -> RecordHeader {
        RecordHeader {
            last: false,
            packed: true,
            plain: 0x0102,
            stored: 0x0103,
            sequence: 9,
            payload_crc: 0xDEAD_BEEF,
        }
    }

    /// The format is on disks: these bytes never change.
    #[test]
    fn golden_bytes() {
        assert_eq!(
            hex::encode(FILE.encode()),
            format!(
                "526573744653636c00000001{}000000000000000784064636",
                "ab".repeat(16)
            )
        );
        let image = FileHeader {
            kind: FileKind::Image,
            ..FILE
        };
        assert_eq!(hex::encode(&image.encode()[..8]), "5265737446536369");
        assert_eq!(
            hex::encode(record().encode(&FILE, 40)),
            "6d54786e0101000000000102000001030000000000000009deadbeef0c0d5056"
        );
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_seen() {
        let good = record().encode(&FILE, 40);
        assert_eq!(RecordHeader::decode(&good, &FILE, 40), Some(record()));
        for bit in 0..RECORD_HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bad, &FILE, 40), None, "bit {bit}");
        }
        let good = FILE.encode();
        assert_eq!(FileHeader::decode(&good), Ok(FILE));
        for bit in 0..FILE_HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_one_only_at_its_place_in_its_file() {
        let bytes = record().encode(&FILE, 40);
        assert_eq!(RecordHeader::decode(&bytes, &FILE, 41), None);
        for other in [
            FileHeader { sequence: 8, ..FILE },
            FileHeader { log: [0; 16], ..FILE },
        ] {
            assert_eq!(RecordHeader::decode(&bytes, &other, 40), None);
        }
    }

    #[test]
    fn a_newer_version_is_named_not_called_damage() {
        let mut bytes = FILE.encode();
        bytes[11] = 2;
        let crc = crc32c(&[&bytes[..36]]);
        bytes[36..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(FileHeader::decode(&bytes), Err(FileHeaderError::Version(2)));
    }
}
