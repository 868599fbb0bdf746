use super::*;
use crate::catalog::share::Doubt;
use crate::journal::{NodeRef, Session};
use restfs_lib::content::Difference;
use restfs_lib::kv::{Kv, MemoryKv};
use restfs_lib::model::{
    BlockKey, BlockRef, Compression, Hash, HashAlgorithm, Kind, Layout, Object, ObjectId, Op, Time,
};
use serde::{Deserialize, Serialize};

const NODE: NodeRef = NodeRef {
    dev: 0x0800_0000_0001,
    ino: 0x1234,
    btime_ns: 1_700_000_000_000_000_000,
};

#[test]
fn keys_are_what_the_page_draws() {
    let golden = [
        (
            Key::Node(NODE),
            "490000080000000001000000000000123417979cfe362a0000",
        ),
        (
            Key::Lost(NODE),
            "550000080000000001000000000000123417979cfe362a0000",
        ),
        (Key::Object(ObjectId(258)), "4e0000000000000102"),
        (Key::Dirt(ObjectId(258)), "440000000000000102"),
        (Key::Displaced(ObjectId(258)), "5a0000000000000102"),
        (Key::List(ObjectId(258)), "530000000000000102"),
        (
            Key::Look(ObjectId(258), b"name".to_vec()),
            "5100000000000001026e616d65",
        ),
        (
            Key::Intent(Session([7; 16]), 9),
            "57070707070707070707070707070707070000000000000009",
        ),
        (Key::Log(3), "4c0000000000000003"),
        (Key::Since(3), "480000000000000003"),
        (Key::meta("head"), "4d68656164"),
    ];
    for (key, bytes) in golden {
        assert_eq!(hex::encode(key.bytes()), bytes, "{key:?}");
        assert_eq!(Key::parse(&key.bytes()), Some(key));
    }
    assert_eq!(Key::parse(b"N\0\0"), None);
    assert_eq!(Key::parse(b"N\0\0\0\0\0\0\0\x01\0"), None);
    assert_eq!(Key::parse(b""), None);
}

fn golden<R: Row + PartialEq + std::fmt::Debug>(row: R, bytes: &str) {
    assert_eq!(hex::encode(row.encode().unwrap()), bytes, "{row:?}");
    assert_eq!(R::decode(&hex::decode(bytes).unwrap()).unwrap(), row);
}

#[test]
fn rows_are_what_the_page_draws() {
    let time = |seconds, nanoseconds| Time { seconds, nanoseconds };
    let stamp = crate::catalog::share::Stamp {
        size: 300,
        mtime: time(-1, 5),
        ctime: time(1, 0),
    };
    golden(
        SourceRow {
            id: [1; 16],
            root: NODE,
        },
        concat!(
            "01",
            "01010101010101010101010101010101",
            "81808080808002",
            "b424",
            "8080d0e2c6bfce972f"
        ),
    );
    golden(
        DevicesRow {
            numbers: vec![1, 300],
        },
        "010201ac02",
    );
    golden(
        HeadRow {
            applied: 1,
            change: 200,
            oldest: 3,
            bytes: 4,
            next_object: 5,
        },
        "0101c801030405",
    );
    golden(
        CursorRow {
            epoch: 1,
            sequence: 300,
        },
        "0101ac02",
    );
    golden(
        CutRow {
            marked: 300,
            beyond: vec![1, 200],
        },
        "01ac020201c801",
    );
    golden(
        GapRow {
            since_ns: -1,
            reason: "why".to_owned(),
            newest: 9,
        },
        "01010377687909",
    );
    golden(
        LastGapRow {
            since_ns: -1,
            until_ns: 2,
            reason: "why".to_owned(),
        },
        "01010403776879",
    );
    golden(
        ExcludeRow {
            text: b"/*/".to_vec(),
            case_sensitive: true,
            since_ns: -2,
        },
        "01032f2a2f0103",
    );
    let scan = ScanRow {
        phase: ScanPhase::Walking,
        number: 1,
        again: true,
        directories: 2,
        ..ScanRow::default()
    };
    golden(scan, "0102010100000002000000");
    let node = NodeRef {
        dev: 1,
        ino: 2,
        btime_ns: 3,
    };
    golden(
        NodeRow {
            node,
            names: 1,
            stamp: stamp.into(),
            scan: 4,
        },
        "0101020601ac020105020004",
    );
    golden(
        NodeRow {
            node,
            names: 1,
            stamp: StampRow::of(stamp, Doubt::Content),
            scan: 4,
        },
        "0101020601ac0201050280a8d6b90704",
    );
    let dirt = DirtRow {
        journal: 1,
        first_ns: 2,
        last_ns: 3,
        touched: Touch::Looked,
        size: 4,
        ranges: vec![(0, 4096), (8192, u64::MAX)],
    };
    golden(dirt, "010104060104020080208040ffffffffffffffffff01");
    golden(
        IntentRow {
            node,
            path_hint: b"a/b".to_vec(),
        },
        "0101020603612f62",
    );
    golden(
        DisplacedRow {
            since_ns: 1,
            dead: true,
            scan: 2,
            relist: false,
        },
        "0102010200",
    );
    golden(
        LookRow {
            journal: 1,
            time_ns: 2,
            check: true,
        },
        "01010401",
    );
    golden(
        LostRow {
            journal: 1,
            since_ns: 2,
        },
        "010104",
    );
    golden(ListRow { journal: 1, scan: 2 }, "010102");
}

