//! Random commits against the model.

use super::model::{Model, head_and_points, ids_of};
use super::*;
use proptest::prelude::*;

fn id() -> impl Strategy<Value = ObjectId> {
    // Two groups, and the border between them.
    prop_oneof![Just(1), Just(2), Just(3), Just(1023), Just(1024)].prop_map(ObjectId)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just("a"), Just("a\x01"), Just("b"), Just("\u{ff}")].prop_map(Vec::from)
}

fn object_value() -> impl Strategy<Value = Object> {
    let size = prop_oneof![Just(0), 0u64..10 * u64::from(BLOCK)];
    let file = (size, 0u32..3).prop_map(|(size, uid)| Object {
        uid,
        ..object(Kind::File, size)
    });
    let dir = (0u32..3).prop_map(|uid| Object {
        uid,
        ..object(Kind::Directory, 0)
    });
    prop_oneof![4 => file, 1 => dir]
}

fn blocks() -> impl Strategy<Value = Vec<(u32, Option<BlockRef>)>> {
    let content = prop::option::weighted(0.8, prop_oneof![Just("x"), Just("y")].prop_map(block));
    prop::collection::vec((0..LAYOUT.segment_blocks, content), 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (id(), object_value()).prop_map(|(id, object)| Op::PutObject { id, object }),
        1 => id().prop_map(|id| Op::DropObject { id }),
        3 => (id(), name(), id()).prop_map(|(dir, name, child)| Op::PutEntry { dir, name, child }),
        1 => (id(), name()).prop_map(|(dir, name)| Op::DropEntry { dir, name }),
        2 => (id(), name(), 0u8..3).prop_map(|(id, name, value)| Op::PutAttribute { id, name, value: vec![value] }),
        1 => (id(), name()).prop_map(|(id, name)| Op::DropAttribute { id, name }),
        5 => (id(), 0u64..3, blocks()).prop_map(|(id, segment, blocks)| Op::PutBlocks { id, segment, blocks }),
    ]
}

pub(super) fn commits() -> impl Strategy<Value = Vec<Vec<Op>>> {
    prop::collection::vec(prop::collection::vec(op(), 0..8), 1..12)
}

/// What a store over a wire of its own would hold: the head alone.
fn head_only(commits: &[Vec<Op>]) -> Store {
    let store = Store::new();
    for (point, ops) in (1..).zip(commits) {
        let apply = |txn: &mut dyn crate::kv::KvWrite| {
            apply_all(txn, BUCKET, point, History::HeadOnly, Checks::Mirror, ops)
        };
        transact(&store.0, apply).unwrap();
    }
    store
}

pub(super) fn bucket_with(commits: &[Vec<Op>]) -> Store {
    use crate::tree::{bucket, commit};
    let store = Store::new();
    transact(&store.0, |txn| bucket::create(txn, "b", LAYOUT, 0)).unwrap();
    for ops in commits {
        let info = commit::CommitInfo::default();
        transact(&store.0, |txn| {
            commit::commit(txn, BUCKET, Checks::Mirror, info.clone(), ops)
        })
        .unwrap();
    }
    store
}

