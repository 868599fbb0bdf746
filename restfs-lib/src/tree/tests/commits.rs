//! Points, times, positions.

use super::*;
use crate::tree::commit::{self, CommitInfo, Position};
use crate::tree::{bucket, held};

fn store() -> Store {
    let store = Store::new();
    transact(&store.0, |txn| bucket::create(txn, "b", LAYOUT, 7)).unwrap();
    store
}

/// Long after all times here.
const LATE: i64 = 1_000_000;

fn commit_at(store: &Store, time_ns: i64, ops: &[Op]) -> commit::Commit {
    commit_taken_in_at(store, LATE, time_ns, ops)
}

fn commit_taken_in_at(store: &Store, committed_ns: i64, time_ns: i64, ops: &[Op]) -> commit::Commit {
    let info = CommitInfo {
        time_ns,
        committed_ns,
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

fn point_at(store: &Store, time_ns: i64) -> Option<u64> {
    commit::point_at(store.0.read().unwrap().as_ref(), BUCKET, time_ns).unwrap()
}

#[test]
fn a_time_finds_the_newest_point_that_is_not_after_it() {
    let store = store();
    assert_eq!(point_at(&store, 0), None, "no commit yet");
    for time in [-5, 10, 10, 30] {
        commit_at(&store, time, &[]);
    }
    let found = [i64::MIN, -6, -5, 9, 10, 29, 30, i64::MAX].map(|time| point_at(&store, time));
    assert_eq!(
        found,
        [None, None, Some(1), Some(1), Some(3), Some(3), Some(4), Some(4)]
    );
}

/// A file changed before a disaster may be read, and committed, after the disaster's changes.
#[test]
fn a_point_of_old_changes_on_top_of_newer_ones_is_not_found_by_a_time_before_those() {
    let store = store();
    commit_at(&store, 10, &[]);
    commit_at(&store, 30, &[]);
    let late_read = commit_at(&store, 20, &[]);
    assert_eq!(late_read.info.time_ns, 30);
    assert_eq!(point_at(&store, 29), Some(1));
    assert_eq!(point_at(&store, 30), Some(3));
    let read = store.0.read().unwrap();
    assert_eq!(commit::get(read.as_ref(), BUCKET, 3).unwrap(), Some(late_read));
}

#[test]
fn a_clock_that_once_ran_ahead_does_not_hide_the_points_after_it() {
    let store = store();
    let times = [
        (100, 100),
        (110, 500),
        (120, 510),
        (130, 130),
        (140, 125),
        (600, 600),
    ];
    let kept = times.map(|(committed, time)| commit_taken_in_at(&store, committed, time, &[]).info.time_ns);
    assert_eq!(kept, [100, 500, 510, 130, 130, 600]);
    let found = [99, 129, 130, 505, 599, 600].map(|time| point_at(&store, time));
    assert_eq!(found, [None, Some(1), Some(5), Some(5), Some(5), Some(6)]);
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
fn a_released_source_stays_out_until_the_next_release() {
    let store = store();
    let at = Position {
        epoch: 3,
        sequence: 5,
        point: 1,
    };
    let take = |source: &str| {
        transact(&store.0, |txn| {
            let mut record = bucket::get(txn, BUCKET)?.unwrap();
            (record.source, record.epoch) = (Some(source.into()), 3);
            bucket::set(txn, &record)?;
            commit::set_position(txn, BUCKET, source, at)
        })
        .unwrap();
    };
    let release = || {
        transact(&store.0, |txn| {
            let mut record = bucket::get(txn, BUCKET)?.unwrap();
            commit::release(txn, &mut record)?;
            bucket::set(txn, &record)
        })
        .unwrap();
        let read = store.0.read().unwrap();
        let record = bucket::get(read.as_ref(), BUCKET).unwrap().unwrap();
        assert_eq!((record.source, record.epoch), (None, 0));
        let positions = commit::positions(read.as_ref(), BUCKET).unwrap();
        let out = positions
            .into_iter()
            .filter(|(_, position)| position.is_released());
        out.map(|(source, _)| source).collect::<Vec<_>>()
    };
    take("a");
    assert_eq!(release(), ["a"]);
    take("b");
    assert_eq!(release(), ["b"]);
    assert_eq!(release(), [""; 0]);
}

#[test]
fn a_commit_needs_its_bucket() {
    let store = Store::new();
    let commit = transact(&store.0, |txn| {
        commit::commit(txn, BUCKET, Checks::Mirror, CommitInfo::default(), &[])
    });
    assert_eq!(commit, Err(TreeError::NoBucket(BUCKET)));
}

#[test]
fn every_segment_that_was_ever_written_is_walked_the_newest_first() {
    let store = store();
    let mut files = vec![put_file(2, 9), put_file(3, 1)];
    files.extend([
        put_block(2, 0, 0, "a"),
        put_block(2, 1, 0, "b"),
        put_block(3, 0, 0, "c"),
    ]);
    commit_at(&store, 10, &files);
    commit_at(&store, 20, &[put_block(2, 0, 1, "d")]);
    commit_at(&store, 30, &[drop_object(3)]);
    let read = store.0.read().unwrap();
    for page in 1..9 {
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let (found, next) = crate::tree::blocks::revisions(&*read, BUCKET, after.as_ref(), page).unwrap();
            let short = |r: crate::tree::blocks::SegmentRevision| {
                (r.object.0, r.number, r.point, r.newest, r.keys().count())
            };
            walked.extend(found.into_iter().map(short));
            match next {
                None => break,
                next => after = next,
            }
        }
        let wanted = [
            (2, 0, 2, true, 2),
            (2, 0, 1, false, 1),
            (2, 1, 1, true, 1),
            // The newest revision of the object that was removed says so.
            (3, 0, 1, false, 1),
        ];
        assert_eq!(walked, wanted, "pages of {page}");
    }
}

#[test]
fn a_bucket_holds_what_its_commits_named_and_knows_when_some_were_not_entered() {
    let store = store();
    let (old, new) = (block("old"), block("new"));
    commit_at(&store, 1, &[put_file(2, 1), put_block(2, 0, 0, "old")]);
    commit_at(&store, 2, &[put_block(2, 0, 0, "new")]);
    let held = |block: BlockRef| held::holds(store.0.read().unwrap().as_ref(), BUCKET, &block.key).unwrap();
    let is_whole = || {
        let read = store.0.read().unwrap();
        let record = bucket::get(read.as_ref(), BUCKET).unwrap().unwrap();
        held::is_whole(read.as_ref(), &record).unwrap()
    };
    assert!(held(old) && held(new) && !held(block("another")) && is_whole());
    let all = held::list(store.0.read().unwrap().as_ref(), BUCKET, None, 9).unwrap();
    assert_eq!(all.len(), 2);
    let behind = held::list(store.0.read().unwrap().as_ref(), BUCKET, Some(&all[0]), 9).unwrap();
    assert_eq!(behind, all[1..]);
    // As a program leaves it that does not know the rows.
    transact(&store.0, |txn| {
        let mut record = bucket::get(txn, BUCKET)?.unwrap();
        record.head += 1;
        bucket::set(txn, &record)
    })
    .unwrap();
    assert!(!is_whole());
    commit_at(&store, 4, &[]);
    assert!(!is_whole(), "what the commit between named is still not there");
    transact(&store.0, |txn| held::set_whole(txn, BUCKET)).unwrap();
    commit_at(&store, 5, &[]);
    assert!(is_whole());
}
