//! The catalog's rows and keys, for the fuzz targets.

use super::dirt::Unread;
use super::exclude::Exclude;
use super::store::*;
use restfs_lib::content::Difference;
use restfs_lib::model::Op;
use std::fmt::Debug;

/// The first byte says which kind of row the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind {
        0 => key(bytes),
        1 => same::<SourceRow>(bytes, |_| ()),
        2 => same::<DevicesRow>(bytes, |_| ()),
        3 => same::<HeadRow>(bytes, |_| ()),
        4 => same::<CursorRow>(bytes, |_| ()),
        5 => same::<CutRow>(bytes, |_| ()),
        6 => same::<GapRow>(bytes, |_| ()),
        7 => same::<ExcludeRow>(bytes, |row| {
            let _ = Exclude::new(&row).matches(b"some name.tmp");
        }),
        8 => same::<ScanRow>(bytes, |_| ()),
        9 => same::<NodeRow>(bytes, |_| ()),
        10 => same::<DirtRow>(bytes, dirt),
        11 => same::<IntentRow>(bytes, |_| ()),
        12 => same::<DisplacedRow>(bytes, |_| ()),
        13 => same::<LookRow>(bytes, |_| ()),
        14 => same::<LostRow>(bytes, |_| ()),
        15 => same::<ListRow>(bytes, |_| ()),
        16 => same::<LogRow>(bytes, |row| {
            let _ = (row.op.bytes(), row.op.keys().count(), Op::try_from(row.op));
        }),
        _ => same::<SinceRow>(bytes, |row| {
            for (_, difference) in Vec::<(u32, Difference)>::from(row) {
                assert!(difference.ranges().len() <= restfs_lib::content::MAX_RANGES);
                let _ = difference.bytes();
            }
        }),
    }
}

fn same<R: Row + PartialEq + Debug>(bytes: &[u8], used: impl Fn(R)) {
    if let Ok(row) = R::decode(bytes) {
        let again = row.encode().expect("what was read can be written");
        assert_eq!(R::decode(&again).ok().as_ref(), Some(&row));
        used(row);
    }
}

fn key(bytes: &[u8]) {
    if let Some(key) = Key::parse(bytes) {
        assert_eq!(key.bytes(), bytes);
    }
}

fn dirt(row: DirtRow) {
    let mut unread = Unread::from(row);
    let _ = (unread.bytes(), unread.dirt.blocks(64 * 1024).len());
    unread.dirt.add(5..u64::MAX);
    unread.dirt.remove(0..9);
}

/// A row of each kind, as far as they can be made from nothing.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = restfs_lib::model::ObjectId(300);
    let block = restfs_lib::content::hash_block(b"abc", Default::default());
    let put = Op::PutBlocks {
        id,
        segment: 1,
        blocks: vec![(0, Some(block)), (9, None)],
    };
    let log = LogRow {
        journal: 1,
        time_ns: 2,
        covered: 3,
        oldest_ns: 4,
        bytes: 5,
        end: EndRow::Exact,
        op: put.into(),
    };
    let ranges = vec![1..5, 100..4096];
    let since: &[_] = &[(3, Difference::new(block.key, ranges))];
    let dirt = DirtRow {
        journal: 1,
        touched: Touch::Told,
        ranges: vec![(0, 9), (20, u64::MAX), (5, 3)],
        ..DirtRow::default()
    };
    let exclude = ExcludeRow {
        text: b"/~$*/*.tmp/?x/".to_vec(),
        ..ExcludeRow::default()
    };
    let devices = DevicesRow {
        numbers: vec![1, 300],
    };
    [
        (0, Some(Key::Look(id, b"name".to_vec()).bytes())),
        (2, devices.encode().ok()),
        (3, HeadRow::default().encode().ok()),
        (5, CutRow::default().encode().ok()),
        (7, exclude.encode().ok()),
        (8, ScanRow::default().encode().ok()),
        (10, dirt.encode().ok()),
        (16, log.encode().ok()),
        (17, SinceRow::from(since).encode().ok()),
    ]
    .into_iter()
    .filter_map(|(kind, bytes)| Some([&[kind][..], &bytes?].concat()))
    .collect()
}
