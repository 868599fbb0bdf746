//! Files of the commit log, for the fuzz targets.

use super::files::Known;
use super::reader::{Next, Reader};
use super::record::{FILE_HEADER, FileHeader, FileKind, MAX_PAYLOAD, RECORD_HEADER, RecordHeader};
use super::rows::{Encoder, apply};
use super::writer::encode_record;
use restfs_lib::checksum::crc32c;
use restfs_lib::kv::{Kv, KvRead, KvWrite, MemoryKv};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const HEADER: FileHeader = FileHeader {
    kind: FileKind::Log,
    log: [5; 16],
    sequence: 7,
};
/// Of the rows that are there before, as the tree's keys end.
const REVISION: [u8; 8] = [0xFF; 8];

/// The first byte says what the rest is: a file; rows; a record whose checksums are right whatever it says.
pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    match mode % 3 {
        0 => file(bytes),
        1 => rows(bytes),
        _ => sealed(bytes),
    }
}

fn file(bytes: &[u8]) {
    let header = bytes.first_chunk::<FILE_HEADER>().map(FileHeader::decode);
    let Some(Ok(header)) = header else { return };
    let Ok(file) = memfd_create(c"log", MemfdFlags::CLOEXEC).map(File::from) else {
        return;
    };
    file.write_all_at(bytes, 0).expect("memory does not fail");
    let known = Known::alone(Arc::new(file), header, bytes.len() as u64);
    let mut reader = Reader::new(&known);
    let mut end = FILE_HEADER as u64;
    let mut expected = header.sequence;
    loop {
        match reader.next(expected).expect("memory does not fail") {
            Next::Part(part) => {
                assert!(part.end > end && part.rows.len() <= MAX_PAYLOAD);
                (end, expected) = (part.end, part.sequence);
                rows(&part.rows);
            }
            Next::End => break,
            Next::Broken { offset, .. } => {
                assert_eq!(offset, end);
                break;
            }
        }
    }
}

/// Onto a store that has some of the rows that differences may begin with.
fn rows(part: &[u8]) {
    let kv = MemoryKv::new();
    let mut txn = kv.write().expect("memory does not fail");
    txn.put(&key(), &[1; 600]).expect("memory does not fail");
    let _ = apply(part, &mut *txn);
}

fn key() -> Vec<u8> {
    [&b"row"[..], &REVISION].concat()
}

/// Last part, packed, plain length, then the payload.
fn sealed(bytes: &[u8]) {
    let Some(([last, packed, a, b, c, d], payload)) = bytes.split_first_chunk() else {
        return;
    };
    let header = RecordHeader {
        last: last & 1 == 0,
        packed: packed & 1 == 1,
        plain: u32::from_be_bytes([*a, *b, *c, *d]),
        stored: payload.len() as u32,
        sequence: HEADER.sequence,
        payload_crc: crc32c(&[payload]),
    };
    let record = header.encode(&HEADER, FILE_HEADER as u64);
    file(&[&HEADER.encode()[..], &record, payload].concat());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let part = part();
    let mut file = HEADER.encode().to_vec();
    for sequence in HEADER.sequence..HEADER.sequence + 3 {
        let record = encode_record(&HEADER, file.len() as u64, sequence, true, part.clone());
        file.extend(record);
    }
    let mut damaged = file.clone();
    if let Some(byte) = damaged.get_mut(FILE_HEADER + RECORD_HEADER + 9) {
        *byte ^= 1;
    }
    let plain = (part.len() as u32).to_be_bytes();
    let bomb = restfs_lib::content::compress(&vec![0; 8 << 20], Default::default()).unwrap_or_default();
    vec![
        [&[0][..], &file].concat(),
        [&[0][..], &damaged].concat(),
        [&[1][..], &part].concat(),
        [&[2, 0, 0][..], &plain, &part].concat(),
        [&[2, 0, 1][..], &u32::to_be_bytes(MAX_PAYLOAD as u32), &bomb].concat(),
    ]
}

/// A row, one less, and one as its difference from an older revision.
fn part() -> Vec<u8> {
    let kv = MemoryKv::new();
    let mut txn = kv.write().expect("memory does not fail");
    let older: &mut dyn KvWrite = &mut *txn;
    older.put(&key(), &[1; 600]).expect("memory does not fail");
    let mut encoder = Encoder::default();
    encoder.put_whole(b"ab", b"xyz");
    encoder.delete(b"c");
    let newer = [&b"row"[..], &[0; 8]].concat();
    let mut value = [1; 600];
    value[300..305].fill(2);
    let before: &dyn KvRead = older;
    encoder.put(before, &newer, &value).expect("memory does not fail");
    encoder.finish().concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows of the transactions that a file gives out, in order.
    fn parts(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let header = bytes.first_chunk::<FILE_HEADER>().map(FileHeader::decode);
        let Some(Ok(header)) = header else {
            return Vec::new();
        };
        let file = File::from(memfd_create(c"log", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(bytes, 0).unwrap();
        let known = Known::alone(Arc::new(file), header, bytes.len() as u64);
        let mut reader = Reader::new(&known);
        let mut found = Vec::new();
        while let Next::Part(part) = reader.next(header.sequence).unwrap() {
            found.push((part.sequence, part.rows));
        }
        found
    }

    proptest! {
        #[test]
        fn a_flipped_bit_or_a_cut_gives_no_other_rows(at: prop::sample::Index, bit in 0u8..8, cut: bool) {
            let seeds = seeds();
            let whole = seeds.iter().find(|seed| seed[0] == 0).unwrap()[1..].to_vec();
            let good = parts(&whole);
            prop_assert_eq!(good.len(), 3);
            let mut bad = whole.clone();
            let at = at.index(bad.len());
            bad[at] ^= 1 << bit;
            if cut {
                bad.truncate(at);
            }
            prop_assert!(good.starts_with(&parts(&bad)));
        }
    }

    #[test]
    fn a_record_at_its_limit_is_read_and_one_beyond_it_is_none() {
        let header = |plain| RecordHeader {
            last: true,
            packed: true,
            plain,
            stored: 1,
            sequence: 1,
            payload_crc: 0,
        };
        let most = MAX_PAYLOAD as u32;
        for (plain, good) in [(most, true), (most + 1, false), (u32::MAX, false)] {
            let bytes = header(plain).encode(&HEADER, FILE_HEADER as u64);
            let decoded = RecordHeader::decode(&bytes, &HEADER, FILE_HEADER as u64);
            assert_eq!(decoded.is_some(), good, "{plain}");
        }
    }
}