#[test]
fn differences_are_what_the_page_draws_and_come_back() {
    let since = Difference::new(BlockKey([1; 32]), vec![0..4096, 65_000..65_536]);
    let differences = vec![(3, since)];
    let row = SinceRow::from(&differences[..]);
    golden(
        row.clone(),
        &format!("010103{}0200802 0e8fb03808004", "01".repeat(32)).replace(' ', ""),
    );
    assert_eq!(Vec::from(row), differences);
}

fn change(op: Op) -> LogRow {
    LogRow {
        journal: 1,
        time_ns: 2,
        covered: 3,
        oldest_ns: 4,
        bytes: 5,
        end: EndRow::Whole,
        op: op.into(),
    }
}

#[test]
fn changes_are_what_the_page_draws() {
    let (id, name) = (ObjectId(7), b"n".to_vec());
    let head = "010104030805";
    let golden = |op: Op, bytes: &str| golden(change(op), &format!("{head}01{bytes}"));
    golden(Op::DropObject { id }, "0107");
    golden(
        Op::PutEntry {
            dir: id,
            name: name.clone(),
            child: ObjectId(8),
        },
        "0207016e08",
    );
    golden(
        Op::DropEntry {
            dir: id,
            name: name.clone(),
        },
        "0307016e",
    );
    golden(
        Op::PutAttribute {
            id,
            name: name.clone(),
            value: b"v".to_vec(),
        },
        "0407016e0176",
    );
    golden(Op::DropAttribute { id, name }, "0507016e");
    let block = BlockRef {
        key: BlockKey([1; 32]),
        length: 5,
        hash: Hash::Blake3([1; 32]),
    };
    let key = "01".repeat(32);
    golden(
        Op::PutBlocks {
            id,
            segment: 2,
            blocks: vec![(0, None), (3, Some(block))],
        },
        &format!("060702020000 0301{key}0500").replace(' ', ""),
    );
    let object = Object {
        kind: Kind::Symlink {
            target: b"t".to_vec(),
        },
        mode: 0o644,
        uid: 1,
        gid: 2,
        size: 0,
        mtime: Time {
            seconds: 1,
            nanoseconds: 2,
        },
        atime: Time::default(),
        btime: Time::default(),
        layout: Layout {
            block_size: 4096,
            segment_blocks: 64,
            hash: HashAlgorithm::Sha1,
            compression: Compression::None,
        },
    };
    golden(
        Op::PutObject { id, object },
        "0007020174a4030102000202000000008020400200",
    );
}

