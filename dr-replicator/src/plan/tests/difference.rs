//! Differences of blocks through coalescing.

use super::{BLOCK, any_id, any_op, object, possible};
use crate::fake::Model;
use crate::plan::plan;
use crate::source::Change;
use proptest::prelude::*;
use restfs_lib::content::{Difference, cut, differing, hash_block, patch};
use restfs_lib::model::{BlockKey, BlockRef, HashAlgorithm, ObjectId, Op};
use std::collections::HashMap;

/// Content of a block in four parts, by a number of four digits.
fn content(parts: u8) -> Vec<u8> {
    let part = |shift: u8| vec![parts >> shift & 3; BLOCK as usize / 4];
    [part(6), part(4), part(2), part(0)].concat()
}

fn block(parts: u8) -> BlockRef {
    hash_block(&content(parts), HashAlgorithm::Blake3)
}

fn contents() -> HashMap<BlockKey, Vec<u8>> {
    (0..=255)
        .map(|parts| (block(parts).key, content(parts)))
        .collect()
}

fn since(base: &BlockRef, new: &BlockRef, contents: &HashMap<BlockKey, Vec<u8>>) -> Difference {
    Difference::new(base.key, differing(&contents[&base.key], &contents[&new.key]))
}

/// The possible ones of the ops as changes, with all differences there are.
fn log(ops: Vec<Op>, tree: &mut Model, contents: &HashMap<BlockKey, Vec<u8>>) -> Vec<Change> {
    let mut changes = Vec::new();
    for op in ops {
        if !possible(tree, &op) {
            continue;
        }
        let mut differences = Vec::new();
        if let Op::PutBlocks { id, segment, blocks } = &op {
            for (position, new) in blocks {
                let base = tree.segments.get(&(*id, *segment)).and_then(|s| s.get(position));
                if let (Some(base), Some(new)) = (base, new) {
                    differences.push((*position, since(base, new, contents)));
                }
            }
        }
        tree.apply(&op);
        let sequence = changes.len() as u64 + 1;
        changes.push(Change {
            sequence,
            journal: sequence,
            time_ns: sequence as i64,
            op,
            since: differences,
        });
    }
    changes
}

fn any_change() -> impl Strategy<Value = Op> {
    // A source names a place once in an op.
    let blocks =
        proptest::collection::btree_map(0u32..4, any::<u8>().prop_map(|parts| Some(block(parts))), 1..3);
    let blocks = blocks.prop_map(|blocks| blocks.into_iter().collect());
    prop_oneof![
        1 => any_op().prop_filter("blocks of this test only", |op| !matches!(op, Op::PutBlocks { .. })),
        3 => (any_id(), 0u64..3, blocks).prop_map(|(id, segment, blocks)| Op::PutBlocks { id, segment, blocks }),
    ]
}

proptest! {
    #[test]
    fn a_site_that_is_where_a_commit_begins_can_make_every_block_of_its_difference(
        before in proptest::collection::vec(any_change(), 0..40),
        after in proptest::collection::vec(any_change(), 1..40),
    ) {
        let contents = contents();
        let mut here = Model::default();
        log(before, &mut here, &contents);
        let there = here.clone();
        let changes = log(after, &mut here, &contents);
        let Some(plan) = plan(&changes, u64::MAX) else { return Ok(()) };
        for (key, difference) in &plan.differences {
            let base = there.segments.values().flat_map(|s| s.values()).any(|b| b.key == difference.base);
            prop_assert!(base, "the site does not have the base");
            let (ranges, bytes) = cut(&contents[key], difference.ranges());
            let made = patch(&contents[&difference.base], BLOCK as usize, &ranges, &bytes);
            prop_assert_eq!(made.as_ref(), Some(&contents[key]));
        }
    }
}

#[test]
fn writes_one_after_another_into_one_block_are_one_difference_from_what_the_site_has() {
    let contents = contents();
    let id = ObjectId(2);
    let write = |parts| Op::PutBlocks {
        id,
        segment: 0,
        blocks: vec![(1, Some(block(parts)))],
    };
    let mut tree = Model::default();
    let object = object(0, 4);
    tree.apply_all(&[Op::PutObject { id, object }, write(0)]);
    // Another part each time.
    let changes = log(vec![write(0b0100_0000), write(0b0100_0001)], &mut tree, &contents);
    let both = plan(&changes, u64::MAX).unwrap();
    let difference = &both.differences[&block(0b0100_0001).key];
    assert_eq!(difference.base, block(0).key);
    assert_eq!(difference.bytes(), u64::from(BLOCK) / 2);
    let second = plan(&changes[1..], u64::MAX).unwrap();
    assert_eq!(
        second.differences[&block(0b0100_0001).key].base,
        block(0b0100_0000).key
    );
}

#[test]
fn of_a_chain_with_a_gap_nothing_is_said() {
    let contents = contents();
    let id = ObjectId(2);
    let write = |parts: Option<u8>| Op::PutBlocks {
        id,
        segment: 0,
        blocks: vec![(1, parts.map(block))],
    };
    let mut tree = Model::default();
    let object = object(0, 4);
    tree.apply_all(&[Op::PutObject { id, object }, write(Some(0))]);
    let mut changes = log(vec![write(Some(1)), write(Some(5))], &mut tree.clone(), &contents);
    changes[0].since.clear();
    assert!(plan(&changes, u64::MAX).unwrap().differences.is_empty());
    let hole = log(
        vec![write(None), write(Some(1)), write(Some(5))],
        &mut tree,
        &contents,
    );
    assert!(plan(&hole, u64::MAX).unwrap().differences.is_empty());
}
