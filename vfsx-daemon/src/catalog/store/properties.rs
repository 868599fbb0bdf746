//! Whatever a row or key says, it says after it was stored.

use super::*;
use crate::catalog::share::{Doubt, Stamp};
use crate::draw::{Draw, draw};
use crate::journal::{NodeRef, Session};
use proptest::prelude::*;
use restfs_lib::content::Difference;
use restfs_lib::kv::{Kv, KvRead, SqliteKv, SqliteOptions, Synchronous};
use restfs_lib::model::{
    BlockKey, BlockRef, Compression, Hash, HashAlgorithm, Kind, Layout, Object, ObjectId, Op, Time,
};
use std::collections::BTreeMap;
use std::fmt::Debug;

fn node(draw: &mut Draw) -> NodeRef {
    NodeRef {
        dev: draw.u64(),
        ino: draw.u64(),
        btime_ns: draw.i64(),
    }
}

fn time(draw: &mut Draw) -> Time {
    Time {
        seconds: draw.i64(),
        nanoseconds: draw.below(1_000_000_000) as u32,
    }
}

fn stamp(draw: &mut Draw) -> Stamp {
    Stamp {
        size: draw.u64(),
        mtime: time(draw),
        ctime: time(draw),
    }
}

fn doubt(draw: &mut Draw) -> Doubt {
    draw.one_of(&[Doubt::None, Doubt::Metadata, Doubt::Content])
}

fn id(draw: &mut Draw) -> ObjectId {
    ObjectId(draw.u64())
}

fn object(draw: &mut Draw) -> Object {
    let kind = match draw.below(7) {
        0 => Kind::File,
        1 => Kind::Directory,
        2 => Kind::Symlink { target: draw.bytes() },
        3 => Kind::Fifo,
        4 => Kind::Socket,
        5 => Kind::CharDevice {
            major: draw.u32(),
            minor: draw.u32(),
        },
        _ => Kind::BlockDevice {
            major: draw.u32(),
            minor: draw.u32(),
        },
    };
    Object {
        kind,
        mode: draw.u32(),
        uid: draw.u32(),
        gid: draw.u32(),
        size: draw.u64(),
        mtime: time(draw),
        atime: time(draw),
        btime: time(draw),
        layout: Layout {
            block_size: 1 << (12 + draw.below(11)),
            segment_blocks: 1 + draw.below(1024) as u32,
            hash: draw.one_of(&[HashAlgorithm::Blake3, HashAlgorithm::Sha256, HashAlgorithm::Sha1]),
            compression: draw.one_of(&[Compression::None, Compression::Zstd]),
        },
    }
}

fn block(draw: &mut Draw) -> BlockRef {
    let key = draw.array();
    BlockRef {
        key: BlockKey(key),
        length: draw.u32(),
        hash: match draw.below(3) {
            0 => Hash::Blake3(key),
            1 => Hash::Sha256(draw.array()),
            _ => Hash::Sha1(draw.array()),
        },
    }
}

fn op(draw: &mut Draw) -> Op {
    let id = id(draw);
    match draw.below(7) {
        0 => Op::PutObject {
            id,
            object: object(draw),
        },
        1 => Op::DropObject { id },
        2 => Op::PutEntry {
            dir: id,
            name: draw.bytes(),
            child: ObjectId(draw.u64()),
        },
        3 => Op::DropEntry {
            dir: id,
            name: draw.bytes(),
        },
        4 => Op::PutAttribute {
            id,
            name: draw.bytes(),
            value: draw.bytes(),
        },
        5 => Op::DropAttribute {
            id,
            name: draw.bytes(),
        },
        _ => Op::PutBlocks {
            id,
            segment: draw.u64(),
            blocks: draw.some(|draw| (draw.u32(), draw.maybe(block))),
        },
    }
}

fn log(draw: &mut Draw) -> LogRow {
    LogRow {
        journal: draw.u64(),
        time_ns: draw.i64(),
        covered: draw.u64(),
        oldest_ns: draw.i64(),
        bytes: draw.u64(),
        end: draw.one_of(&[EndRow::Within, EndRow::Whole, EndRow::Exact]),
        op: op(draw).into(),
    }
}

fn since(draw: &mut Draw) -> Vec<(u32, Difference)> {
    draw.some(|draw| {
        let mut at = 0;
        let ranges = draw.some::<_, Vec<_>>(|draw| {
            let start = at + 1 + draw.below(100) as u32;
            at = start + 1 + draw.below(100_000) as u32;
            start..at
        });
        (draw.u32(), Difference::new(BlockKey(draw.array()), ranges))
    })
}