proptest! {
    #[test]
    fn every_point_reads_as_the_model_was_then(commits in commits(), page in 1usize..4) {
        let store = bucket_with(&commits);
        let ids = ids_of(&commits.concat());
        let mut states = vec![Model::default()];
        for ops in &commits {
            let mut next = states.last().unwrap().clone();
            next.mirror(ops);
            states.push(next);
        }
        let newest = commits.len() as u64;
        for at in head_and_points(newest) {
            let state = match at {
                At::Head => states.last().unwrap(),
                At::Point(point) => &states[point as usize],
            };
            store.at(at, |tree| {
                state.compare(tree, &ids, page, newest);
                assert_eq!(tree.totals().unwrap(), state.totals());
            });
        }
        store.head(|tree| states.last().unwrap().compare_groups(tree, page));
    }

    #[test]
    fn a_head_without_history_reads_the_same_and_keeps_one_row_each(commits in commits(), page in 1usize..4) {
        let store = head_only(&commits);
        let mut model = Model::default();
        commits.iter().for_each(|ops| model.mirror(ops));
        store.head(|tree| {
            model.compare(tree, &ids_of(&commits.concat()), page, commits.len() as u64);
            model.compare_groups(tree, page);
        });
        prop_assert_eq!(store.head(|tree| tree.totals().unwrap()), bucket_with(&commits).head(|tree| tree.totals().unwrap()));
        // Entries have their back links, groups and sums their digests.
        let groups = store.head(|tree| tree.groups(None, usize::MAX).unwrap()).len();
        let links = model.rows().keys().filter(|row| matches!(row, crate::model::RowKey::Entry { .. })).count();
        let sums = store.rows() - groups - links - model.rows().len();
        prop_assert!(sums <= 1, "{sums} rows are left over");
    }

    /// What source and site rest on: the catalog applies one op after another, the site takes them in batches.
    #[test]
    fn a_log_in_batches_makes_the_tree_that_it_made_one_by_one(ops in prop::collection::vec(op(), 0..60), batch in 1usize..20) {
        let catalog = Store::new();
        let mut log = Vec::new();
        for op in ops {
            match catalog.apply(log.len() as u64 + 1, &op) {
                Ok(applied) if applied.changed() => log.push(op),
                Ok(_) | Err(TreeError::NoObject(_) | TreeError::Structure(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let site = Store::new();
        for (point, ops) in (1..).zip(log.chunks(batch)) {
            site.mirror(point, ops);
        }
        let rows = |tree: &Tree<'_>| {
            let groups = tree.groups(None, usize::MAX).unwrap();
            let rows = groups.iter().map(|(group, _)| tree.rows(*group, None, usize::MAX).unwrap());
            (rows.collect::<Vec<_>>(), tree.totals().unwrap())
        };
        prop_assert_eq!(site.head(rows), catalog.head(rows));
    }

    #[test]
    fn a_commit_applied_twice_is_applied_once(commits in commits()) {
        let store = Store::new();
        let commits: Vec<_> = commits.into_iter().map(one_per_row).collect();
        for (point, ops) in (1..).zip(&commits) {
            store.mirror(point, ops);
            let before = store.head(|tree| tree.totals().unwrap());
            store.mirror(point, ops);
            prop_assert_eq!(store.head(|tree| tree.totals().unwrap()), before);
        }
    }

    /// One op per row, as after coalescing: then the order does not matter.
    #[test]
    fn a_coalesced_commit_may_come_in_any_order(
        first in prop::collection::vec(op(), 0..20),
        (ops, shuffled) in prop::collection::vec(op(), 0..12).prop_map(one_per_row).prop_flat_map(|ops| (Just(ops.clone()), Just(ops).prop_shuffle())),
    ) {
        let head = |ops: &[Op]| {
            let store = Store::new();
            store.mirror(1, &first);
            store.mirror(2, ops);
            store.head(|tree| tree.totals().unwrap())
        };
        prop_assert_eq!(head(&ops), head(&shuffled));
    }
}

fn one_per_row(ops: Vec<Op>) -> Vec<Op> {
    use crate::model::RowKey;
    let mut rows = std::collections::BTreeMap::new();
    for op in ops {
        let row = match &op {
            Op::PutObject { id, .. } | Op::DropObject { id } => RowKey::Object { id: *id },
            Op::PutEntry { dir, name, .. } | Op::DropEntry { dir, name } => RowKey::Entry {
                dir: *dir,
                name: name.clone(),
            },
            Op::PutAttribute { id, name, .. } | Op::DropAttribute { id, name } => RowKey::Attribute {
                id: *id,
                name: name.clone(),
            },
            Op::PutBlocks { id, segment, .. } => RowKey::Segment {
                id: *id,
                segment: *segment,
            },
        };
        rows.insert(row, op);
    }
    rows.into_values().collect()
}
