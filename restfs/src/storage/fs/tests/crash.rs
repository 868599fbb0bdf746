use super::{
    Blocks, assert_holds, content, copy_store, fill, key_of, open, open_on_a_disk_that_fails, pack_path, put,
    small_packs,
};
use crate::storage::BlockStore;
use crate::storage::fs::record::RECORD_HEADER;
use crate::storage::fs::{FsStore, Options};
use restfs_lib::disk::hooked::Hooked;
use restfs_lib::model::{BlockKey, Compression};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The store's folder as after `kill -9` behind the last flush: the index has nothing of it yet.
fn folder_without_index_of_tail(blocks: u32) -> (tempfile::TempDir, Blocks) {
    let folder = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path(), &Options::default()).unwrap();
    let blocks = fill(&store, 0..blocks, 40);
    copy_store(folder.path(), crashed.path());
    // Whatever the index thread had done by then, the marks go back to nothing.
    for file in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(crashed.path().join(file));
    }
    (crashed, blocks)
}

#[test]
fn cut_at_any_byte_every_earlier_block_is_there_and_nothing_is_invented() {
    let (crashed, blocks) = folder_without_index_of_tail(8);
    let whole = fs::read(pack_path(crashed.path(), 1)).unwrap();
    // Ends of the records, found by opening each prefix, may only grow.
    let mut held_before = 0;
    for length in 0..=whole.len() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("packs")).unwrap();
        fs::write(pack_path(folder.path(), 1), &whole[..length]).unwrap();
        let store = FsStore::open(folder.path(), &Options::default()).unwrap();
        let held = store.stats().unwrap().blocks;
        assert!(
            held >= held_before,
            "at {length}: {held} blocks after {held_before}"
        );
        held_before = held;
        let present: Blocks = blocks
            .iter()
            .filter(|(key, _)| store.contains(**key).unwrap())
            .map(|(k, c)| (*k, c.clone()))
            .collect();
        assert_eq!(
            present.len() as u64,
            held,
            "at {length}: something that was never put"
        );
        assert_holds(&store, &present);
        assert_eq!(
            store.recovery().damages,
            [],
            "at {length}: a torn tail is no damage"
        );
        // It goes on from there.
        fill(&store, 100..103, 40);
        drop(store);
        let store = FsStore::open(folder.path(), &Options::default()).unwrap();
        assert_holds(&store, &present);
        assert_eq!(store.stats().unwrap().blocks, held + 3);
    }
    assert_eq!(held_before, blocks.len() as u64);
}

#[test]
fn flushed_blocks_survive_a_torn_write_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks = fill(&store, 0..30, 100);
    let newest = store.stats().unwrap().packs;
    let crashed = tempfile::tempdir().unwrap();
    copy_store(folder.path(), crashed.path());
    let path = pack_path(crashed.path(), newest);
    let flushed = fs::metadata(&path).unwrap().len();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for torn in [
        &b"rBlk"[..],
        &[0; 500],
        b"rBlk\x01\x00\x00\x00garbage that is longer than a header of a record",
    ] {
        file.set_len(flushed).unwrap();
        file.write_all_at(torn, flushed).unwrap();
        let again = open(crashed.path());
        assert_eq!(again.recovery().cut_bytes, torn.len() as u64);
        assert_holds(&again, &blocks);
        assert_eq!(fs::metadata(&path).unwrap().len(), flushed);
    }
}

/// A power cut may keep later pages and lose earlier ones of what was never synced.
#[test]
fn whole_records_behind_a_torn_one_are_kept() {
    let (crashed, blocks) = folder_without_index_of_tail(6);
    let path = pack_path(crashed.path(), 1);
    let bytes = fs::read(&path).unwrap();
    let second = find_records(&bytes)[1];
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 30], second as u64).unwrap();
    let store = open(crashed.path());
    assert_eq!(store.stats().unwrap().blocks, blocks.len() as u64 - 1);
    assert_eq!(store.recovery().cut_bytes, 0);
    let [damage] = &store.recovery().damages[..] else {
        panic!("{:?}", store.recovery())
    };
    assert_eq!((damage.pack, damage.offset), (1, second as u64));
}

