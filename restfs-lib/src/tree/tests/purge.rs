//! Purged history: what goes, what stays, and that the difference cannot be read.

use super::model::{Model, ids_of};
use super::random::{bucket_with, commits};
use super::*;
use crate::tree::blocks::revisions;
use crate::tree::history;
use crate::tree::purge::{self, Limits, Place};
use crate::tree::{bucket, commit};
use proptest::prelude::*;
use std::ops::Bound::Unbounded;

fn limits(found: usize) -> Limits {
    Limits { looked: 1, found }
}

fn raise(store: &Store, point: u64) {
    transact(&store.0, |txn| purge::raise(txn, BUCKET, point)).unwrap();
}

/// One step from where the bucket's record says. Whether there is more to do.
fn step(store: &Store) -> bool {
    let read = store.0.read().unwrap();
    let Some(purge::Floor {
        point,
        sweep: Some(place),
    }) = purge::floor(read.as_ref(), BUCKET).unwrap()
    else {
        return false;
    };
    let found = purge::find(read.as_ref(), BUCKET, point, Some(&place), limits(1)).unwrap();
    drop(read);
    assert!(transact(&store.0, |txn| purge::remove(txn, BUCKET, &found)).unwrap());
    found.next.is_some()
}

fn purge_to(store: &Store, point: u64) {
    raise(store, point);
    while step(store) {}
}

fn all_keys(store: &Store) -> Vec<Vec<u8>> {
    let read = store.0.read().unwrap();
    let pairs = read.scan(Unbounded, Unbounded, usize::MAX).unwrap();
    pairs.into_iter().map(|(key, _)| key).collect()
}

fn states_of(commits: &[Vec<Op>]) -> Vec<Model> {
    let mut states = vec![Model::default()];
    for ops in commits {
        let mut next = states.last().unwrap().clone();
        next.mirror(ops);
        states.push(next);
    }
    states
}

fn assert_reads(store: &Store, states: &[Model], ids: &[ObjectId], floor: u64) {
    let head = states.len() as u64 - 1;
    for point in floor..=head {
        let state = &states[point as usize];
        store.at(At::Point(point), |tree| {
            state.compare(tree, ids, 3, head);
            assert_eq!(tree.totals().unwrap(), state.totals());
        });
    }
    store.head(|tree| {
        states.last().unwrap().compare(tree, ids, 3, head);
        states.last().unwrap().compare_groups(tree, 3);
    });
}

proptest! {
    /// After every step, as after a kill there; commits and further purges come in between.
    #[test]
    fn kept_points_read_as_before_at_every_step_and_nothing_is_left_that_only_purged_ones_need(
        before in commits(), after in commits(), first: u64, second: u64, between in 0usize..40
    ) {
        let store = bucket_with(&before);
        let mut all = before.clone();
        let mut floor = 1 + first % before.len() as u64;
        raise(&store, floor);
        let ids = ids_of(&[before.concat(), after.concat()].concat());
        let mut later = after.iter();
        let mut steps = 0;
        loop {
            let more = step(&store);
            let states = states_of(&all);
            assert_reads(&store, &states, &ids, floor);
            if let Some(ops) = later.next() {
                let info = commit::CommitInfo::default();
                transact(&store.0, |txn| commit::commit(txn, BUCKET, Checks::Mirror, info.clone(), ops)).unwrap();
                all.push(ops.clone());
            }
            steps += 1;
            if steps == between {
                let head = all.len() as u64;
                floor = floor.max(1 + second % head);
                raise(&store, floor);
            } else if !more && steps > between {
                break;
            }
        }
        let states = states_of(&all);
        assert_reads(&store, &states, &ids, floor);
        // A store in which nothing happened before the floor has the same rows, but for the points that wrote them.
        let read = store.0.read().unwrap();
        let kept = revisions(read.as_ref(), BUCKET, None, usize::MAX).unwrap().0;
        for kept in &kept {
            let newer = kept.point > floor;
            let tree = Tree::new(read.as_ref(), BUCKET, At::Point(floor));
            let in_force = tree.segment(kept.object, kept.number).unwrap().is_some_and(|(_, point)| point == kept.point);
            prop_assert!(newer || in_force, "{kept:?} is hidden at the floor {floor}");
        }
        let points: Vec<u64> = commit::list(read.as_ref(), BUCKET, 0..=u64::MAX, usize::MAX).unwrap().iter().map(|c| c.point).collect();
        let expected: Vec<u64> = (floor..=all.len() as u64).rev().collect();
        prop_assert_eq!(points, expected);
        drop(read);
        // Nothing more is found.
        let read = store.0.read().unwrap();
        if floor > 1 {
            prop_assert_eq!(purge::count(read.as_ref(), BUCKET, floor, usize::MAX).unwrap(), (0, false));
        }
    }

    #[test]
    fn what_is_counted_is_what_goes(commits in commits(), floor: u64) {
        let store = bucket_with(&commits);
        let floor = 1 + floor % commits.len() as u64;
        let read = store.0.read().unwrap();
        let (rows, more) = purge::count(read.as_ref(), BUCKET, floor, usize::MAX).unwrap();
        drop(read);
        prop_assert!(!more);
        let before = all_keys(&store).len() as u64;
        purge_to(&store, floor);
        // The floor's own row came.
        let own = u64::from(floor > 1);
        let counted = if floor > 1 { rows } else { 0 };
        prop_assert_eq!(before + own - counted, all_keys(&store).len() as u64);
    }
}

