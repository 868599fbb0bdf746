//! The store against the hazards it is built for.

mod concurrency;
mod crash;
mod damage;
mod full;
mod gc;
mod model;
mod scrub;

use super::{FsStore, Options};
use crate::storage::{BlockStore, StoreError};
use bytes::Bytes;
use restfs_lib::disk::hooked::Hooked;
use restfs_lib::model::{BlockKey, Compression};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Blocks = BTreeMap<BlockKey, Vec<u8>>;

fn key_of(content: &[u8]) -> BlockKey {
    BlockKey(*blake3::hash(content).as_bytes())
}

/// Content that differs by number, some of it compressible.
fn content(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if number.is_multiple_of(2) {
        blake3::Hasher::new()
            .update(&number.to_be_bytes())
            .finalize_xof()
            .fill(&mut bytes);
    }
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

/// Syncs of packs fail as long as it is `broken`.
fn open_on_a_disk_that_fails(folder: &Path, broken: &Arc<AtomicBool>) -> FsStore {
    let broken = Arc::clone(broken);
    let disk = Hooked::new(&folder.join("packs"), move |_, file| {
        match broken.load(Ordering::SeqCst) {
            true => Err(std::io::Error::other("the disk says no")),
            false => file.sync_data(),
        }
    });
    FsStore::open_with(folder, &small_packs(), disk).unwrap()
}

fn small_packs() -> Options {
    Options {
        pack_size: 4096,
        cache_bytes: 0,
    }
}

fn open(folder: &Path) -> FsStore {
    FsStore::open(folder, &small_packs()).unwrap()
}

fn put(store: &FsStore, content: &[u8]) -> BlockKey {
    let key = key_of(content);
    store.put(key, content, Compression::Zstd).unwrap();
    key
}

/// Puts `numbers` and flushes; what is there afterwards.
fn fill(store: &FsStore, numbers: std::ops::Range<u32>, length: usize) -> Blocks {
    let blocks: Blocks = numbers
        .map(|n| content(n, length))
        .map(|c| (key_of(&c), c))
        .collect();
    for content in blocks.values() {
        put(store, content);
    }
    store.flush().unwrap();
    blocks
}

fn assert_holds(store: &FsStore, blocks: &Blocks) {
    for (key, content) in blocks {
        assert_eq!(store.get(*key).unwrap(), Bytes::from(content.clone()));
        assert!(store.contains(*key).unwrap());
    }
    let keys: Vec<BlockKey> = blocks.keys().copied().collect();
    assert_eq!(store.missing(&keys).unwrap(), []);
}

fn pack_path(folder: &Path, pack: u64) -> PathBuf {
    folder.join("packs").join(format!("{pack:08}.pack"))
}

/// As a copy of a running store's folder, or what a power cut leaves of it.
fn copy_store(from: &Path, to: &Path) {
    for folder in ["", "packs"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for entry in fs::read_dir(from.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
}

#[test]
fn what_was_put_is_got_again_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut blocks = fill(&store, 0..50, 300);
    blocks.extend([(key_of(b""), Vec::new())]);
    put(&store, b"");
    assert_holds(&store, &blocks);
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.recovery().records, 0, "a clean stop leaves nothing to read");
    assert_holds(&store, &blocks);
    assert!(store.stats().unwrap().packs > 2);
    assert_eq!(store.stats().unwrap().blocks, blocks.len() as u64);
    assert_eq!(
        store.stats().unwrap().plain_bytes,
        blocks.values().map(|c| c.len() as u64).sum::<u64>()
    );
}

#[test]
fn a_block_put_twice_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks = fill(&store, 0..10, 300);
    let bytes = store.stats().unwrap().stored_bytes;
    fill(&store, 0..10, 300);
    assert_eq!(store.stats().unwrap().stored_bytes, bytes);
    drop(store);
    let store = open(folder.path());
    fill(&store, 0..10, 300);
    assert_eq!(store.stats().unwrap().stored_bytes, bytes);
    assert_holds(&store, &blocks);
}

#[test]
fn content_under_a_wrong_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let result = store.put(key_of(b"one"), b"two", Compression::None);
    assert!(matches!(result, Err(StoreError::WrongKey { .. })), "{result:?}");
    assert!(!store.contains(key_of(b"one")).unwrap());
    assert!(matches!(store.get(key_of(b"one")), Err(StoreError::Missing(_))));
}

#[test]
fn missing_names_each_absent_block_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let known = put(&store, b"known");
    let (a, b) = (key_of(b"a"), key_of(b"b"));
    assert_eq!(store.missing(&[b, known, a, b]).unwrap(), [b, a]);
}

#[test]
fn a_second_process_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert!(matches!(
        FsStore::open(folder.path(), &small_packs()),
        Err(StoreError::Locked(_))
    ));
    drop(store);
    open(folder.path());
}

#[test]
fn compression_is_kept_only_where_it_is_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path(), &Options::default()).unwrap();
    let before = store.stats().unwrap().stored_bytes;
    put(&store, &vec![7; 100_000]);
    let zeros = store.stats().unwrap().stored_bytes - before;
    assert!(zeros < 1000, "{zeros}");
    let noise = content(2, 100_000);
    put(&store, &noise);
    assert_eq!(
        store.stats().unwrap().stored_bytes,
        before + zeros + 56 + noise.len() as u64
    );
    assert_eq!(store.get(key_of(&noise)).unwrap(), noise);
}
