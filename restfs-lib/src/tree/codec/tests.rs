//! The bytes of the format, and that they come back.

use super::*;
use crate::content::hash_block;
use crate::model::*;
use proptest::prelude::*;

fn object() -> Object {
    Object {
        kind: Kind::Symlink {
            target: b"to".to_vec(),
        },
        mode: 0o750,
        uid: 1000,
        gid: 100,
        size: 0,
        mtime: Time {
            seconds: -1,
            nanoseconds: 999_999_999,
        },
        atime: Time {
            seconds: 0,
            nanoseconds: 0,
        },
        btime: Time {
            seconds: 64,
            nanoseconds: 1,
        },
        layout: Layout::default(),
    }
}

/// As in docs/formats/store-metadata.md: files that are out there have these bytes.
#[test]
fn rows_have_the_bytes_of_the_format() {
    assert_eq!(
        hex::encode(encode_object(&object())),
        concat!(
            "01",
            "0202746f",
            "e803",
            "e807",
            "64",
            "00",
            "01ff93ebdc03",
            "0000",
            "800101",
            "808004",
            "40",
            "00",
            "01"
        )
    );
    assert_eq!(hex::encode(encode_child(ObjectId(300))), "01ac02");
    assert_eq!(hex::encode(encode_attribute(b"\x00v")), "010076");
    let blocks = [HashAlgorithm::Blake3, HashAlgorithm::Sha1].map(|algorithm| hash_block(b"abc", algorithm));
    let segment = Segment {
        blocks: vec![(0, blocks[0], 1), (200, blocks[1], 128)],
    };
    let key = blocks[0].key.to_string();
    let sha1 = "a9993e364706816aba3e25717850c26c9cd0d89d";
    assert_eq!(
        hex::encode(encode_segment(&segment)),
        format!("010200{key}030001c801{key}0302{sha1}8001")
    );
}

#[test]
fn records_have_the_bytes_of_the_format() {
    use crate::tree::Totals;
    use crate::tree::bucket::Bucket;
    use crate::tree::commit::{Commit, CommitInfo, Position};
    let bucket = Bucket {
        id: BucketId(1),
        name: "ab".into(),
        layout: Layout::default(),
        created_ns: 5,
        head: 6,
        next_object: ObjectId(7),
        source: Some("s".into()),
        epoch: 8,
        deleted: false,
    };
    let bytes = encode_bucket(&bucket);
    assert_eq!(
        hex::encode(&bytes),
        concat!(
            "01",
            "026162",
            "8080044000",
            "01",
            "0a",
            "06",
            "07",
            "010173",
            "08",
            "00"
        )
    );
    assert_eq!(decode_bucket(bucket.id, &bytes), Ok(bucket));

    let totals = Totals {
        digest: Digest([1, 0, 0, 0]),
        objects: 2,
        bytes: 3,
    };
    let info = CommitInfo {
        time_ns: 1,
        committed_ns: 2,
        source: "s".into(),
        epoch: 3,
        first: 4,
        last: 5,
        exact: true,
        resync: false,
    };
    let commit = Commit {
        point: 9,
        info,
        ops: 6,
        totals,
    };
    let digest = format!("01{}", "00".repeat(31));
    let bytes = encode_commit(&commit);
    assert_eq!(hex::encode(&bytes), format!("0102040173030405010006{digest}0203"));
    assert_eq!(decode_commit(9, &bytes), Ok(commit));
    assert_eq!(hex::encode(encode_totals(totals)), format!("01{digest}0203"));
    assert_eq!(hex::encode(encode_group(totals.digest)), format!("01{digest}"));
    let position = Position {
        epoch: 1,
        sequence: 300,
        point: 2,
    };
    assert_eq!(hex::encode(encode_position(position)), "0101ac0202");
    assert_eq!(decode_position(&encode_position(position)), Ok(position));
}

#[test]
fn another_version_is_named() {
    let error = decode_object(&[7, 0]).unwrap_err();
    let text = "metadata store is damaged: an object's row has version 7, this program knows 1";
    assert_eq!(error.to_string(), text);
}

#[test]
fn bytes_left_over_or_out_of_order_are_damage() {
    let mut bytes = encode_object(&object());
    bytes.push(0);
    assert!(decode_object(&bytes).is_err());
    let block = hash_block(b"abc", HashAlgorithm::Blake3);
    let backwards = Segment {
        blocks: vec![(1, block, 1), (0, block, 1)],
    };
    assert!(decode_segment(&encode_segment(&backwards)).is_err());
}

