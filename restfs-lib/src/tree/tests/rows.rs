//! Revisions: when a row gets one, and what it says.

use super::*;
use crate::tree::{Changes, history};

#[test]
fn the_same_value_again_writes_nothing() {
    let store = Store::new();
    let ops = [
        put_dir(1),
        put_file(2, 1),
        put_entry(1, "f", 2),
        put_attribute(2, "user.a", "v"),
        put_block(2, 0, 0, "x"),
    ];
    assert_eq!(store.mirror(1, &ops).rows, 5);
    let rows = store.rows();
    assert_eq!(store.mirror(2, &ops), Applied { rows: 0 });
    assert_eq!(store.rows(), rows);
}

#[test]
fn removing_what_is_not_there_writes_nothing() {
    let store = Store::new();
    let ops = [drop_object(2), drop_entry(1, "f"), punch(2, 0, 0)];
    assert!(!store.mirror(1, &ops).changed());
    assert_eq!(store.rows(), 0);
}

#[test]
fn an_older_point_cannot_overwrite_a_newer_one() {
    let store = Store::new();
    store.mirror(5, &[put_dir(1)]);
    let late = store.commit(Checks::Mirror, 4, &[put_file(1, 0)]);
    assert_eq!(
        late,
        Err(TreeError::OldPoint {
            point: 4,
            revision: 5
        })
    );
}

#[test]
fn serials_say_which_point_wrote_row_and_block() {
    let store = Store::new();
    store.mirror(
        1,
        &[put_file(2, 8), put_block(2, 0, 0, "x"), put_block(2, 1, 0, "z")],
    );
    store.mirror(2, &[put_block(2, 0, 1, "y")]);
    store.mirror(3, &[put_block(2, 0, 0, "x"), put_block(2, 0, 1, "Y")]);
    let (segment, serial) = store.head(|tree| tree.segment(ObjectId(2), 0).unwrap().unwrap());
    assert_eq!(serial, 3);
    assert_eq!(segment.blocks, [(0, block("x"), 1), (1, block("Y"), 3)]);
    assert_eq!(
        store.head(|tree| tree.segment(ObjectId(2), 1).unwrap().unwrap().1),
        1
    );
    assert_eq!(store.head(|tree| tree.object(ObjectId(2)).unwrap().unwrap().1), 1);
}

#[test]
fn a_truncated_file_loses_its_blocks_for_good_but_not_its_past() {
    let store = Store::new();
    let blocks: Vec<Op> = (0..8)
        .map(|index| put_block(2, index / 4, (index % 4) as u32, "x"))
        .collect();
    store.mirror(1, &[vec![put_file(2, 8)], blocks].concat());
    store.mirror(2, &[put_file(2, 1)]);
    store.mirror(3, &[put_file(2, 8)]);
    let count = |tree: &Tree<'_>| {
        let segments = tree.segments(ObjectId(2), 0, 10).unwrap();
        segments
            .iter()
            .map(|(_, segment, _)| segment.blocks.len())
            .sum::<usize>()
    };
    assert_eq!(store.head(count), 1);
    assert_eq!(store.at(At::Point(2), count), 1);
    assert_eq!(store.at(At::Point(1), count), 8);
}

#[test]
fn a_renamed_directory_takes_its_tree_along_and_costs_two_rows() {
    let store = Store::new();
    store.mirror(1, &[put_dir(1), put_dir(2), put_entry(1, "old", 2)]);
    let files: Vec<Op> = (10..600)
        .flat_map(|id| [put_file(id, 0), put_entry(2, &format!("f{id}"), id)])
        .collect();
    store.mirror(2, &files);
    assert_eq!(
        store
            .mirror(3, &[drop_entry(1, "old"), put_entry(1, "new", 2)])
            .rows,
        2
    );
    assert_eq!(
        store.head(|tree| tree.resolve(b"/new/f599").unwrap()),
        Some(ObjectId(599))
    );
    assert_eq!(store.head(|tree| tree.resolve(b"old/f599").unwrap()), None);
    assert_eq!(
        store.at(At::Point(2), |tree| tree.resolve(b"old//f599/").unwrap()),
        Some(ObjectId(599))
    );
    assert_eq!(
        store.head(|tree| tree.path_of(ObjectId(599)).unwrap()),
        Some(b"new/f599".to_vec())
    );
    assert_eq!(
        store.at(At::Point(2), |tree| tree.path_of(ObjectId(599)).unwrap()),
        Some(b"old/f599".to_vec())
    );
}

