//! Patches of blocks on the wire.

use super::{there_and_back, vec};
use crate::content::{cut, patch};
use crate::wire::method::*;
use crate::wire::values::Compression;
use crate::wire::*;
use proptest::prelude::*;

fn sent() -> BlockPatchParams {
    BlockPatchParams {
        patches: vec![PatchContent {
            key: Hex([1; 32]),
            length: 65_536,
            base: Hex([2; 32]),
            pieces: vec![Piece(4096, 2), Piece(65_535, 1)],
            compression: Compression::None,
            content: Content(b"\x00\xffx".to_vec().into()),
        }],
    }
}

#[test]
fn the_text_of_a_patch_does_not_change() {
    let (key, base) = ("01".repeat(32), "02".repeat(32));
    assert_eq!(
        serde_json::to_string(&sent()).unwrap(),
        format!(
            r#"{{"patches":[{{"key":"{key}","length":65536,"base":"{base}","pieces":[[4096,2],[65535,1]],"compression":"none","content":"AP94"}}]}}"#
        )
    );
    let answer = BlockPatchResult {
        wanted: vec![
            WantedBlock {
                key: Hex([1; 32]),
                sums: Some(Content(b"\x01\x02\x03\x04".to_vec().into())),
            },
            WantedBlock {
                key: Hex([2; 32]),
                sums: None,
            },
        ],
    };
    assert_eq!(
        serde_json::to_string(&answer).unwrap(),
        format!(r#"{{"wanted":[{{"key":"{key}","sums":"AQIDBA=="}},{{"key":"{base}"}}]}}"#)
    );
}

#[test]
fn the_bytes_of_a_patch_do_not_change() {
    let bytes = Payload::encode(Encoding::Bson, &sent()).unwrap().bytes;
    let expected = [
        "f0000000",
        "047061746368657300",
        "e2000000",
        "033000",
        "da000000",
        "056b657900",
        "2000000000",
        &"01".repeat(32), // key: Binary
        "126c656e67746800",
        "0000010000000000", // length: 65536
        "056261736500",
        "2000000000",
        &"02".repeat(32), // base: Binary
        "0470696563657300",
        "41000000",
        "043000",
        "1b000000",
        "123000",
        "0010000000000000",
        "123100",
        "0200000000000000",
        "00", // [4096, 2]
        "043100",
        "1b000000",
        "123000",
        "ffff000000000000",
        "123100",
        "0100000000000000",
        "00", // [65535, 1]
        "00",
        "02636f6d7072657373696f6e00",
        "050000006e6f6e6500", // compression: "none"
        "05636f6e74656e7400",
        "030000000000ff78", // content: Binary
        "00",
        "00",
        "00",
    ]
    .concat();
    assert_eq!(hex::encode(bytes), expected);
}

proptest! {
    #[test]
    fn a_patch_arrives_as_it_was_sent_and_takes_no_more_than_was_reckoned(
        base in vec(any::<u8>(), 0..3000),
        block in vec(any::<u8>(), 1..3000),
        cuts in vec(0u32..3000, 0..40),
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        cuts.dedup();
        let beyond = base.len().min(block.len()) as u32;
        let within = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).filter(|r| r.end <= beyond);
        let ranges: Vec<_> = within.chain(std::iter::once(beyond..block.len() as u32)).filter(|r| !r.is_empty()).collect();
        let (ranges, bytes) = cut(&block, &ranges);
        let sent = PatchContent {
            key: Hex([255; 32]),
            length: block.len() as u32,
            base: Hex([0; 32]),
            pieces: ranges.iter().map(|r| Piece(r.start, r.end - r.start)).collect(),
            compression: Compression::None,
            content: Content(bytes.clone().into()),
        };
        for encoding in Encoding::ALL {
            let arrived = there_and_back(encoding, &sent);
            prop_assert_eq!(&arrived, &sent);
            prop_assert!(Payload::encode(encoding, &sent).unwrap().len() <= sent.encoded_len(encoding));
            let made = arrived.checked().unwrap().apply(&base);
            prop_assert_eq!(made, patch(&base, block.len(), &ranges, &bytes));
        }
    }
}