/// More revisions of one row than a step looks at, hidden behind a tombstone: were it to go first, they would be back.
#[test]
fn a_tombstone_goes_last() {
    let store = bucket_with(&[vec![put_dir(1), put_file(2, 1)]]);
    let commit = |ops: &[Op]| {
        let info = commit::CommitInfo::default();
        transact(&store.0, |txn| {
            commit::commit(txn, BUCKET, Checks::Mirror, info.clone(), ops)
        })
        .unwrap()
        .0
        .point
    };
    for round in 0..700 {
        commit(&[put_block(2, 0, 0, &round.to_string())]);
    }
    let floor = commit(&[drop_object(2)]);
    raise(&store, floor);
    loop {
        let more = step(&store);
        store.head(|tree| assert_eq!(tree.segments(ObjectId(2), 0, 9).unwrap(), []));
        if !more {
            break;
        }
    }
    let read = store.0.read().unwrap();
    assert_eq!(revisions(read.as_ref(), BUCKET, None, 9).unwrap().0, []);
    assert_eq!(history(read.as_ref(), BUCKET, ObjectId(2), None, 9).unwrap(), []);
}

#[test]
fn the_floor_is_there_at_once_only_rises_and_is_a_point_that_exists() {
    let store = bucket_with(&[vec![put_dir(1)], vec![put_file(2, 1)], vec![put_file(2, 2)]]);
    let oldest = || purge::oldest(store.0.read().unwrap().as_ref(), BUCKET).unwrap();
    assert_eq!(oldest(), 1);
    for wrong in [0, 4, u64::MAX] {
        let refused = transact(&store.0, |txn| purge::raise(txn, BUCKET, wrong));
        assert_eq!(refused, Err(TreeError::NoPoint(wrong)));
    }
    raise(&store, 3);
    assert_eq!(oldest(), 3);
    raise(&store, 2);
    assert_eq!(oldest(), 3);
    let unfinished = || purge::unfinished(store.0.read().unwrap().as_ref()).unwrap();
    assert_eq!(unfinished(), [BUCKET]);
    while step(&store) {}
    assert_eq!(unfinished(), []);
    // One for a floor that has risen meanwhile does nothing, and none brings a deleted bucket's record back.
    let found = |floor| {
        purge::find(
            store.0.read().unwrap().as_ref(),
            BUCKET,
            floor,
            None::<&Place>,
            limits(9),
        )
        .unwrap()
    };
    let remove = |found| transact(&store.0, |txn| purge::remove(txn, BUCKET, &found)).unwrap();
    assert!(!remove(found(2)));
    transact(&store.0, |txn| bucket::delete(txn, BUCKET)).unwrap();
    while transact(&store.0, |txn| bucket::purge(txn, BUCKET, 2)).unwrap() {}
    assert!(!remove(found(3)));
    assert_eq!(store.rows(), 1, "only the number of the next bucket stays");
}

#[test]
fn the_history_of_an_object_begins_at_the_floor_whether_the_sweep_has_come_or_not() {
    let store = bucket_with(&[
        vec![put_dir(1), put_file(2, 4), put_entry(1, "a", 2)],
        vec![put_block(2, 0, 0, "x"), put_attribute(2, "user.x", "1")],
        vec![put_block(2, 0, 0, "y")],
        vec![
            put_block(2, 0, 0, "z"),
            Op::DropAttribute {
                id: ObjectId(2),
                name: b"user.x".to_vec(),
            },
        ],
        vec![put_block(2, 0, 1, "z")],
    ]);
    raise(&store, 4);
    let seen = || {
        let read = store.0.read().unwrap();
        history(read.as_ref(), BUCKET, ObjectId(2), None, 9).unwrap()
    };
    let before = seen();
    let points: Vec<u64> = before.iter().map(|changes| changes.point).collect();
    assert_eq!(points, [5, 4]);
    assert!(before[1].properties && before[1].segments == 1 && before[1].attributes.is_empty());
    while step(&store) {}
    assert_eq!(seen(), before);
}
