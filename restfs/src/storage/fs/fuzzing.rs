//! Packs, for the fuzz targets.

use super::index::Location;
use super::read::decode_record;
use super::record::{
    FILE_HEADER, KIND_BLOCK, RECORD_HEADER, RecordHeader, check_file_header, encode_file_header,
};
use super::scan::{Depth, Found, scan};
use restfs_lib::checksum::crc32c;
use restfs_lib::content::{self, hash_block};
use restfs_lib::model::{BlockKey, Compression, HashAlgorithm};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt;

const PACK: u64 = 7;

/// The first byte says what the rest is: a pack, or a record whose checksums are right whatever it says.
pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    if mode % 2 == 0 {
        pack(bytes);
    } else {
        sealed(bytes);
    }
}

fn pack(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk::<FILE_HEADER>() {
        let _ = check_file_header(header, PACK);
    }
    let Ok(file) = memfd_create(c"pack", MemfdFlags::CLOEXEC).map(File::from) else {
        return;
    };
    file.write_all_at(bytes, 0).expect("memory does not fail");
    let length = bytes.len() as u64;
    for depth in [Depth::Headers, Depth::Payloads] {
        let from = FILE_HEADER as u64;
        let mut reached = from;
        let end = scan(&file, PACK, from..length, depth, |found| {
            let (offset, length) = match found {
                Found::Record { offset, header } => {
                    record(bytes, offset, &header);
                    (offset, header.record_length())
                }
                Found::Damage { offset, length } => (offset, length),
            };
            assert!(offset == reached && length > 0);
            reached = offset + length;
            Ok(())
        });
        let end = end.unwrap_or(from);
        assert!(end == reached && (end <= length || end == from));
    }
}

/// What is given out is what its key names, or nothing is.
fn record(bytes: &[u8], offset: u64, header: &RecordHeader) {
    let at = Location {
        pack: PACK,
        offset,
        plain: header.plain,
        stored: header.stored,
    };
    let end = offset + header.record_length();
    let record = bytes.get(offset as usize..end as usize).unwrap_or_default();
    if let Ok(content) = decode_record(header.key, at, record.to_vec()) {
        assert_eq!(hash_block(&content, HashAlgorithm::Blake3).key, header.key);
    }
}

/// Kind, encoding, plain length, then the payload.
fn sealed(bytes: &[u8]) {
    let Some(([kind, encoding, a, b, c, d], payload)) = bytes.split_first_chunk() else {
        return;
    };
    let header = RecordHeader {
        kind: *kind,
        encoding: *encoding,
        plain: u32::from_be_bytes([*a, *b, *c, *d]),
        stored: payload.len() as u32,
        key: hash_block(payload, HashAlgorithm::Blake3).key,
        payload_crc: crc32c(&[payload]),
    };
    pack(
        &[
            &encode_file_header(PACK)[..],
            &header.encode(PACK, FILE_HEADER as u64),
            payload,
        ]
        .concat(),
    );
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut pack = encode_file_header(PACK).to_vec();
    let mut seeds = Vec::new();
    for content in [&b"short"[..], &b"what is longer and comes again. ".repeat(30)] {
        let key = hash_block(content, HashAlgorithm::Blake3).key;
        let record = encoded(key, content, pack.len() as u64);
        let payload = record.get(RECORD_HEADER..).unwrap_or_default();
        let plain = (content.len() as u32).to_be_bytes();
        seeds.push(
            [
                &[1, 1, u8::from(payload.len() < content.len())][..],
                &plain,
                payload,
            ]
            .concat(),
        );
        pack.extend(record);
    }
    // The first record damaged, the second found behind it.
    let mut damaged = pack.clone();
    if let Some(byte) = damaged.get_mut(FILE_HEADER + 20) {
        *byte ^= 1;
    }
    seeds.extend([pack, damaged].map(|pack| [&[0][..], &pack].concat()));
    // Little that says that it is as long as a block can be.
    let bomb = content::compress(&vec![0; 8 << 20], Compression::Zstd).unwrap_or_default();
    seeds.push([&[1, 1, 1][..], &u32::to_be_bytes(4 << 20), &bomb].concat());
    seeds
}

fn encoded(key: BlockKey, content: &[u8], offset: u64) -> Vec<u8> {
    let packed = content::compress(content, Compression::Zstd);
    let header = RecordHeader {
        kind: KIND_BLOCK,
        encoding: u8::from(packed.is_some()),
        plain: content.len() as u32,
        stored: packed.as_deref().unwrap_or(content).len() as u32,
        key,
        payload_crc: crc32c(&[packed.as_deref().unwrap_or(content)]),
    };
    [
        &header.encode(PACK, offset)[..],
        packed.as_deref().unwrap_or(content),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Content of every block that a pack gives out.
    fn blocks(bytes: &[u8]) -> Vec<Vec<u8>> {
        let file = File::from(memfd_create(c"pack", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(bytes, 0).unwrap();
        let mut found = Vec::new();
        let range = FILE_HEADER as u64..bytes.len() as u64;
        scan(&file, PACK, range, Depth::Headers, |place| {
            if let Found::Record { offset, header } = place {
                let at = Location {
                    pack: PACK,
                    offset,
                    plain: header.plain,
                    stored: header.stored,
                };
                let record = bytes.get(offset as usize..(offset + header.record_length()) as usize);
                let content = decode_record(header.key, at, record.unwrap_or_default().to_vec());
                found.extend(content.ok().map(|content| content.to_vec()));
            }
            Ok(())
        })
        .unwrap();
        found
    }

    proptest! {
        #[test]
        fn a_flipped_bit_or_a_cut_gives_no_other_content(at: prop::sample::Index, bit in 0u8..8, cut: bool) {
            let seeds = seeds();
            let whole = seeds.iter().find(|seed| seed[0] == 0).unwrap()[1..].to_vec();
            let good = blocks(&whole);
            prop_assert_eq!(good.len(), 2);
            let mut bad = whole.clone();
            let at = at.index(bad.len());
            bad[at] ^= 1 << bit;
            if cut {
                bad.truncate(at);
            }
            for content in blocks(&bad) {
                prop_assert!(good.contains(&content));
            }
        }
    }
}