#[test]
fn a_pack_whose_creation_was_cut_off_is_made_again() {
    for left in [&b""[..], b"RestFS", &[0; 24]] {
        let folder = tempfile::tempdir().unwrap();
        let blocks = fill(&open(folder.path()), 0..30, 100);
        let newest = (1..).find(|n| !pack_path(folder.path(), *n).exists()).unwrap();
        fs::write(pack_path(folder.path(), newest), left).unwrap();
        let store = open(folder.path());
        assert_eq!(store.recovery().damages, []);
        assert_holds(&store, &blocks);
        let more = fill(&store, 100..130, 100);
        drop(store);
        let store = open(folder.path());
        assert_holds(&store, &blocks);
        assert_holds(&store, &more);
    }
}

/// A process that was killed between write and sync leaves records in the page cache. The next one answers that the
/// blocks are there, so it must have synced them.
#[test]
fn blocks_found_in_the_tail_are_synced_before_they_are_believed() {
    let (crashed, blocks) = folder_without_index_of_tail(4);
    let disk = Disk::default();
    let store = FsStore::open_with(crashed.path(), &small_packs(), disk.below(crashed.path())).unwrap();
    let bytes = store.stats().unwrap().stored_bytes;
    for content in blocks.values() {
        let key = put(&store, content);
        disk.assert_durable(&store, key);
    }
    store.flush().unwrap();
    assert_eq!(
        store.stats().unwrap().stored_bytes,
        bytes,
        "blocks that are there are not written again"
    );
}

/// What a power cut at this moment would leave: how far each pack was synced.
#[derive(Default, Clone)]
struct Disk(Arc<Mutex<BTreeMap<String, u64>>>);

impl Disk {
    fn below(&self, folder: &Path) -> Arc<Hooked> {
        let durable = Arc::clone(&self.0);
        Hooked::new(&folder.join("packs"), move |name, file| {
            let length = file.length()?;
            file.sync_data()?;
            durable.lock().unwrap().insert(name.to_owned(), length);
            Ok(())
        })
    }

    fn length(&self, pack: u64) -> u64 {
        let name = format!("{pack:08}.pack");
        self.0.lock().unwrap().get(&name).copied().unwrap_or(24)
    }

    fn assert_durable(&self, store: &FsStore, key: BlockKey) {
        let at = store.shared.find(key).unwrap().unwrap();
        let end = at.offset + RECORD_HEADER as u64 + u64::from(at.stored);
        assert!(
            self.length(at.pack) >= end,
            "pack {} is not durable up to {end}",
            at.pack
        );
    }
}

#[test]
fn nothing_is_acknowledged_or_indexed_before_it_is_durable_also_across_packs() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let store = FsStore::open_with(folder.path(), &small_packs(), disk.below(folder.path())).unwrap();
    for round in 0..40 {
        // Some rounds end in the middle of a pack, some begin a new one.
        let keys: Vec<_> = (0..round % 7 + 1)
            .map(|i| put(&store, &content(round * 10 + i, 500)))
            .collect();
        store.shared.enter_recent().unwrap();
        for (pack, indexed_to) in store.shared.index.marks().unwrap() {
            assert!(indexed_to <= disk.length(pack), "round {round}: pack {pack}");
        }
        store.flush().unwrap();
        keys.iter().for_each(|key| disk.assert_durable(&store, *key));
    }
    assert!(store.stats().unwrap().packs > 5);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_unsynced_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let store = open_on_a_disk_that_fails(folder.path(), &broken);
    let blocks = fill(&store, 0..5, 100);
    broken.store(true, Ordering::SeqCst);
    let lost = put(&store, &content(200, 100));
    assert!(store.flush().is_err());
    broken.store(false, Ordering::SeqCst);
    assert!(
        store.flush().is_err(),
        "a caller whose block was dropped must not hear of success"
    );
    assert!(store.put(key_of(b"x"), b"x", Compression::None).is_err());
    assert_holds(&store, &blocks);
    drop(store);
    let store = open(folder.path());
    assert!(!store.contains(lost).unwrap());
    assert_holds(&store, &blocks);
    fill(&store, 200..201, 100);
    assert!(store.contains(lost).unwrap());
}

pub(super) fn find_records(pack: &[u8]) -> Vec<usize> {
    pack.windows(4)
        .enumerate()
        .filter(|(_, w)| *w == b"rBlk")
        .map(|(i, _)| i)
        .collect()
}
