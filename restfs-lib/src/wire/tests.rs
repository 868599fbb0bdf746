//! Both encodings give back what was put in, and their bytes do not change by accident.

mod bounds;
mod patch;

use super::method::*;
use super::values::{self, Op as WireOp, RowKey as WireRowKey};
use super::*;
use crate::model::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-zäß€ .]{1,20}".prop_map(String::into_bytes),
        vec(1u8..=255, 1..40),
    ]
    .prop_filter("a name of a file", |name| valid_name(name))
}

fn id() -> impl Strategy<Value = ObjectId> {
    (1..=limits::MAX_INTEGER).prop_map(ObjectId)
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds })
}

fn algorithm() -> impl Strategy<Value = HashAlgorithm> {
    prop_oneof![
        Just(HashAlgorithm::Blake3),
        Just(HashAlgorithm::Sha256),
        Just(HashAlgorithm::Sha1)
    ]
}

fn layout() -> impl Strategy<Value = Layout> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Zstd)];
    (12u32..=22, 1u32..=1024, algorithm(), compression).prop_map(
        |(power, segment_blocks, hash, compression)| Layout {
            block_size: 1 << power,
            segment_blocks,
            hash,
            compression,
        },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        vec(1u8..=255, 1..100).prop_map(|target| Kind::Symlink { target }),
        Just(Kind::Fifo),
        Just(Kind::Socket),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
    ]
}

fn object() -> impl Strategy<Value = Object> {
    let numbers = (0u32..=0o7777, any::<u32>(), any::<u32>(), 0..=limits::MAX_INTEGER);
    (kind(), numbers, time(), time(), time(), layout()).prop_map(
        |(kind, (mode, uid, gid, size), mtime, atime, btime, layout)| {
            let size = if kind == Kind::File { size } else { 0 };
            Object {
                kind,
                mode,
                uid,
                gid,
                size,
                mtime,
                atime,
                btime,
                layout,
            }
        },
    )
}

fn block() -> impl Strategy<Value = BlockRef> {
    let hash = prop_oneof![
        Just(None),
        any::<[u8; 32]>().prop_map(|hash| Some(Hash::Sha256(hash))),
        any::<[u8; 20]>().prop_map(|hash| Some(Hash::Sha1(hash))),
    ];
    (any::<[u8; 32]>(), 1..=limits::MAX_BLOCK as u32, hash).prop_map(|(key, length, hash)| BlockRef {
        key: BlockKey(key),
        length,
        hash: hash.unwrap_or(Hash::Blake3(key)),
    })
}

fn blocks() -> impl Strategy<Value = Vec<(u32, Option<BlockRef>)>> {
    proptest::collection::btree_map(0u32..1024, proptest::option::of(block()), 0..20)
        .prop_map(|map| map.into_iter().collect())
}

fn op() -> impl Strategy<Value = Op> {
    let value = || vec(any::<u8>(), 0..300);
    prop_oneof![
        (id(), object()).prop_map(|(id, object)| Op::PutObject { id, object }),
        id().prop_map(|id| Op::DropObject { id }),
        (id(), name(), id()).prop_map(|(dir, name, child)| Op::PutEntry { dir, name, child }),
        (id(), name()).prop_map(|(dir, name)| Op::DropEntry { dir, name }),
        (id(), name(), value()).prop_map(|(id, name, value)| Op::PutAttribute { id, name, value }),
        (id(), name()).prop_map(|(id, name)| Op::DropAttribute { id, name }),
        (id(), 0..=limits::MAX_INTEGER, blocks()).prop_map(|(id, segment, blocks)| Op::PutBlocks {
            id,
            segment,
            blocks
        }),
    ]
}

fn row() -> impl Strategy<Value = RowKey> {
    prop_oneof![
        id().prop_map(|id| RowKey::Object { id }),
        (id(), name()).prop_map(|(id, name)| RowKey::Attribute { id, name }),
        (id(), name()).prop_map(|(dir, name)| RowKey::Entry { dir, name }),
        (id(), 0..=limits::MAX_INTEGER).prop_map(|(id, segment)| RowKey::Segment { id, segment }),
    ]
}