fn scan(draw: &mut Draw) -> ScanRow {
    ScanRow {
        phase: draw.one_of(&[
            ScanPhase::Done,
            ScanPhase::Needed,
            ScanPhase::Walking,
            ScanPhase::Reading,
        ]),
        number: draw.u64(),
        again: draw.bool(),
        started_ns: draw.i64(),
        began: draw.u64(),
        walked: draw.u64(),
        directories: draw.u64(),
        files: draw.u64(),
        bytes: draw.u64(),
        differences: draw.u64(),
    }
}

/// A row, what it became, and what is made of the bytes.
fn comes_back<R: Row + PartialEq + Debug>(row: R, damage: (usize, u8)) {
    let bytes = row.encode().expect("can be written");
    assert_eq!(R::decode(&bytes).expect("what was written can be read"), row);
    let (at, bit) = (damage.0 % bytes.len(), damage.1);
    assert!(R::decode(&bytes[..at]).is_err(), "cut at {at}: {row:?}");
    let mut longer = bytes.clone();
    longer.push(bit);
    assert!(R::decode(&longer).is_err(), "a byte more: {row:?}");
    let mut other = bytes;
    other[at] ^= 1 << (bit % 8);
    if let Ok(other) = R::decode(&other) {
        // There is no checksum: SQLite's pages have that of the disk. But it is a row.
        let again = other.encode().expect("what was read can be written");
        assert_eq!(R::decode(&again).expect("can be read again"), other);
    }
}

fn every_kind_comes_back(draw: &mut Draw, damage: (usize, u8)) {
    comes_back(
        SourceRow {
            id: draw.array(),
            root: node(draw),
        },
        damage,
    );
    comes_back(
        DevicesRow {
            numbers: draw.some(Draw::u64),
        },
        damage,
    );
    comes_back(
        HeadRow {
            applied: draw.u64(),
            change: draw.u64(),
            oldest: draw.u64(),
            bytes: draw.u64(),
            next_object: draw.u64(),
        },
        damage,
    );
    comes_back(
        CutRow {
            marked: draw.u64(),
            beyond: draw.some(Draw::u64),
        },
        damage,
    );
    comes_back(
        CursorRow {
            epoch: draw.u64(),
            sequence: draw.u64(),
        },
        damage,
    );
    comes_back(
        BehindRow {
            sequence: draw.u64(),
            oldest_ns: draw.i64(),
            bytes: draw.u64(),
        },
        damage,
    );
    comes_back(
        GapRow {
            since_ns: draw.i64(),
            reason: draw.text(),
            newest: draw.u64(),
        },
        damage,
    );
    comes_back(
        LastGapRow {
            since_ns: draw.i64(),
            until_ns: draw.i64(),
            reason: draw.text(),
        },
        damage,
    );
    comes_back(
        ExcludeRow {
            text: draw.bytes(),
            case_sensitive: draw.bool(),
            since_ns: draw.i64(),
        },
        damage,
    );
    comes_back(scan(draw), damage);
    comes_back(
        NodeRow {
            node: node(draw),
            names: draw.u32(),
            stamp: StampRow::of(stamp(draw), doubt(draw)),
            scan: draw.u64(),
        },
        damage,
    );
    comes_back(
        DirtRow {
            journal: draw.u64(),
            first_ns: draw.i64(),
            last_ns: draw.i64(),
            touched: draw.one_of(&[Touch::No, Touch::Looked, Touch::Told]),
            size: draw.u64(),
            ranges: draw.some(|draw| (draw.u64(), draw.u64())),
        },
        damage,
    );
    comes_back(
        IntentRow {
            node: node(draw),
            path_hint: draw.bytes(),
        },
        damage,
    );
    comes_back(
        DisplacedRow {
            since_ns: draw.i64(),
            dead: draw.bool(),
            scan: draw.u64(),
            relist: draw.bool(),
        },
        damage,
    );
    comes_back(
        LookRow {
            journal: draw.u64(),
            time_ns: draw.i64(),
            check: draw.bool(),
        },
        damage,
    );
    comes_back(
        LostRow {
            journal: draw.u64(),
            since_ns: draw.i64(),
        },
        damage,
    );
    comes_back(
        ListRow {
            journal: draw.u64(),
            scan: draw.u64(),
        },
        damage,
    );
    comes_back(log(draw), damage);
    comes_back(SinceRow::from(&since(draw)[..]), damage);
}

fn key(draw: &mut Draw) -> Key {
    match draw.below(11) {
        0 => Key::Node(node(draw)),
        1 => Key::Object(id(draw)),
        2 => Key::Dirt(id(draw)),
        3 => Key::Intent(Session(draw.array()), draw.u64()),
        4 => Key::Displaced(id(draw)),
        5 => Key::Look(id(draw), draw.bytes()),
        6 => Key::Lost(node(draw)),
        7 => Key::List(id(draw)),
        8 => Key::Log(draw.u64()),
        9 => Key::Since(draw.u64()),
        _ => Key::Meta(draw.bytes()),
    }
}