#[test]
fn paths_end_at_the_root_or_nowhere() {
    let store = Store::new();
    store.mirror(
        1,
        &[
            put_dir(1),
            put_dir(2),
            put_dir(3),
            put_entry(2, "x", 3),
            put_entry(3, "y", 2),
        ],
    );
    store.head(|tree| {
        assert_eq!(tree.path_of(ObjectId::ROOT).unwrap(), Some(Vec::new()));
        assert_eq!(tree.path_of(ObjectId(9)).unwrap(), None);
        assert_eq!(tree.path_of(ObjectId(3)).unwrap(), None, "a ring");
        assert_eq!(tree.resolve(b"..").unwrap(), None);
        assert_eq!(tree.resolve(b"").unwrap(), Some(ObjectId::ROOT));
    });
}

#[test]
fn many_revisions_of_one_entry_do_not_hide_the_next() {
    let store = Store::new();
    store.mirror(
        1,
        &[
            put_dir(1),
            put_entry(1, "a", 2),
            put_entry(1, "b", 2),
            put_entry(1, "c", 2),
        ],
    );
    for point in 2..400 {
        store.mirror(point, &[put_entry(1, "b", point)]);
    }
    let names = |tree: &Tree<'_>| {
        tree.entries(ObjectId(1), None, 2)
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    for at in [At::Head, At::Point(1), At::Point(200)] {
        assert_eq!(store.at(at, names), [b"a", b"b"]);
        let rest = store.at(at, |tree| tree.entries(ObjectId(1), Some(b"b"), 9).unwrap());
        assert_eq!(rest, [(b"c".to_vec(), ObjectId(2))]);
    }
    assert_eq!(
        store.at(At::Point(200), |tree| tree.lookup(ObjectId(1), b"b").unwrap()),
        Some(ObjectId(200))
    );
}

#[test]
fn names_with_nul_from_outside_find_nothing_and_break_nothing() {
    let store = Store::new();
    store.mirror(
        1,
        &[
            put_dir(1),
            put_entry(1, "a", 2),
            put_entry(1, "b", 2),
            put_attribute(1, "x", "1"),
        ],
    );
    store.head(|tree| {
        assert_eq!(tree.lookup(ObjectId(1), b"a\0").unwrap(), None);
        assert_eq!(tree.attribute(ObjectId(1), b"x\0\xff").unwrap(), None);
        assert_eq!(
            tree.entries(ObjectId(1), Some(b"a\0z"), 9).unwrap(),
            [(b"b".to_vec(), ObjectId(2))]
        );
    });
}

#[test]
fn a_history_tells_what_each_point_changed() {
    let store = Store::new();
    store.mirror(1, &[put_dir(1), put_file(2, 8), put_entry(1, "a", 2)]);
    store.mirror(2, &[put_block(2, 0, 0, "x"), put_block(2, 1, 0, "y")]);
    store.mirror(3, &[put_file(3, 0)]);
    store.mirror(
        4,
        &[
            drop_entry(1, "a"),
            put_entry(1, "b", 2),
            put_attribute(2, "user.x", "1"),
        ],
    );
    store.mirror(5, &[drop_entry(1, "b"), drop_object(2)]);
    let read = store.0.read().unwrap();
    let all = |before, limit| history(read.as_ref(), BUCKET, ObjectId(2), before, limit).unwrap();
    let expected = [
        Changes {
            point: 5,
            removed: true,
            segments: 2,
            attributes: vec![b"user.x".to_vec()],
            unnamed: vec![(ObjectId(1), b"b".to_vec())],
            ..Changes::default()
        },
        Changes {
            point: 4,
            attributes: vec![b"user.x".to_vec()],
            named: vec![(ObjectId(1), b"b".to_vec())],
            unnamed: vec![(ObjectId(1), b"a".to_vec())],
            ..Changes::default()
        },
        Changes {
            point: 2,
            segments: 2,
            ..Changes::default()
        },
        Changes {
            point: 1,
            properties: true,
            named: vec![(ObjectId(1), b"a".to_vec())],
            ..Changes::default()
        },
    ];
    assert_eq!(all(None, 10), expected);
    assert_eq!(all(None, 2), expected[..2]);
    assert_eq!(all(Some(4), 10), expected[2..]);
}

#[test]
fn a_damaged_row_is_an_error_and_not_a_missing_file() {
    use crate::tree::keys;
    let store = Store::new();
    store.mirror(1, &[put_dir(1)]);
    let key = keys::revision(&keys::object(BUCKET, ObjectId(1)), 1);
    for damaged in [&b""[..], &[9], &[1], &[1, 1, 0]] {
        transact(&store.0, |txn| txn.put(&key, damaged)).unwrap();
        let read = store.head(|tree| tree.object(ObjectId(1)));
        assert!(matches!(read, Err(TreeError::Corrupt(_))), "{damaged:?} {read:?}");
    }
}
