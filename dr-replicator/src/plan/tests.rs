mod difference;

use super::*;
use crate::fake::Model;
use proptest::prelude::*;
use restfs_lib::content::hash_block;
use restfs_lib::model::{BlockRef, HashAlgorithm, Kind, Layout, Object, ObjectId, Op, Time};

const BLOCK: u32 = 4096;

fn block(content: u8) -> BlockRef {
    hash_block(&vec![content; BLOCK as usize], HashAlgorithm::Blake3)
}

fn object(mode: u32, blocks: u64) -> Object {
    Object {
        kind: Kind::File,
        mode,
        uid: 0,
        gid: 0,
        size: blocks * u64::from(BLOCK),
        mtime: Time::default(),
        atime: Time::default(),
        btime: Time::default(),
        layout: Layout {
            block_size: BLOCK,
            segment_blocks: 4,
            ..Layout::default()
        },
    }
}

fn any_id() -> impl Strategy<Value = ObjectId> {
    (1u64..6).prop_map(ObjectId)
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    "[a-c]".prop_map(String::into_bytes)
}

fn any_op() -> impl Strategy<Value = Op> {
    let blocks = proptest::collection::vec((0u32..4, proptest::option::of((0u8..4).prop_map(block))), 1..4);
    prop_oneof![
        3 => (any_id(), 0u32..4, 0u64..10).prop_map(|(id, mode, n)| Op::PutObject { id, object: object(mode, n) }),
        1 => any_id().prop_map(|id| Op::DropObject { id }),
        3 => (any_id(), any_name(), any_id()).prop_map(|(dir, name, child)| Op::PutEntry { dir, name, child }),
        2 => (any_id(), any_name()).prop_map(|(dir, name)| Op::DropEntry { dir, name }),
        2 => (any_id(), any_name(), any::<u8>())
            .prop_map(|(id, name, value)| Op::PutAttribute { id, name, value: vec![value] }),
        1 => (any_id(), any_name()).prop_map(|(id, name)| Op::DropAttribute { id, name }),
        5 => (any_id(), 0u64..3, blocks).prop_map(|(id, segment, blocks)| Op::PutBlocks { id, segment, blocks }),
    ]
}

/// A source does only what is possible: attributes and blocks of objects that are there, blocks below the end.
fn possible(tree: &Model, op: &Op) -> bool {
    match op {
        Op::PutAttribute { id, .. } | Op::DropAttribute { id, .. } => tree.objects.contains_key(id),
        Op::PutBlocks { id, segment, blocks } => tree.objects.get(id).is_some_and(|o| {
            blocks.iter().all(|(position, _)| {
                o.layout
                    .expected_length(o.layout.block_at(*segment, *position), o.size)
                    > 0
            })
        }),
        _ => true,
    }
}

/// The possible ones of the ops as changes, and the tree they make.
fn log(ops: Vec<Op>, tree: &mut Model) -> Vec<Change> {
    let mut changes = Vec::new();
    for op in ops {
        if possible(tree, &op) {
            tree.apply(&op);
            let sequence = changes.len() as u64 + 1;
            changes.push(Change {
                sequence,
                journal: sequence,
                time_ns: sequence as i64,
                op,
                since: Vec::new(),
            });
        }
    }
    changes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn coalesced_commits_make_the_tree_that_the_changes_made_one_by_one(
        before in proptest::collection::vec(any_op(), 0..30),
        after in proptest::collection::vec(any_op(), 1..60),
    ) {
        let mut here = Model::default();
        log(before, &mut here);
        let mut there = here.clone();
        let changes = log(after, &mut here);
        let mut left = changes.as_slice();
        let mut next = 1;
        while let Some(plan) = plan(left, u64::MAX) {
            prop_assert_eq!(plan.first, next);
            prop_assert!(plan.last >= plan.first);
            prop_assert_eq!(plan.noted_ns.len() as u64, plan.last - plan.first + 1);
            there.apply_all(&plan.ops);
            next = plan.last + 1;
            left = &changes[plan.last as usize..];
        }
        prop_assert_eq!(next, changes.len() as u64 + 1);
        prop_assert_eq!(here, there);
    }

    #[test]
    fn one_commit_of_all_changes_makes_the_same_tree_or_is_not_planned(
        before in proptest::collection::vec(any_op(), 0..30),
        after in proptest::collection::vec(any_op(), 1..60),
    ) {
        let mut here = Model::default();
        log(before, &mut here);
        let mut there = here.clone();
        let changes = log(after, &mut here);
        let by_parts = plan(&changes, u64::MAX);
        let whole = plan_whole(&changes);
        let all = by_parts.is_some_and(|plan| plan.last == changes.len() as u64);
        prop_assert_eq!(whole.is_some(), all);
        if let Some(plan) = whole {
            prop_assert_eq!((plan.first, plan.last), (1, changes.len() as u64));
            there.apply_all(&plan.ops);
            prop_assert_eq!(here, there);
        }
    }

    #[test]
    fn no_row_is_stated_twice_but_for_an_object_that_shrank_on_its_way(
        ops in proptest::collection::vec(any_op(), 1..60),
    ) {
        let mut tree = Model::default();
        let changes = log(ops, &mut tree);
        let Some(plan) = plan(&changes, u64::MAX) else { return Ok(()) };
        let mut seen = std::collections::HashMap::new();
        for op in &plan.ops {
            let times = seen.entry(row_of(op)).or_insert(0);
            *times += 1;
            let most = if matches!(op, Op::PutObject { .. }) { 2 } else { 1 };
            prop_assert!(*times <= most, "{op:?}");
        }
    }

    #[test]
    fn a_commit_names_no_more_bytes_than_allowed(
        ops in proptest::collection::vec(any_op(), 1..60),
        most in 1u64..10,
    ) {
        let most = most * u64::from(BLOCK);
        let changes = log(ops, &mut Model::default());
        let Some(plan) = plan(&changes, most) else { return Ok(()) };
        prop_assert!(plan.bytes <= most || plan.first == plan.last);
    }
}

