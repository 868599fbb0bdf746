//! What is refused, and what is put in order.

use super::*;

fn refused(result: Result<Applied, TreeError>) -> String {
    match result {
        Err(TreeError::Invalid(text) | TreeError::Structure(text)) => text,
        Err(error @ TreeError::NoObject(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_can_never_be_right_is_refused_in_every_mode() {
    let bad_object = |change: &dyn Fn(&mut Object)| {
        let mut object = object(Kind::File, 0);
        change(&mut object);
        Op::PutObject {
            id: ObjectId(2),
            object,
        }
    };
    let entry = |name: &[u8]| Op::PutEntry {
        dir: ObjectId(1),
        name: name.into(),
        child: ObjectId(2),
    };
    let attribute = |name: &[u8], length| Op::PutAttribute {
        id: ObjectId(1),
        name: name.into(),
        value: vec![0; length],
    };
    let cases = [
        bad_object(&|object| object.mode = 0o10000),
        bad_object(&|object| object.size = u64::MAX),
        bad_object(&|object| object.layout.block_size = 1000),
        bad_object(&|object| object.mtime.nanoseconds = 1_000_000_000),
        bad_object(&|object| (object.kind, object.size) = (Kind::Directory, 1)),
        bad_object(&|object| object.kind = Kind::Symlink { target: Vec::new() }),
        bad_object(&|object| {
            object.kind = Kind::Symlink {
                target: vec![b'x'; 4096],
            }
        }),
        Op::PutObject {
            id: ObjectId(0),
            object: object(Kind::File, 0),
        },
        drop_object(u64::MAX),
        entry(b""),
        entry(b".."),
        entry(b"a/b"),
        entry(b"a\0b"),
        entry(&[b'n'; 256]),
        attribute(b"", 0),
        attribute(b"a\0", 0),
        attribute(&[b'n'; 256], 0),
        attribute(b"big", 65537),
        Op::PutBlocks {
            id: ObjectId(1),
            segment: u64::MAX,
            blocks: Vec::new(),
        },
    ];
    let store = Store::new();
    store.mirror(1, &[put_dir(1)]);
    for op in cases {
        for checks in [Checks::Mirror, Checks::Strict] {
            let result = store.commit(checks, 2, std::slice::from_ref(&op));
            assert!(matches!(result, Err(TreeError::Invalid(_))), "{op:?} {result:?}");
        }
        assert!(
            matches!(store.apply(2, &op), Err(TreeError::Invalid(_))),
            "{op:?}"
        );
    }
}

#[test]
fn a_block_that_does_not_fit_the_layout_is_refused_in_every_mode() {
    let store = Store::new();
    store.mirror(1, &[put_file(2, 100)]);
    let put = |position, block| Op::PutBlocks {
        id: ObjectId(2),
        segment: 0,
        blocks: vec![(position, Some(block))],
    };
    let other_hash = BlockRef {
        length: BLOCK,
        ..hash_block(b"x", HashAlgorithm::Sha1)
    };
    for op in [
        put(4, block("x")),
        put(
            0,
            BlockRef {
                length: 0,
                ..block("x")
            },
        ),
        put(
            0,
            BlockRef {
                length: BLOCK + 1,
                ..block("x")
            },
        ),
        put(0, other_hash),
    ] {
        for checks in [Checks::Mirror, Checks::Strict] {
            refused(store.commit(checks, 2, std::slice::from_ref(&op)));
        }
        refused(store.apply(2, &op));
    }
}

#[test]
fn a_refused_op_leaves_the_whole_commit_undone() {
    let store = Store::new();
    let result = store.commit(Checks::Mirror, 1, &[put_dir(1), put_entry(1, "..", 2)]);
    assert!(result.is_err());
    assert_eq!(store.rows(), 0);
}

#[test]
fn one_by_one_blocks_and_attributes_need_their_object() {
    let store = Store::new();
    assert_eq!(
        refused(store.apply(1, &put_attribute(2, "a", "v"))),
        "object 2 does not exist"
    );
    assert_eq!(
        refused(store.apply(1, &put_block(2, 0, 0, "x"))),
        "object 2 does not exist"
    );
    store.apply(1, &put_file(2, 1)).unwrap();
    store.apply(1, &put_block(2, 0, 0, "x")).unwrap();
    assert_eq!(
        refused(store.apply(1, &put_block(2, 0, 1, "x"))),
        "object 2: block 1 of segment 0 is beyond its 4096 bytes"
    );
    assert!(!store.apply(1, &punch(2, 9, 3)).unwrap().changed());
    store.apply(1, &put_dir(3)).unwrap();
    assert_eq!(
        refused(store.apply(1, &put_block(3, 0, 0, "x"))),
        "object 3 is no file and has no content"
    );
}

#[test]
fn one_by_one_an_object_keeps_its_kind_and_layout() {
    let store = Store::new();
    store.apply(1, &put_file(2, 1)).unwrap();
    refused(store.apply(2, &put_dir(2)));
    let mut other = object(Kind::File, 1);
    other.layout.block_size = 8192;
    refused(store.apply(
        2,
        &Op::PutObject {
            id: ObjectId(2),
            object: other,
        },
    ));
    let mut plain = object(Kind::File, 1);
    plain.layout.compression = crate::model::Compression::None;
    assert!(
        store
            .apply(
                2,
                &Op::PutObject {
                    id: ObjectId(2),
                    object: plain
                }
            )
            .unwrap()
            .changed()
    );
}

/// After the source has lost its catalog, the ids mean other objects, and rows that are equal are not sent again.
#[test]
fn a_resync_that_changes_the_layout_keeps_the_blocks_that_still_fit() {
    let store = Store::new();
    store.mirror(
        1,
        &[put_file(2, 8), put_block(2, 0, 0, "x"), put_block(2, 0, 3, "y")],
    );
    let mut smaller = object(Kind::File, 8 * u64::from(BLOCK));
    smaller.layout.segment_blocks = 2;
    store.mirror(
        2,
        &[Op::PutObject {
            id: ObjectId(2),
            object: smaller,
        }],
    );
    let (segment, _) = store.head(|tree| tree.segment(ObjectId(2), 0).unwrap().unwrap());
    assert_eq!(segment.blocks, [(0, block("x"), 1)]);
    store.mirror(3, &[put_dir(2)]);
    assert_eq!(store.head(|tree| tree.segments(ObjectId(2), 0, 9).unwrap()), []);
}

#[test]
fn a_mirrored_commit_may_name_blocks_before_their_file_and_lose_those_without_one() {
    let store = Store::new();
    let ops = [
        put_block(2, 0, 1, "x"),
        put_block(2, 0, 0, "x"),
        put_attribute(3, "a", "v"),
        put_block(4, 0, 0, "x"),
    ];
    store.mirror(1, &[&ops[..], &[put_file(2, 1), put_dir(4)]].concat());
    store.head(|tree| {
        assert_eq!(tree.segment(ObjectId(2), 0).unwrap().unwrap().0.blocks.len(), 1);
        assert_eq!(tree.attributes(ObjectId(3)).unwrap(), []);
        assert_eq!(tree.segments(ObjectId(4), 0, 9).unwrap(), []);
    });
}

#[test]
fn a_mirrored_commit_may_end_in_the_middle_of_a_rename() {
    let store = Store::new();
    store.mirror(1, &[put_dir(1), put_dir(2), put_entry(1, "a", 2)]);
    store.mirror(2, &[put_entry(1, "b", 2), put_entry(2, "later", 9)]);
    assert_eq!(store.head(|tree| tree.names(ObjectId(2)).unwrap().len()), 2);
    store.mirror(3, &[drop_entry(1, "a"), put_file(9, 0)]);
    assert_eq!(
        store.head(|tree| tree.path_of(ObjectId(9)).unwrap()),
        Some(b"b/later".to_vec())
    );
}

fn strict_store() -> Store {
    let store = Store::new();
    let ops = [
        put_dir(1),
        put_dir(2),
        put_dir(3),
        put_file(4, 1),
        put_entry(1, "d", 2),
        put_entry(2, "sub", 3),
        put_entry(1, "f", 4),
    ];
    store.commit(Checks::Strict, 1, &ops).unwrap();
    store
}

#[test]
fn a_client_cannot_bend_the_tree() {
    let store = strict_store();
    let refuse = |ops: &[Op]| refused(store.commit(Checks::Strict, 2, ops));
    assert_eq!(refuse(&[put_entry(9, "x", 4)]), "object 9 does not exist");
    assert_eq!(refuse(&[put_entry(4, "x", 2)]), "object 4 is no directory");
    assert_eq!(refuse(&[put_entry(1, "x", 9)]), "object 9 does not exist");
    assert_eq!(
        refuse(&[put_entry(1, "x", 2)]),
        "directory 2 cannot have two names"
    );
    assert_eq!(refuse(&[put_entry(3, "x", 1)]), "the root directory has no name");
    assert_eq!(
        refuse(&[drop_entry(1, "d"), put_entry(3, "x", 2)]),
        "directory 2 cannot be moved into itself"
    );
    assert_eq!(
        refuse(&[drop_entry(1, "d"), drop_object(2)]),
        "directory 2 is not empty"
    );
    assert_eq!(refuse(&[drop_object(4)]), "object 4 still has a name");
    assert_eq!(refuse(&[drop_object(9)]), "object 9 does not exist");
    assert_eq!(refuse(&[drop_object(1)]), "the root directory cannot be removed");
    assert_eq!(refuse(&[put_attribute(9, "a", "v")]), "object 9 does not exist");
    assert_eq!(
        refuse(&[put_block(4, 0, 1, "x")]),
        "object 4: block 1 of segment 0 is beyond its 4096 bytes"
    );
}

#[test]
fn a_client_can_do_what_file_systems_do() {
    let store = strict_store();
    let moved = [
        drop_entry(2, "sub"),
        put_entry(1, "sub", 3),
        drop_entry(1, "d"),
        put_entry(3, "d", 2),
    ];
    store.commit(Checks::Strict, 2, &moved).unwrap();
    assert_eq!(
        store.head(|tree| tree.resolve(b"sub/d").unwrap()),
        Some(ObjectId(2))
    );
    store
        .commit(Checks::Strict, 3, &[put_entry(2, "second", 4)])
        .unwrap();
    store
        .commit(
            Checks::Strict,
            4,
            &[drop_entry(2, "second"), drop_entry(1, "f"), drop_object(4)],
        )
        .unwrap();
    store
        .commit(Checks::Strict, 5, &[drop_entry(3, "d"), drop_object(2)])
        .unwrap();
    assert_eq!(store.head(|tree| tree.totals().unwrap().objects), 2);
}
