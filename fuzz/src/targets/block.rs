//! Blocks as they travel: compressed, and as what they have other than another block.

use bytes::Bytes;
use restfs_lib::content::{compress, decompress, differing, other_pages, page_sums, patch};
use restfs_lib::model::Compression;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::Compression as WireCompression;
use restfs_lib::wire::{Content, Hex};

/// Longest plain content that is asked for here.
const LIMIT: usize = 1 << 20;

/// The first byte says what the rest is.
pub(super) fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    match mode % 4 {
        0 => {
            if let Ok(plain) = decompress(bytes, LIMIT) {
                assert!(plain.len() <= LIMIT);
            }
            if let Some(packed) = compress(bytes, Compression::Zstd) {
                assert_eq!(decompress(&packed, bytes.len()).as_deref(), Ok(bytes));
            }
        }
        1 => content(bytes),
        2 => patched(bytes),
        _ => between(bytes),
    }
}

/// Four bytes of length, then content that may be compressed.
fn content(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let length = u32::from_le_bytes(*length) % (2 * LIMIT as u32);
    for compression in [WireCompression::None, WireCompression::Zstd] {
        let block = BlockContent {
            key: Hex([0; 32]),
            length,
            compression,
            content: Content(Bytes::copy_from_slice(rest)),
        };
        if let Ok(plain) = block.plain() {
            assert_eq!(plain.len(), length as usize);
        }
    }
}

/// Length of the block and of its base, number of pieces, pieces, content.
fn patched(bytes: &[u8]) {
    let mut fields = bytes
        .chunks_exact(4)
        .map(|f| u32::from_le_bytes([f[0], f[1], f[2], f[3]]));
    let (Some(length), Some(base), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
        return;
    };
    let count = count as usize % 1100;
    let pieces: Vec<_> = (0..count)
        .map_while(|_| Some(Piece(fields.next()?, fields.next()?)))
        .collect();
    let content = bytes.get(12 + pieces.len() * 8..).unwrap_or_default();
    let covered: u64 = pieces.iter().map(|p| u64::from(p.1)).sum();
    let made = PatchContent {
        key: Hex([0; 32]),
        length,
        base: Hex([1; 32]),
        pieces,
        compression: if count.is_multiple_of(2) {
            WireCompression::None
        } else {
            WireCompression::Zstd
        },
        content: Content(Bytes::copy_from_slice(content)),
    };
    let Ok(made) = made.checked() else { return };
    let base = vec![7; base as usize % LIMIT];
    if let Some(block) = made.apply(&base) {
        assert_eq!(block.len(), length as usize);
        assert!(covered <= u64::from(length));
    }
}

/// Two blocks, and what leads from one to the other.
fn between(bytes: &[u8]) {
    let Some((at, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let at = u16::from_le_bytes(*at) as usize;
    let (old, new) = rest.split_at(at.min(rest.len()));
    for ranges in [differing(old, new), other_pages(&page_sums(old), new)] {
        let (kept, bytes) = restfs_lib::content::cut(new, &ranges);
        assert_eq!(patch(old, new.len(), &kept, &bytes).as_deref(), Some(new));
    }
    // Sums that are none.
    let _ = other_pages(old, new);
}

pub(super) fn put() -> BlockPutParams {
    let plain = [7; 4096];
    BlockPutParams {
        blocks: vec![BlockContent {
            key: restfs_lib::model::BlockKey([1; 32]).into(),
            length: plain.len() as u32,
            compression: WireCompression::Zstd,
            content: Content(packed(&plain).into()),
        }],
    }
}

pub(super) fn patches() -> BlockPatchParams {
    BlockPatchParams {
        patches: vec![PatchContent {
            key: Hex([1; 32]),
            length: 4096,
            base: Hex([2; 32]),
            pieces: vec![Piece(0, 3), Piece(100, 2)],
            compression: WireCompression::None,
            content: Content(Bytes::from_static(b"abcde")),
        }],
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let text = b"some content that comes again, some content that comes again".repeat(20);
    // Little that becomes much more than the limit.
    let bomb = packed(&vec![0; 4 * LIMIT]);
    let small = packed(&text);
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
    vec![
        [&[0][..], &text].concat(),
        [&[0][..], &small].concat(),
        [&[0][..], &bomb].concat(),
        [&[1][..], &numbers(&[text.len() as u32]), &small].concat(),
        [&[1][..], &numbers(&[1 << 20]), &bomb].concat(),
        [&[2][..], &numbers(&[100, 90, 2, 3, 4, 90, 10]), &[9; 14]].concat(),
        [&[3][..], &[100, 0], &text].concat(),
    ]
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    compress(bytes, Compression::Zstd).expect("shrinks")
}