fn row_of(op: &Op) -> String {
    match op {
        Op::PutObject { id, .. } => format!("object {id:?}"),
        Op::DropObject { id } => format!("drop {id:?}"),
        Op::PutEntry { dir, name, .. } | Op::DropEntry { dir, name } => format!("entry {dir:?} {name:?}"),
        Op::PutAttribute { id, name, .. } | Op::DropAttribute { id, name } => {
            format!("attribute {id:?} {name:?}")
        }
        Op::PutBlocks { id, segment, .. } => format!("segment {id:?} {segment}"),
    }
}

#[test]
fn a_file_that_was_cut_and_grew_again_has_a_hole_where_it_was_cut() {
    let id = ObjectId(2);
    let put = |n| Op::PutObject {
        id,
        object: object(0, n),
    };
    let write = |segment, position| Op::PutBlocks {
        id,
        segment,
        blocks: vec![(position, Some(block(1)))],
    };
    let mut tree = Model::default();
    tree.apply_all(&[put(8), write(0, 0), write(1, 3)]);
    let changes = log(vec![write(1, 2), put(1), put(8), write(1, 0)], &mut tree.clone());
    let plan = plan(&changes, u64::MAX).unwrap();
    tree.apply_all(&plan.ops);
    let kept: Vec<_> = tree
        .segments
        .iter()
        .map(|((_, segment), blocks)| (*segment, blocks.len()))
        .collect();
    assert_eq!(kept, [(0, 1), (1, 1)]);
}

#[test]
fn places_of_changed_blocks_are_corrected_and_those_of_gone_objects_left_out() {
    let put = |id, blocks: Vec<u32>| Op::PutBlocks {
        id: ObjectId(id),
        segment: 0,
        blocks: blocks.into_iter().map(|p| (p, Some(block(1)))).collect(),
    };
    let mut ops = vec![put(2, vec![0, 1, 2]), put(3, vec![0])];
    let blocks = Blocks::of(&ops);
    assert_eq!(blocks.keys().len(), 1);
    let first = blocks.firsts()[0];
    let second = blocks.after(&first).unwrap();
    let third = blocks.after(&second).unwrap();
    let last = blocks.after(&third).unwrap();
    assert_eq!((last.object, blocks.after(&last)), (ObjectId(3), None));
    correct(
        &mut ops,
        &[
            (first, Found::Gone),
            (second, Found::Newer(block(2))),
            (third, Found::Hole),
            (last, Found::Gone),
        ],
    );
    let expected = Op::PutBlocks {
        id: ObjectId(2),
        segment: 0,
        blocks: vec![(1, Some(block(2))), (2, None)],
    };
    assert_eq!(ops, [expected]);
}

#[test]
fn a_commit_of_all_changes_takes_as_many_bytes_and_as_much_weight_as_a_site_does() {
    let id = ObjectId(1);
    let change = |n: u64, op| Change {
        sequence: n,
        journal: n,
        time_ns: 0,
        op,
        since: Vec::new(),
    };
    let value = vec![7; 1 << 20];
    let heavy = |count: u64| -> Vec<Change> {
        let attribute = |n: u64| Op::PutAttribute {
            id,
            name: n.to_string().into_bytes(),
            value: value.clone(),
        };
        (1..=count).map(|n| change(n, attribute(n))).collect()
    };
    assert_eq!(plan(&heavy(13), 1).map(|plan| plan.last), Some(5));
    assert_eq!(plan_whole(&heavy(13)).map(|plan| plan.last), Some(13));
    assert_eq!(plan_whole(&heavy(14)), None);

    let put = |n: u64| Op::PutObject {
        id: ObjectId(n),
        object: object(0, 0),
    };
    let many = |count: u64| -> Vec<Change> { (1..=count).map(|n| change(n, put(n))).collect() };
    assert!(plan_whole(&many(MAX_OPS as u64)).is_some());
    assert_eq!(plan_whole(&many(MAX_OPS as u64 + 1)), None);
    assert_eq!(plan_whole(&[]), None);
}
