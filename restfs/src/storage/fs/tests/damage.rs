use super::crash::find_records;
use super::{assert_holds, content, fill, key_of, open, pack_path, put};
use crate::storage::{BlockStore, StoreError};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

pub(super) fn flip(path: &Path, byte: u64, mask: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut value = [0];
    file.read_exact_at(&mut value, byte).unwrap();
    value[0] ^= mask;
    file.write_all_at(&value, byte).unwrap();
}

#[test]
fn every_flipped_bit_of_a_stored_block_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // One that is stored plain, one compressed.
    for number in [2, 3] {
        let content = content(number, 60);
        let key = put(&store, &content);
        store.flush().unwrap();
        let path = pack_path(folder.path(), 1);
        let bytes = fs::read(&path).unwrap();
        let start = *find_records(&bytes).last().unwrap();
        for byte in start..bytes.len() {
            for bit in 0..8 {
                flip(&path, byte as u64, 1 << bit);
                match store.get(key) {
                    Err(StoreError::Corrupt {
                        key: named,
                        pack: 1,
                        offset,
                        ..
                    }) => {
                        assert_eq!((named, offset), (key, start as u64));
                    }
                    other => panic!("byte {byte} bit {bit}: {other:?}"),
                }
                flip(&path, byte as u64, 1 << bit);
            }
        }
        assert_eq!(store.get(key).unwrap(), content);
    }
}

#[test]
fn a_damaged_block_is_asked_for_and_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let content = content(2, 100);
    let key = put(&store, &content);
    store.flush().unwrap();
    let record = find_records(&fs::read(pack_path(folder.path(), 1)).unwrap())[0];
    flip(&pack_path(folder.path(), 1), record as u64 + 60, 1);
    assert!(store.get(key).is_err());
    assert_eq!(store.missing(&[key]).unwrap(), [key]);
    assert_eq!(store.stats().unwrap().damaged_blocks, 1);
    put(&store, &content);
    store.flush().unwrap();
    assert_eq!(store.missing(&[key]).unwrap(), []);
    assert_eq!(store.get(key).unwrap(), content);
    // The newer record counts, also in a new index.
    let rebuilt = store.rebuild_index().unwrap();
    assert_eq!(rebuilt.records, 2);
    assert_eq!(store.stats().unwrap().blocks, 1);
    assert_eq!(store.get(key).unwrap(), content);
    drop(store);
    assert_eq!(open(folder.path()).get(key).unwrap(), content);
}

fn rows(folder: &Path) -> Vec<(Vec<u8>, i64, i64, i64, i64)> {
    let index = rusqlite::Connection::open(folder.join("index.db")).unwrap();
    let mut statement = index
        .prepare("SELECT key, pack, offset, plain, stored FROM block ORDER BY key")
        .unwrap();
    let rows = statement
        .query_map([], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
        })
        .unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn an_index_that_is_lost_is_rebuilt_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = fill(&open(folder.path()), 0..100, 200);
    let before = rows(folder.path());
    assert_eq!(before.len(), 100);
    fs::remove_file(folder.path().join("index.db")).unwrap();
    let store = open(folder.path());
    assert_eq!(store.recovery().records, 100);
    assert_holds(&store, &blocks);
    drop(store);
    assert_eq!(rows(folder.path()), before);
}

#[test]
fn an_index_that_is_garbage_is_put_aside_and_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = fill(&open(folder.path()), 0..100, 200);
    let before = rows(folder.path());
    fs::write(folder.path().join("index.db"), vec![0x5A; 8192]).unwrap();
    let store = open(folder.path());
    assert_holds(&store, &blocks);
    drop(store);
    assert_eq!(rows(folder.path()), before);
    assert!(folder.path().join("index.db.damaged").exists());
}