#[test]
fn every_op_comes_back_as_it_was() {
    let object = |kind, hash| Object {
        kind,
        mode: 0o7777,
        uid: u32::MAX,
        gid: 0,
        size: 1 << 40,
        mtime: Time {
            seconds: i64::MIN,
            nanoseconds: 999_999_999,
        },
        atime: Time::default(),
        btime: Time {
            seconds: i64::MAX,
            nanoseconds: 0,
        },
        layout: Layout {
            hash,
            ..Layout::default()
        },
    };
    let id = ObjectId(u64::MAX >> 1);
    let kinds = [
        Kind::File,
        Kind::Directory,
        Kind::Symlink { target: vec![255] },
        Kind::Fifo,
        Kind::Socket,
        Kind::CharDevice { major: 1, minor: 2 },
        Kind::BlockDevice { major: 3, minor: 4 },
    ];
    let hashes = [HashAlgorithm::Blake3, HashAlgorithm::Sha256, HashAlgorithm::Sha1];
    for (kind, hash) in kinds.into_iter().zip(hashes.into_iter().cycle()) {
        let op = Op::PutObject {
            id,
            object: object(kind, hash),
        };
        assert_eq!(Op::try_from(OpRow::from(op.clone())).unwrap(), op);
    }
    for hash in [Hash::Blake3([9; 32]), Hash::Sha256([2; 32]), Hash::Sha1([3; 20])] {
        let block = BlockRef {
            key: BlockKey([9; 32]),
            length: 77,
            hash,
        };
        let op = Op::PutBlocks {
            id,
            segment: 1,
            blocks: vec![(1, Some(block)), (2, None)],
        };
        let row = OpRow::from(op.clone());
        assert_eq!(row.bytes(), 77);
        assert_eq!(Op::try_from(row).unwrap(), op);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewerRow {
    journal: u64,
}

impl Row for NewerRow {
    const VERSION: u8 = 2;
    const WHAT: &'static str = "lost row";
}

#[test]
fn a_row_of_another_version_or_cut_short_or_too_long_is_an_error_and_no_guess() {
    let newer = NewerRow { journal: 1 }.encode().unwrap();
    let error = LostRow::decode(&newer).unwrap_err().to_string();
    assert!(error.contains("version 2, this program knows 1"), "{error}");
    let row = LostRow {
        journal: 1,
        since_ns: 2,
    }
    .encode()
    .unwrap();
    assert!(LostRow::decode(&row[..row.len() - 1]).is_err());
    assert!(LostRow::decode(&[row, vec![0]].concat()).is_err());
    assert!(LostRow::decode(&[]).is_err());
}

#[test]
fn a_page_holds_the_rows_of_its_prefix_only() {
    let kv = MemoryKv::new();
    let mut txn = kv.write().unwrap();
    for id in 1..=5 {
        put(
            &mut *txn,
            &Key::List(ObjectId(id)),
            &ListRow { journal: id, scan: 0 },
        )
        .unwrap();
    }
    put(
        &mut *txn,
        &Key::Lost(NODE),
        &LostRow {
            journal: 1,
            since_ns: 1,
        },
    )
    .unwrap();
    for handle in [1, 2] {
        for session in [1, 2, 255] {
            let row = IntentRow {
                node: NODE,
                path_hint: vec![],
            };
            put(&mut *txn, &Key::Intent(Session([session; 16]), handle), &row).unwrap();
        }
    }
    let ids = |rows: Vec<(Key, ListRow)>| rows.into_iter().map(|(_, row)| row.journal).collect::<Vec<_>>();
    assert_eq!(ids(page(&*txn, Prefix::List, &[], None, 2).unwrap()), [1, 2]);
    assert_eq!(
        ids(page(&*txn, Prefix::List, &[], Some(&Key::List(ObjectId(2))), 9).unwrap()),
        [3, 4, 5]
    );
    let intents = page::<IntentRow>(&*txn, Prefix::Intent, &[255; 16], None, 9).unwrap();
    assert_eq!(
        intents.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>(),
        [1, 2].map(|h| Key::Intent(Session([255; 16]), h))
    );
}