/// Through the bytes of a whole message.
fn there_and_back<T>(encoding: Encoding, value: &T) -> T
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let params = Payload::encode(encoding, value).unwrap();
    let sent = Message::Request {
        id: Id::Number(1),
        method: "m".to_owned(),
        params,
    };
    let bytes = sent.encode(encoding).unwrap();
    match Message::decode(encoding, &bytes).unwrap() {
        Message::Request { params, .. } => params.decode().unwrap(),
        other => panic!("a request became {other:?}"),
    }
}

proptest! {
    #[test]
    fn every_commit_arrives_as_it_was_sent(ops in vec(op(), 0..8), epoch in 1..=limits::MAX_INTEGER, exact: bool) {
        let sent = CommitParams {
            bucket: "data".to_owned(),
            source: "ab12".to_owned(),
            epoch,
            first: 3,
            last: 7,
            resync: false,
            time: values::Time(-1, 999_999_999),
            exact,
            ops: ops.iter().cloned().map(WireOp::from).collect(),
        };
        for encoding in Encoding::ALL {
            let arrived = there_and_back(encoding, &sent);
            prop_assert_eq!(&arrived, &sent);
            let arrived: Result<Vec<Op>, _> = arrived.ops.into_iter().map(Op::try_from).collect();
            prop_assert_eq!(arrived.unwrap(), ops.clone());
        }
    }

    #[test]
    fn every_row_arrives_as_it_was_sent(row in row(), digest: [u64; 4]) {
        let info = RowInfo { row: row.clone().into(), digest: Digest(digest).into() };
        for encoding in Encoding::ALL {
            let arrived = there_and_back(encoding, &info);
            prop_assert_eq!(Digest::from(arrived.digest), Digest(digest));
            prop_assert_eq!(RowKey::try_from(arrived.row).unwrap(), row.clone());
        }
    }

    #[test]
    fn every_segment_arrives_as_it_was_sent(blocks in blocks(), serial in 0..=limits::MAX_INTEGER) {
        let blocks = blocks.into_iter().filter_map(|(at, block)| Some((at, block?, serial))).collect();
        let segment = Segment { blocks };
        for encoding in Encoding::ALL {
            let info = SegmentInfo { segment: 9, blocks: segment_to_wire(segment.clone()) };
            let arrived = there_and_back(encoding, &info);
            prop_assert_eq!(segment_from_wire(&arrived.blocks).unwrap(), segment.clone());
        }
    }

    #[test]
    fn names_of_any_bytes_arrive(bytes: Vec<u8>) {
        for encoding in Encoding::ALL {
            let sent = EntryName { name: Name(bytes.clone()) };
            prop_assert_eq!(there_and_back(encoding, &sent).name.0, bytes.clone());
        }
    }

    #[test]
    fn answers_and_errors_arrive(id: i64, text in ".{0,40}", missing in vec(any::<[u8; 32]>(), 0..4)) {
        let mut error = RpcError::new(Code::MissingBlocks, text.clone());
        error.data.missing = missing.into_iter().map(Hex).collect();
        for encoding in Encoding::ALL {
            let short = Id::Text(text.chars().take(16).collect());
            let result = Payload::encode(encoding, &PointResult { point: 5 }).unwrap();
            for message in [
                Message::Response { id: Id::Number(id), result: result.clone() },
                Message::Notification { method: "news".to_owned(), params: result.clone() },
                Message::Error { id: Some(short), error: error.clone() },
                Message::Error { id: None, error: error.clone() },
            ] {
                let bytes = message.encode(encoding).unwrap();
                prop_assert_eq!(Message::decode(encoding, &bytes).unwrap(), message);
            }
        }
    }

    #[test]
    fn garbage_is_an_error_and_nothing_worse(bytes: Vec<u8>, text in ".{0,100}") {
        for encoding in Encoding::ALL {
            let _ = Message::decode(encoding, &bytes);
            let _ = Message::decode(encoding, text.as_bytes());
        }
    }

    #[test]
    fn damaged_messages_are_an_error_and_nothing_worse(ops in vec(op(), 1..4), at: prop::sample::Index, bit in 0u8..8) {
        let ops: Vec<WireOp> = ops.into_iter().map(Into::into).collect();
        for encoding in Encoding::ALL {
            let params = Payload::encode(encoding, &Ops { ops: ops.clone() }).unwrap();
            let sent = Message::Request { id: Id::Number(1), method: "m".to_owned(), params };
            let mut bytes = sent.encode(encoding).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(Message::Request { params, .. }) = Message::decode(encoding, &bytes)
                && let Ok(Ops { ops }) = params.decode()
            {
                let _: Vec<Result<Op, _>> = ops.into_iter().map(Op::try_from).collect();
            }
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct EntryName {
    name: Name,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Ops {
    ops: Vec<WireOp>,
}

fn request() -> Message {
    let params = AttributeSetParams {
        bucket: "b".to_owned(),
        object: values::ObjectAt::path("/ä"),
        name: Name(b"restfs.\xff".to_vec()),
        value: Content(b"\x00\xff".to_vec().into()),
    };
    request_of(Encoding::Json, &params)
}

fn request_of<T: serde::Serialize>(encoding: Encoding, params: &T) -> Message {
    Message::Request {
        id: Id::Number(7),
        method: AttributeSet::NAME.to_owned(),
        params: Payload::encode(encoding, params).unwrap(),
    }
}

#[test]
fn the_text_of_a_request_does_not_change() {
    let text = String::from_utf8(request().encode(Encoding::Json).unwrap()).unwrap();
    assert_eq!(
        text,
        r#"{"jsonrpc":"2.0","id":7,"method":"object.attribute.set","params":{"bucket":"b","object":{"path":"/ä"},"name":{"base64":"cmVzdGZzLv8="},"value":"AP8="}}"#
    );
}

#[test]
fn the_bytes_of_a_request_do_not_change() {
    let params = AttributeParams {
        bucket: "b".to_owned(),
        object: values::ObjectAt::Id(1),
        point: None,
        name: Name(b"\xff".to_vec()),
    };
    let bytes = request_of(Encoding::Bson, &params)
        .encode(Encoding::Bson)
        .unwrap();
    let expected = [
        "83000000",
        "026a736f6e72706300",
        "04000000322e3000", // jsonrpc: "2.0"
        "12696400",
        "0700000000000000", // id: 7
        "026d6574686f6400",
        "150000006f626a6563742e6174747269627574652e73657400",
        "03706172616d7300",
        "38000000",
        "026275636b657400",
        "020000006200", // bucket: "b"
        "036f626a65637400",
        "11000000",
        "12696400",
        "0100000000000000",
        "00", // object: {id: 1}
        "056e616d6500",
        "0100000000ff", // name: Binary
        "00",
        "00",
    ]
    .concat();
    assert_eq!(hex::encode(bytes), expected);
}

#[test]
fn the_text_of_an_op_does_not_change() {
    let ops = vec![
        WireOp::PutBlocks {
            id: 2,
            segment: 0,
            blocks: vec![
                values::BlockAt {
                    at: 0,
                    key: Some(Hex([1; 32])),
                    length: 5,
                    hash: None,
                    serial: None,
                },
                values::BlockAt {
                    at: 1,
                    key: None,
                    length: 0,
                    hash: None,
                    serial: None,
                },
            ],
        },
        WireOp::DropEntry {
            dir: 1,
            name: "x".into(),
        },
    ];
    let key = "01".repeat(32);
    assert_eq!(
        serde_json::to_string(&ops).unwrap(),
        format!(
            r#"[{{"put_blocks":{{"id":2,"segment":0,"blocks":[{{"at":0,"key":"{key}","length":5}},{{"at":1}}]}}}},{{"drop_entry":{{"dir":1,"name":"x"}}}}]"#
        )
    );
}

#[test]
fn the_text_of_an_error_does_not_change() {
    let mut error = RpcError::new(Code::Fenced, "over");
    error.data.epoch = Some(3);
    let bytes = Message::Error { id: None, error }.encode(Encoding::Json).unwrap();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":7,"message":"over","data":{"epoch":3}}}"#
    );
}

#[test]
fn codes_keep_their_numbers_and_are_told_apart() {
    let numbers: Vec<i32> = Code::ALL.iter().map(|code| code.number()).collect();
    assert_eq!(
        numbers,
        [
            -32700, -32600, -32601, -32602, -32603, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
        ]
    );
    for code in Code::ALL {
        assert_eq!(Code::from_number(code.number()), *code);
    }
}

fn decode_json(text: &str) -> Result<Message, Code> {
    Message::decode(Encoding::Json, text.as_bytes()).map_err(|error| error.code)
}

#[test]
fn what_is_no_request_is_told_from_what_is_no_json() {
    assert_eq!(decode_json("{"), Err(Code::Parse));
    assert_eq!(
        decode_json(r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#),
        Err(Code::InvalidRequest)
    );
    assert_eq!(
        decode_json(r#"{"jsonrpc":"2.0","id":1}"#),
        Err(Code::InvalidRequest)
    );
    assert_eq!(
        decode_json(r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#),
        Err(Code::InvalidRequest)
    );
    assert_eq!(
        decode_json(r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#),
        Err(Code::Parse)
    );
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#,
        "m".repeat(limits::MAX_METHOD + 1)
    );
    assert_eq!(decode_json(&long), Err(Code::InvalidRequest));
    let escaped = decode_json(r#"{"jsonrpc":"2.0","id":"\u0041","method":"\u006d"}"#).unwrap();
    assert!(
        matches!(escaped, Message::Request { id: Id::Text(id), method, .. } if id == "A" && method == "m")
    );
}

#[test]
fn a_message_over_the_limit_is_not_even_looked_at() {
    let bytes = vec![b' '; limits::MAX_MESSAGE + 1];
    for encoding in Encoding::ALL {
        assert_eq!(
            Message::decode(encoding, &bytes).unwrap_err().code,
            Code::TooLarge
        );
    }
    let value = Content(vec![0; limits::MAX_MESSAGE].into());
    let params = Payload::encode(Encoding::Bson, &AttributeGetResult { value }).unwrap();
    let sent = Message::Notification {
        method: "m".to_owned(),
        params,
    };
    assert_eq!(sent.encode(Encoding::Bson).unwrap_err().code, Code::TooLarge);
}

#[test]
fn unknown_params_are_refused_and_unknown_results_are_not() {
    let text = r#"{"bucket":"b","colour":"red"}"#;
    let payload = Payload {
        encoding: Encoding::Json,
        bytes: text.as_bytes().to_vec(),
    };
    let error = payload.decode::<BucketName>().unwrap_err();
    assert!(
        error.code == Code::InvalidParams && error.message.contains("colour"),
        "{error}"
    );
    let text = r#"{"point":3,"colour":"red"}"#;
    let payload = Payload {
        encoding: Encoding::Json,
        bytes: text.as_bytes().to_vec(),
    };
    assert_eq!(payload.decode::<PointResult>().unwrap().point, 3);
}

#[test]
fn values_out_of_their_bounds_are_refused() {
    let good = Object {
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 5,
        mtime: Time::default(),
        atime: Time::default(),
        btime: Time::default(),
        layout: Layout::default(),
    };
    let wire = |change: fn(&mut values::Object)| {
        let mut object = values::Object::from(good.clone());
        change(&mut object);
        Object::try_from(object).map_err(|error| error.code)
    };
    assert_eq!(wire(|_| {}), Ok(good.clone()));
    for bad in [
        wire(|o| o.mode = 0o10000),
        wire(|o| o.size = u64::MAX),
        wire(|o| o.mtime.1 = 1_000_000_000),
        wire(|o| o.layout.block_size = 5000),
        wire(|o| o.layout.block_size = 8 << 20),
        wire(|o| o.layout.segment_blocks = 0),
        wire(|o| o.kind = values::Kind::Directory),
        wire(|o| {
            o.kind = values::Kind::Symlink {
                target: Name(Vec::new()),
            }
        }),
    ] {
        assert_eq!(bad, Err(Code::InvalidParams));
    }
}

#[test]
fn names_that_could_leave_their_directory_are_refused() {
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        let op = WireOp::PutEntry {
            dir: 1,
            name: Name(bad.to_vec()),
            child: 2,
        };
        assert!(Op::try_from(op).is_err(), "{bad:?}");
    }
    for bad in ["", "a", "/a/../b", "/./a", "/a\0"] {
        assert!(check::path(&bad.into()).is_err(), "{bad:?}");
    }
    assert_eq!(check::path(&"//a/b/".into()).unwrap(), [b"a", b"b"]);
}

#[test]
fn a_segment_names_no_position_twice() {
    let block = |at| values::BlockAt {
        at,
        key: None,
        length: 0,
        hash: None,
        serial: None,
    };
    for positions in [vec![0, 0], vec![3, 2], vec![1024]] {
        let blocks = positions.into_iter().map(block).collect();
        assert!(
            Op::try_from(WireOp::PutBlocks {
                id: 1,
                segment: 0,
                blocks
            })
            .is_err()
        );
    }
}

#[test]
fn a_compressed_block_is_as_long_as_it_says() {
    let plain = vec![7u8; 100_000];
    let packed = crate::content::compress(&plain, Compression::Zstd).unwrap();
    let block = |length| BlockContent {
        key: Hex([0; 32]),
        length,
        compression: values::Compression::Zstd,
        content: Content(packed.clone().into()),
    };
    assert_eq!(block(100_000).plain().unwrap(), plain);
    assert!(block(99_999).plain().is_err());
    assert!(block(100_001).plain().is_err());
    assert!(block(u32::MAX).plain().is_err());
    assert!(block(0).plain().is_err());
}

#[test]
fn row_keys_are_ordered_as_the_model_orders_them() {
    // `tree.rows` goes on after the last row, so both ends must agree on the order.
    let rows = [
        RowKey::Object { id: ObjectId(9) },
        RowKey::Attribute {
            id: ObjectId(1),
            name: b"a".to_vec(),
        },
        RowKey::Entry {
            dir: ObjectId(1),
            name: b"a".to_vec(),
        },
        RowKey::Segment {
            id: ObjectId(1),
            segment: 0,
        },
    ];
    assert!(rows.is_sorted());
    assert_eq!(WireRowKey::from(rows[0].clone()), WireRowKey::Object { id: 9 });
}

#[test]
fn a_message_nested_without_end_does_not_end_the_process() {
    let mut deep = bson::RawDocumentBuf::new();
    for _ in 0..5_000 {
        let mut outer = bson::RawDocumentBuf::new();
        outer.append(bson::raw::cstr!("a"), &deep);
        deep = outer;
    }
    let mut message = bson::RawDocumentBuf::new();
    message.append(bson::raw::cstr!("jsonrpc"), "2.0");
    message.append(bson::raw::cstr!("id"), 1_i64);
    message.append(bson::raw::cstr!("unknown"), &deep);
    assert_eq!(
        Message::decode(Encoding::Bson, &message.into_bytes())
            .unwrap_err()
            .code,
        Code::Parse
    );
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":1,"unknown":{}1{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(decode_json(&text).is_err());
}