#[test]
fn rebuilding_while_open_gives_the_same_index() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks = fill(&store, 0..100, 200);
    let unflushed = put(&store, b"not flushed yet");
    let recovery = store.rebuild_index().unwrap();
    assert_eq!((recovery.records, recovery.damages), (100, Vec::new()));
    assert_holds(&store, &blocks);
    assert_eq!(store.get(unflushed).unwrap(), &b"not flushed yet"[..]);
    drop(store);
    assert_eq!(rows(folder.path()).len(), 101);
}

#[test]
fn damage_in_a_sealed_pack_is_reported_and_nothing_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = fill(&open(folder.path()), 0..100, 200);
    let path = pack_path(folder.path(), 1);
    let bytes = fs::read(&path).unwrap();
    let records = find_records(&bytes);
    // The last record's header: at the end of the newest pack this would be a torn tail.
    let last = *records.last().unwrap() as u64;
    flip(&path, last + 20, 1);
    fs::remove_file(folder.path().join("index.db")).unwrap();
    let store = open(folder.path());
    let [damage] = &store.recovery().damages[..] else {
        panic!("{:?}", store.recovery())
    };
    assert_eq!(
        (damage.pack, damage.offset, damage.length),
        (1, last, bytes.len() as u64 - last)
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64);
    assert_eq!(store.recovery().cut_bytes, 0);
    assert_eq!(store.stats().unwrap().blocks, blocks.len() as u64 - 1);
}

#[test]
fn packs_that_are_gone_or_short_are_reported_and_their_blocks_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = fill(&open(folder.path()), 0..100, 200);
    fs::remove_file(pack_path(folder.path(), 2)).unwrap();
    let short = OpenOptions::new()
        .write(true)
        .open(pack_path(folder.path(), 1))
        .unwrap();
    short.set_len(1000).unwrap();
    let store = open(folder.path());
    let mut damaged: Vec<u64> = store.recovery().damages.iter().map(|d| d.pack).collect();
    damaged.sort_unstable();
    assert_eq!(damaged, [1, 2]);
    let keys: Vec<_> = blocks.keys().copied().collect();
    let missing = store.missing(&keys).unwrap();
    assert!(!missing.is_empty() && missing.len() < keys.len());
    for (key, content) in &blocks {
        match missing.contains(key) {
            true => assert!(matches!(store.get(*key), Err(StoreError::Missing(_)))),
            false => assert_eq!(store.get(*key).unwrap(), *content),
        }
    }
    // Put again, all is well; also when the newest pack was the short one.
    fill(&store, 0..100, 200);
    assert_holds(&store, &blocks);
    drop(store);
    let newest = (1..)
        .take_while(|n| *n == 2 || pack_path(folder.path(), *n).exists())
        .last()
        .unwrap();
    let short = OpenOptions::new()
        .write(true)
        .open(pack_path(folder.path(), newest))
        .unwrap();
    for length in [500, 10] {
        short.set_len(length).unwrap();
        let store = open(folder.path());
        assert_eq!(store.recovery().damages.len(), 1, "{:?}", store.recovery());
        fill(&store, 0..100, 200);
        drop(store);
        let store = open(folder.path());
        assert_eq!(store.recovery().damages, []);
        assert_holds(&store, &blocks);
    }
}

#[test]
fn content_that_looks_like_a_record_is_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    fill(&store, 0..4, 100);
    drop(store);
    // A pack's bytes as a file's content: what a share that holds a copy of a store would send.
    let bytes = fs::read(pack_path(folder.path(), 1)).unwrap();
    let store = open(folder.path());
    store
        .put(key_of(&bytes), &bytes, restfs_lib::model::Compression::None)
        .unwrap();
    fill(&store, 10..12, 100);
    drop(store);
    fs::remove_file(folder.path().join("index.db")).unwrap();
    // Even the search for the next record behind a damaged header stays outside.
    let newest = fs::read(pack_path(folder.path(), 1)).unwrap();
    let nested = find_records(&newest)[4];
    flip(&pack_path(folder.path(), 1), nested as u64 + 10, 1);
    let store = open(folder.path());
    assert_eq!(store.stats().unwrap().blocks, 6);
    assert_eq!(store.recovery().damages.len(), 1);
}
