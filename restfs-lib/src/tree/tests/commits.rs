//! Points, times, positions.

use super::*;
use crate::tree::bucket;
use crate::tree::commit::{self, CommitInfo, Position};

fn store() -> Store {
    let store = Store::new();
    transact(&store.0, |txn| bucket::create(txn, "b", LAYOUT, 7)).unwrap();
    store
}

fn commit_at(store: &Store, time_ns: i64, ops: &[Op]) -> commit::Commit {
    let info = CommitInfo {
        time_ns,
        source: "s".into(),
        epoch: 2,
        ..CommitInfo::default()
    };
    transact(&store.0, |txn| {
        commit::commit(txn, BUCKET, Checks::Mirror, info.clone(), ops)
    })
    .unwrap()
    .0
}

#[test]
fn a_commit_is_the_next_point_with_what_it_was_told_and_the_trees_sums() {
    let store = store();
    let first = commit_at(&store, 10, &[put_file(70, 1)]);
    let second = commit_at(&store, 20, &[put_file(3, 2)]);
    assert_eq!((first.point, second.point), (1, 2));
    assert_eq!(
        (second.totals.objects, second.totals.bytes),
        (2, 3 * u64::from(BLOCK))
    );
    let read = store.0.read().unwrap();
    let list = |points, limit| {
        let commits = commit::list(read.as_ref(), BUCKET, points, limit).unwrap();
        commits.into_iter().map(|commit| commit.point).collect::<Vec<_>>()
    };
    assert_eq!(
        commit::get(read.as_ref(), BUCKET, 1).unwrap(),
        Some(first.clone())
    );
    assert_eq!(commit::get(read.as_ref(), BUCKET, 3).unwrap(), None);
    assert_eq!(list(0..=u64::MAX, 9), [2, 1]);
    assert_eq!(list(0..=1, 9), [1]);
    assert_eq!(list(1..=2, 1), [2]);
    let bucket = bucket::get(read.as_ref(), BUCKET).unwrap().unwrap();
    assert_eq!(
        (bucket.head, bucket.epoch, bucket.next_object),
        (2, 2, ObjectId(71))
    );
    drop(read);
    assert_eq!(
        store.at(At::Point(1), |tree| tree.digest().unwrap()),
        first.totals.digest
    );
    assert_eq!(
        store.at(At::Point(0), |tree| tree.digest().unwrap()),
        crate::model::Digest::ZERO
    );
}

#[test]
fn a_refused_commit_makes_no_point() {
    let store = store();
    let info = CommitInfo::default();
    let refused = transact(&store.0, |txn| {
        commit::commit(txn, BUCKET, Checks::Strict, info.clone(), &[put_entry(1, "x", 2)])
    });
    assert!(refused.is_err());
    assert_eq!(commit_at(&store, 1, &[]).point, 1);
}

#[test]
fn a_time_finds_the_latest_commit_that_is_not_after_it() {
    let store = store();
    let at = |time| commit::point_at(store.0.read().unwrap().as_ref(), BUCKET, time).unwrap();
    assert_eq!(at(0), None, "no commit yet");
    // The clock of the source goes back between the third and the fourth.
    for time in [-5, 10, 30, 20, 20] {
        commit_at(&store, time, &[]);
    }
    assert_eq!(at(-6), None);
    assert_eq!(at(-5), Some(1));
    assert_eq!(at(9), Some(1));
    assert_eq!(at(10), Some(2));
    assert_eq!(at(25), Some(5));
    assert_eq!(at(29), Some(5));
    assert_eq!(at(30), Some(5), "the head");
    assert_eq!(at(i64::MAX), Some(5), "the head");
    commit_at(&store, 40, &[]);
    assert_eq!(at(30), Some(3));
    assert_eq!(at(40), Some(6));
    assert_eq!(at(i64::MIN), None);
}

#[test]
fn positions_are_kept_by_source() {
    let store = store();
    let at = |sequence| Position {
        epoch: 1,
        sequence,
        point: 1,
    };
    for (source, sequence) in [("b", 5), ("a", 6), ("a", 7)] {
        transact(&store.0, |txn| {
            commit::set_position(txn, BUCKET, source, at(sequence))
        })
        .unwrap();
    }
    let read = store.0.read().unwrap();
    assert_eq!(commit::position(read.as_ref(), BUCKET, "a").unwrap(), Some(at(7)));
    assert_eq!(commit::position(read.as_ref(), BUCKET, "c").unwrap(), None);
    assert_eq!(
        commit::positions(read.as_ref(), BUCKET).unwrap(),
        [("a".into(), at(7)), ("b".into(), at(5))]
    );
    for bad in ["", "a\0", &"x".repeat(256)] {
        assert!(matches!(
            commit::position(read.as_ref(), BUCKET, bad),
            Err(TreeError::Invalid(_))
        ));
    }
}

#[test]
fn a_commit_needs_its_bucket() {
    let store = Store::new();
    let commit = transact(&store.0, |txn| {
        commit::commit(txn, BUCKET, Checks::Mirror, CommitInfo::default(), &[])
    });
    assert_eq!(commit, Err(TreeError::NoBucket(BUCKET)));
}
