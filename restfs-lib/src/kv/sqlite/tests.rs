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
        matches!(&error, KvError::Format(text) if text.contains("format 9, this program knows 2")),
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

#[test]
fn a_file_that_another_program_has_open_is_named() {
    let (_dir, path) = scratch();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("BEGIN EXCLUSIVE; CREATE TABLE theirs(x)")
        .unwrap();
    let error = open_error(path.clone()).to_string();
    let named = format!("{}: another program has this database open", path.display());
    assert!(error.contains(&named), "{error}");
}

/// The format is on disks: these bytes never change.
#[test]
fn a_row_is_stored_with_its_checksum_behind_the_value() {
    let (_dir, path) = scratch();
    let kv = SqliteKv::open(options(path.clone())).unwrap();
    transact(&kv, |txn| {
        txn.put(b"key", b"value")?;
        txn.put(b"empty", b"")
    })
    .unwrap();
    let stored = |key: &[u8]| -> Vec<u8> {
        Connection::open(&path)
            .unwrap()
            .query_row("SELECT v FROM kv WHERE k = ?1", [key], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(hex::encode(stored(b"key")), "76616c75659e5ac78c");
    assert_eq!(hex::encode(stored(b"empty")), "908cb7fa");
}

fn whole(kv: &SqliteKv) -> Checked {
    kv.check(|| true).unwrap().unwrap()
}

#[test]
fn a_row_that_was_changed_is_an_error_wherever_it_is_read() {
    let (_dir, path) = scratch();
    let kv = SqliteKv::open(options(path.clone())).unwrap();
    transact(&kv, |txn| {
        (0..9u8).try_for_each(|key| txn.put(&[b'k', key], &[key; 20]))
    })
    .unwrap();
    assert_eq!(
        whole(&kv),
        Checked {
            rows: 9,
            damages: Vec::new()
        }
    );
    let raw = Connection::open(&path).unwrap();
    let row = |key: u8| {
        let of = "SELECT v FROM kv WHERE k = ?1";
        raw.query_row(of, [&[b'k', key][..]], |row| row.get::<_, Vec<u8>>(0))
            .unwrap()
    };
    let put = |key: &[u8], value: &dyn ToSql| {
        raw.execute("REPLACE INTO kv VALUES(?1, ?2)", rusqlite::params![key, value])
            .unwrap();
    };
    let good = row(4);
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        bytes
    };
    // In the value, in the checksum, nothing but a part of it, another row's, one that is longer by what its key lacks.
    let longer = [&[4][..], &good].concat();
    for wrong in [flipped(0), flipped(23), good[..3].to_vec(), row(5), longer] {
        put(&[b'k', 4], &wrong);
        let text = "the row with key 6b04 is not what was written";
        let error = KvError::Corrupt(text.to_owned());
        let read = kv.read().unwrap();
        assert_eq!(read.get(&[b'k', 4]), Err(error.clone()));
        assert_eq!(
            read.scan(Bound::Unbounded, Bound::Unbounded, 5),
            Err(error.clone())
        );
        assert_eq!(kv.write().unwrap().get(&[b'k', 4]), Err(error));
        // Others are served.
        assert_eq!(read.get(&[b'k', 3]), Ok(Some(vec![3; 20])));
        assert_eq!(whole(&kv).damages, [text]);
    }
    put(&[b'k', 4], &"text");
    let read = kv.read().unwrap();
    assert!(matches!(read.get(&[b'k', 4]), Err(KvError::Corrupt(_))));
    assert!(!whole(&kv).damages.is_empty());
    // Who writes it anew has it again.
    transact(&kv, |txn| txn.put(&[b'k', 4], b"new")).unwrap();
    assert_eq!(kv.read().unwrap().get(&[b'k', 4]), Ok(Some(b"new".to_vec())));
    assert_eq!(whole(&kv).damages, Vec::<String>::new());
}

#[test]
fn a_check_ends_when_it_is_told_to() {
    let (_dir, path) = scratch();
    let kv = SqliteKv::open(options(path)).unwrap();
    transact(&kv, |txn| {
        (0..20_000u32).try_for_each(|key| txn.put(&key.to_be_bytes(), b"value"))
    })
    .unwrap();
    assert_eq!(kv.check(|| false), Ok(None));
    assert_eq!(whole(&kv).rows, 20_000);
}

/// Rows of all sizes, some on pages of their own, in a tree of three levels; some pages are free.
fn filled(path: &Path) -> Vec<Pair> {
    let kv = SqliteKv::open(options(path.to_owned())).unwrap();
    let key = |n: u32| [&b"some key"[..], &n.to_be_bytes()].concat();
    transact(&kv, |txn| {
        (0..1500).try_for_each(|n| {
            let length = if n % 50 == 0 { 6000 } else { n as usize % 90 };
            txn.put(&key(n), &vec![n as u8; length])
        })
    })
    .unwrap();
    transact(&kv, |txn| (200..500).try_for_each(|n| txn.delete(&key(n)))).unwrap();
    kv.checkpoint().unwrap();
    let read = kv.read().unwrap();
    read.scan(Bound::Unbounded, Bound::Unbounded, usize::MAX).unwrap()
}

/// In the row itself, or anywhere in SQLite's file: either a check tells, or nothing that can be read has changed.
#[test]
fn no_bit_of_the_file_can_change_unnoticed() {
    let (dir, path) = scratch();
    let rows = filled(&path);
    let good = std::fs::read(&path).unwrap();
    assert!(good.len() > 50 * 4096, "{}", good.len());
    let damaged = dir.path().join("damaged.db");
    let (mut told, mut untold) = (0, 0);
    let mut random = 7_u64;
    let mut below = |end: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % end
    };
    for run in 0..2000 {
        let bit = match run % 2 {
            0 => below(good.len() * 8),
            // Where a page says how many rows it has, and where they are.
            _ => below(good.len() / 4096) * 4096 * 8 + below(24 * 8),
        };
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&damaged, bytes).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.path().join(format!("damaged.db{suffix}")));
        }
        let Ok(kv) = SqliteKv::open(options(damaged.clone())) else {
            told += 1;
            continue;
        };
        if !whole(&kv).damages.is_empty() {
            told += 1;
            continue;
        }
        untold += 1;
        let read = kv.read().unwrap();
        // In pages, as gc and images read.
        let mut after: Option<Vec<u8>> = None;
        let mut found = Vec::new();
        loop {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = read.scan(from, Bound::Unbounded, 7).unwrap();
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            found.extend(page);
        }
        assert!(found == rows, "bit {bit} changed the rows, and nobody noticed");
    }
    // Some are in free space.
    assert!(told > 1000 && untold > 0, "{told} {untold}");
}
