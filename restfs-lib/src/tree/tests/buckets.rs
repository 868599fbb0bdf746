//! Buckets come and go.

use super::*;
use crate::tree::bucket::{self, Bucket};
use crate::tree::commit::{self, CommitInfo, Position};

fn create(store: &Store, name: &str) -> Result<Bucket, TreeError> {
    transact(&store.0, |txn| bucket::create(txn, name, LAYOUT, 7))
}

fn names(store: &Store, after: Option<&str>) -> Vec<String> {
    let buckets = bucket::list(store.0.read().unwrap().as_ref(), after, 10).unwrap();
    buckets.into_iter().map(|bucket| bucket.name).collect()
}

#[test]
fn buckets_are_found_by_name_and_id() {
    let store = Store::new();
    let data = create(&store, "data").unwrap();
    let other = create(&store, "abc").unwrap();
    assert_ne!(data.id, other.id);
    assert_eq!(
        create(&store, "data"),
        Err(TreeError::BucketExists("data".into()))
    );
    let read = store.0.read().unwrap();
    assert_eq!(bucket::find(read.as_ref(), "data").unwrap(), Some(data.clone()));
    assert_eq!(bucket::find(read.as_ref(), "dat").unwrap(), None);
    assert_eq!(bucket::get(read.as_ref(), data.id).unwrap(), Some(data));
    assert_eq!(names(&store, None), ["abc", "data"]);
    assert_eq!(names(&store, Some("abc")), ["data"]);
}

#[test]
fn names_that_mean_something_elsewhere_are_refused() {
    let store = Store::new();
    for bad in [
        "",
        "A",
        "a/b",
        "a@1",
        "a:b",
        ".a",
        "-a",
        "ä",
        "a b",
        &"x".repeat(64),
    ] {
        assert!(
            matches!(create(&store, bad), Err(TreeError::Invalid(_))),
            "{bad:?}"
        );
    }
    for good in ["a", "0", "share-1_x.y", &"x".repeat(63)] {
        create(&store, good).unwrap();
    }
}

#[test]
fn a_renamed_bucket_gives_its_name_free_and_takes_no_others() {
    let store = Store::new();
    let data = create(&store, "data").unwrap();
    create(&store, "other").unwrap();
    let rename = |name: &str| {
        transact(&store.0, |txn| {
            bucket::set(
                txn,
                &Bucket {
                    name: name.into(),
                    source: Some("s".into()),
                    ..data.clone()
                },
            )
        })
    };
    assert_eq!(rename("other"), Err(TreeError::BucketExists("other".into())));
    rename("new").unwrap();
    assert_eq!(names(&store, None), ["new", "other"]);
    let found = bucket::find(store.0.read().unwrap().as_ref(), "new")
        .unwrap()
        .unwrap();
    assert_eq!(found.source.as_deref(), Some("s"));
    create(&store, "data").unwrap();
}

#[test]
fn opening_makes_a_bucket_once() {
    let store = Store::new();
    let open = || {
        transact(&store.0, |txn| {
            bucket::open(txn, BucketId(1), "catalog", LAYOUT, 7)
        })
        .unwrap()
    };
    assert_eq!(open(), open());
    assert_eq!(create(&store, "next").unwrap().id, BucketId(2));
}

#[test]
fn object_ids_are_given_out_once() {
    let store = Store::new();
    create(&store, "b").unwrap();
    let allocate = |count| transact(&store.0, |txn| bucket::allocate(txn, BUCKET, count));
    assert_eq!(allocate(3), Ok(ObjectId(2)));
    assert_eq!(allocate(1), Ok(ObjectId(5)));
    assert!(matches!(allocate(u64::MAX), Err(TreeError::Invalid(_))));
    assert_eq!(allocate(1), Ok(ObjectId(6)));
}

#[test]
fn a_deleted_bucket_leaves_no_row_and_its_neighbour_all() {
    let store = Store::new();
    let fill = |id| {
        transact(&store.0, |txn| {
            let ops = [
                put_dir(1),
                put_file(2, 1),
                put_entry(1, "f", 2),
                put_attribute(2, "a", "v"),
                put_block(2, 0, 0, "x"),
            ];
            commit::commit(txn, id, Checks::Mirror, CommitInfo::default(), &ops)?;
            commit::set_position(txn, id, "s", Position::default())
        })
        .unwrap();
    };
    let keep = create(&store, "keep").unwrap();
    fill(keep.id);
    let rows = store.rows();
    let gone = create(&store, "gone").unwrap();
    fill(gone.id);
    let purge = |limit| transact(&store.0, |txn| bucket::purge(txn, gone.id, limit));
    assert!(matches!(purge(3), Err(TreeError::Invalid(_))), "a bucket in use");
    transact(&store.0, |txn| bucket::delete(txn, gone.id)).unwrap();
    assert_eq!(names(&store, None), ["keep"]);
    assert_eq!(
        bucket::deleted(store.0.read().unwrap().as_ref()).unwrap(),
        [gone.id]
    );
    let again = create(&store, "gone").unwrap();
    assert_ne!(again.id, gone.id);
    transact(&store.0, |txn| bucket::delete(txn, again.id)).unwrap();
    while transact(&store.0, |txn| bucket::purge(txn, again.id, 3)).unwrap() {}
    let mut rounds = 1;
    while purge(3).unwrap() {
        rounds += 1;
    }
    assert!(rounds > 3, "{rounds}");
    assert_eq!(store.rows(), rows);
    assert_eq!(bucket::deleted(store.0.read().unwrap().as_ref()).unwrap(), []);
}
