use super::*;
use crate::kv::{conformance, transact};

fn options(path: PathBuf) -> SqliteOptions {
    SqliteOptions {
        path,
        synchronous: Synchronous::Normal,
        cache_bytes: 1 << 20,
    }
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.db");
    (dir, path)
}

fn open_error(path: PathBuf) -> KvError {
    match SqliteKv::open(options(path)) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

#[test]
fn passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance::check(|| {
        count.set(count.get() + 1);
        let path = dir.path().join(format!("{}.db", count.get()));
        Box::new(SqliteKv::open(options(path)).unwrap())
    });
}

#[test]
fn committed_data_is_there_after_reopening() {
    let (_dir, path) = scratch();
    for value in [b"1", b"2"] {
        let kv = SqliteKv::open(SqliteOptions {
            synchronous: Synchronous::Full,
            ..options(path.clone())
        })
        .unwrap();
        transact(&kv, |txn| txn.put(value, value)).unwrap();
    }
    let kv = SqliteKv::open(options(path)).unwrap();
    let read = kv.read().unwrap();
    assert_eq!(read.get(b"1"), Ok(Some(b"1".to_vec())));
    assert_eq!(read.get(b"2"), Ok(Some(b"2".to_vec())));
}

#[test]
fn another_programs_database_is_not_touched() {
    let (_dir, path) = scratch();
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE theirs(x)")
        .unwrap();
    let error = open_error(path.clone());
    assert_eq!(
        error.to_string(),
        format!("{}: is not a RestFS metadata store", path.display())
    );
    std::fs::write(&path, [b'x'; 4096]).unwrap();
    assert_eq!(open_error(path.clone()).to_string(), error.to_string());
}

#[test]
fn a_store_of_another_format_is_refused_with_both_numbers() {
    let (_dir, path) = scratch();
    drop(SqliteKv::open(options(path.clone())).unwrap());
    Connection::open(&path)
        .unwrap()
        .execute_batch("PRAGMA user_version = 9")
        .unwrap();
    let error = open_error(path);
    assert!(
        matches!(&error, KvError::Format(text) if text.contains("format 9, this program knows 1")),
        "{error}"
    );
}

#[test]
fn a_missing_directory_is_named() {
    let (dir, _) = scratch();
    let path = dir.path().join("no/meta.db");
    let error = open_error(path.clone());
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn a_full_disk_is_reported_as_full_and_the_store_goes_on() {
    let (_dir, path) = scratch();
    let kv = SqliteKv::open(options(path)).unwrap();
    transact(&kv, |txn| txn.put(b"old", b"1")).unwrap();
    kv.writer
        .lock()
        .unwrap()
        .execute_batch("PRAGMA max_page_count = 20")
        .unwrap();
    let fill = |txn: &mut dyn KvWrite| (0..100u8).try_for_each(|i| txn.put(&[i], &[i; 4000]));
    let full = transact(&kv, fill);
    assert!(matches!(full, Err(KvError::Full(_))), "{full:?}");
    kv.writer
        .lock()
        .unwrap()
        .execute_batch("PRAGMA max_page_count = 100000")
        .unwrap();
    assert_eq!(kv.read().unwrap().get(&[0]), Ok(None));
    assert_eq!(transact(&kv, fill), Ok(()));
}

#[test]
fn a_checkpoint_empties_the_write_ahead_log() {
    let (dir, path) = scratch();
    let kv = SqliteKv::open(options(path)).unwrap();
    transact(&kv, |txn| txn.put(b"k", &[1; 100_000])).unwrap();
    let wal = || std::fs::metadata(dir.path().join("meta.db-wal")).unwrap().len();
    assert!(wal() > 100_000);
    kv.checkpoint().unwrap();
    assert_eq!(wal(), 0);
}

#[test]
fn a_panic_in_a_transaction_rolls_it_back() {
    let (_dir, path) = scratch();
    let kv = SqliteKv::open(options(path)).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut txn = kv.write().unwrap();
        txn.put(b"k", b"v").unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(transact(&kv, |txn| txn.get(b"k")), Ok(None));
}

#[test]
fn a_lock_that_another_process_holds_for_good_is_a_conflict() {
    let (_dir, path) = scratch();
    let kv = SqliteKv::open(options(path.clone())).unwrap();
    kv.writer
        .lock()
        .unwrap()
        .busy_timeout(Duration::from_millis(1))
        .unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(kv.write(), Err(KvError::Conflict)));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(transact(&kv, |txn| txn.put(b"k", b"v")), Ok(()));
}