proptest! {
    #[test]
    fn a_row_comes_back_and_one_that_is_cut_or_longer_is_none(mut draw in draw(), at: usize, bit: u8) {
        every_kind_comes_back(&mut draw, (at, bit));
    }

    #[test]
    fn a_change_is_after_its_row_what_it_was(mut draw in draw()) {
        let op = op(&mut draw);
        prop_assert_eq!(Op::try_from(OpRow::from(op.clone())).expect("is one"), op);
    }

    #[test]
    fn a_difference_is_after_its_row_what_it_was(mut draw in draw()) {
        let differences = since(&mut draw);
        let row = SinceRow::from(&differences[..]);
        let row = SinceRow::decode(&row.encode().expect("can be written")).expect("can be read");
        prop_assert_eq!(Vec::<(u32, Difference)>::from(row), differences);
    }

    #[test]
    fn what_a_stamp_says_and_what_it_does_not_come_back(mut draw in draw()) {
        let (stamp, doubt) = (stamp(&mut draw), doubt(&mut draw));
        let row = StampRow::of(stamp, doubt);
        prop_assert_eq!(Stamp::from(row), stamp);
        prop_assert_eq!(row.doubt(), doubt);
    }

    #[test]
    fn a_key_comes_back_and_leads_to_no_other_row(mut draw in draw()) {
        let (one, other) = (key(&mut draw), key(&mut draw));
        prop_assert_eq!(Key::parse(&one.bytes()), Some(one.clone()));
        prop_assert_eq!(one.bytes() == other.bytes(), one == other);
    }

    /// The log is read from a change on, and what waits is walked by object.
    #[test]
    fn numbers_lie_in_their_order(mut draw in draw()) {
        let (a, b) = (draw.u64(), draw.u64());
        let keys: [fn(u64) -> Key; 6] = [
            Key::Log,
            Key::Since,
            |n| Key::Object(ObjectId(n)),
            |n| Key::Dirt(ObjectId(n)),
            |n| Key::List(ObjectId(n)),
            |n| Key::Look(ObjectId(n), Vec::new()),
        ];
        for key in keys {
            prop_assert_eq!(key(a).bytes().cmp(&key(b).bytes()), a.cmp(&b));
        }
    }

    #[test]
    fn any_bytes_are_a_key_or_none(bytes: Vec<u8>) {
        if let Some(key) = Key::parse(&bytes) {
            prop_assert_eq!(key.bytes(), bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn sqlite_gives_what_it_was_given_in_the_order_of_the_keys(mut draw in draw(), at_a_time in 1usize..20) {
        let directory = tempfile::tempdir().expect("scratch");
        let kv = SqliteKv::open(SqliteOptions {
            path: directory.path().join("catalog.db"),
            synchronous: Synchronous::Normal,
            cache_bytes: 1 << 20,
        })
        .expect("opens");
        let mut txn = kv.write().expect("begins");
        let mut model: BTreeMap<Vec<u8>, LogRow> = BTreeMap::new();
        for _ in 0..draw.below(60) {
            let (key, row) = (key(&mut draw), log(&mut draw));
            put(&mut *txn, &key, &row).expect("puts");
            model.insert(key.bytes(), row);
        }
        txn.commit().expect("commits");
        let read = kv.read().expect("reads");
        for (key, row) in &model {
            let key = Key::parse(key).expect("is one");
            let found = get::<LogRow>(&*read, &key).expect("reads");
            prop_assert_eq!(found.as_ref(), Some(row));
        }
        for prefix in [Prefix::Node, Prefix::Look, Prefix::Log, Prefix::Meta, Prefix::Intent] {
            let found = all(&*read, prefix, at_a_time);
            let expected: Vec<_> = model.iter().filter(|(key, _)| key[0] == prefix.byte()).collect();
            prop_assert_eq!(found.iter().map(|(key, row)| (key, row)).collect::<Vec<_>>(), expected);
        }
    }
}

/// Page by page.
fn all(kv: &dyn KvRead, prefix: Prefix, at_a_time: usize) -> Vec<(Vec<u8>, LogRow)> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let rows = page::<LogRow>(kv, prefix, &[], after.as_ref(), at_a_time).expect("reads");
        let Some((last, _)) = rows.last() else {
            return found;
        };
        after = Some(last.clone());
        found.extend(rows.into_iter().map(|(key, row)| (key.bytes(), row)));
    }
}