/// A store that was scribbled over must not make whoever reads it divide by nothing, or reserve what it says.
#[test]
fn rows_that_say_what_none_can_be_are_damage() {
    type Change = fn(&mut Object);
    let with = |change: Change| {
        let mut object = object();
        change(&mut object);
        decode_object(&encode_object(&object))
    };
    assert!(with(|_| ()).is_ok());
    let changes: [(Change, bool); 12] = [
        (|o| o.layout.block_size = 4096, true),
        (|o| o.layout.block_size = 0, false),
        (|o| o.layout.block_size = 4097, false),
        (|o| o.layout.block_size = 8 << 20, false),
        (|o| o.layout.segment_blocks = 1024, true),
        (|o| o.layout.segment_blocks = 0, false),
        (|o| o.layout.segment_blocks = 1025, false),
        (|o| o.mode = 0o7777, true),
        (|o| o.mode = 0o10000, false),
        (|o| o.mtime.nanoseconds = 1_000_000_000, false),
        (
            |o| {
                o.kind = Kind::Symlink {
                    target: vec![b'x'; 4095],
                }
            },
            true,
        ),
        (
            |o| {
                o.kind = Kind::Symlink {
                    target: vec![b'x'; 4096],
                }
            },
            false,
        ),
    ];
    for (i, (change, good)) in changes.into_iter().enumerate() {
        let decoded = with(change);
        assert_eq!(decoded.is_ok(), good, "change {i}: {decoded:?}");
        assert!(good || matches!(decoded, Err(TreeError::Corrupt(_))));
    }
    let block = |length| crate::model::BlockRef {
        length,
        ..hash_block(b"abc", HashAlgorithm::Blake3)
    };
    let segment = |position, length| Segment {
        blocks: vec![(position, block(length), 1)],
    };
    for (position, length, good) in [
        (1023, 4 << 20, true),
        (1024, 1, false),
        (0, 0, false),
        (0, (4 << 20) + 1, false),
    ] {
        let decoded = decode_segment(&encode_segment(&segment(position, length)));
        assert_eq!(decoded.is_ok(), good, "{position} {length}: {decoded:?}");
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        prop::collection::vec(1u8..=255, 1..100).prop_map(|target| Kind::Symlink { target }),
        Just(Kind::Fifo),
        Just(Kind::Socket),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
    ]
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds })
}

fn layout() -> impl Strategy<Value = Layout> {
    let hash = prop_oneof![
        Just(HashAlgorithm::Blake3),
        Just(HashAlgorithm::Sha256),
        Just(HashAlgorithm::Sha1)
    ];
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Zstd)];
    (12u32..=22, 1u32..=1024, hash, compression).prop_map(|(power, segment_blocks, hash, compression)| {
        Layout {
            block_size: 1 << power,
            segment_blocks,
            hash,
            compression,
        }
    })
}

fn any_object() -> impl Strategy<Value = Object> {
    (
        kind(),
        (0u32..=0o7777, any::<u32>(), any::<u32>(), 0..=i64::MAX as u64),
        [time(), time(), time()],
        layout(),
    )
        .prop_map(
            |(kind, (mode, uid, gid, size), [mtime, atime, btime], layout)| Object {
                size: if kind == Kind::File { size } else { 0 },
                kind,
                mode,
                uid,
                gid,
                mtime,
                atime,
                btime,
                layout,
            },
        )
}

proptest! {
    #[test]
    fn objects_come_back(object in any_object()) {
        prop_assert_eq!(decode_object(&encode_object(&object)), Ok(object));
    }

    #[test]
    fn segments_come_back(contents in prop::collection::btree_map(0u32..1024, (prop::collection::vec(any::<u8>(), 1..100), any::<u64>()), 0..20)) {
        let blocks = contents.into_iter().map(|(position, (content, serial))| {
            let algorithm = if serial % 2 == 0 { HashAlgorithm::Sha256 } else { HashAlgorithm::Blake3 };
            (position, hash_block(&content, algorithm), serial)
        });
        let segment = Segment { blocks: blocks.collect() };
        prop_assert_eq!(decode_segment(&encode_segment(&segment)), Ok(segment));
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(bytes: Vec<u8>) {
        let _ = decode_object(&bytes);
        let _ = decode_segment(&bytes);
        let _ = decode_bucket(BucketId(1), &bytes);
        let _ = decode_commit(1, &bytes);
    }
}
