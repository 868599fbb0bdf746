use super::{Blocks, assert_holds, content, key_of, open, small_packs};
use crate::storage::BlockStore;
use crate::storage::fs::FsStore;
use crate::storage::fs::record::RECORD_HEADER;
use restfs_lib::disk::hooked::Hooked;
use restfs_lib::model::Compression;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const THREADS: u32 = 8;
const EACH: u32 = 100;

#[test]
fn many_threads_put_flush_and_get_the_same_and_other_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for i in 0..EACH {
                    // Half of the numbers are those of the next thread too.
                    let content = content(thread * EACH / 2 + i, 200);
                    let key = key_of(&content);
                    store.put(key, &content, Compression::Zstd).unwrap();
                    store.flush().unwrap();
                    assert_eq!(store.get(key).unwrap(), content);
                }
            });
        }
    });
    let all: Blocks = (0..(THREADS + 1) * EACH / 2)
        .map(|n| content(n, 200))
        .map(|c| (key_of(&c), c))
        .collect();
    assert_holds(&store, &all);
    store.rebuild_index().unwrap();
    assert_holds(&store, &all);
    drop(store);
    let store = open(folder.path());
    assert_holds(&store, &all);
    assert_eq!(store.stats().unwrap().blocks, all.len() as u64);
}

#[test]
fn callers_of_flush_share_syncs_and_none_returns_before_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (syncs, durable) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (syncs_in, durable_in) = (Arc::clone(&syncs), Arc::clone(&durable));
    let slow = Hooked::new(&folder.path().join("packs"), move |_, file| {
        let length = file.length()?;
        // As slow as a disk, so that callers meet.
        std::thread::sleep(Duration::from_millis(5));
        file.sync_data()?;
        syncs_in.fetch_add(1, Ordering::SeqCst);
        durable_in.fetch_max(length, Ordering::SeqCst);
        Ok(())
    });
    let mut options = small_packs();
    options.pack_size = 1 << 30;
    let store = FsStore::open_with(folder.path(), &options, slow).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, durable) = (&store, &durable);
            scope.spawn(move || {
                for i in 0..20 {
                    let content = content(thread * 1000 + i, 50);
                    let key = key_of(&content);
                    store.put(key, &content, Compression::None).unwrap();
                    store.flush().unwrap();
                    let at = store.shared.find(key).unwrap().unwrap();
                    let end = at.offset + RECORD_HEADER as u64 + u64::from(at.stored);
                    assert!(durable.load(Ordering::SeqCst) >= end);
                }
            });
        }
    });
    let syncs = syncs.load(Ordering::SeqCst);
    assert!(
        syncs < u64::from(THREADS) * 20 / 2,
        "{syncs} syncs for {} flushes",
        THREADS * 20
    );
}
