//! Collections: what is needed stays whatever happens, what is not goes for good.

use super::full::SmallDisk;
use super::{
    Blocks, assert_holds, content, copy_store, fill, key_of, open, open_on_a_disk_that_fails, pack_path, put,
    small_packs,
};
use crate::storage::fs::gc::FsCollection;
use crate::storage::fs::index::Location;
use crate::storage::fs::record::{FILE_HEADER, RECORD_HEADER};
use crate::storage::fs::{FsStore, Options};
use crate::storage::{BlockStore, CollectOptions, Collection, StoreError, Swept};
use restfs_lib::disk::hooked::Hooked;
use restfs_lib::model::{BlockKey, Compression};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// Everything that nothing needs, at once.
const ALL: CollectOptions = CollectOptions {
    grace: Duration::ZERO,
    least_dead: 0,
    dry_run: false,
};

pub(super) fn number_of(content: &[u8]) -> u32 {
    let (_, number) = content.split_last_chunk().unwrap();
    u32::from_be_bytes(*number)
}

pub(super) fn collect(store: &FsStore, needed: &Blocks) -> Swept {
    run(store.collect(ALL).unwrap(), needed)
}

fn run(mut collection: Box<dyn Collection>, needed: &Blocks) -> Swept {
    needed.keys().for_each(|key| collection.keep(*key));
    collection.weigh(&mut |_| true).unwrap();
    collection.sweep(&mut |_| true).unwrap()
}

/// The packs have nothing but these blocks, each once.
pub(super) fn assert_only(store: &FsStore, blocks: &Blocks) {
    let records: u64 = blocks
        .keys()
        .map(|key| store.shared.find(*key).unwrap().unwrap())
        .map(|at| RECORD_HEADER as u64 + u64::from(at.stored))
        .sum();
    let stats = store.stats().unwrap();
    assert_eq!(stats.stored_bytes, records + stats.packs * FILE_HEADER as u64);
    assert_eq!(stats.blocks, blocks.len() as u64);
    let plain: usize = blocks.values().map(Vec::len).sum();
    assert_eq!((stats.plain_bytes, stats.damaged_blocks), (plain as u64, 0));
}

fn split(blocks: &Blocks, needed: impl Fn(u32) -> bool) -> (Blocks, Vec<BlockKey>) {
    let (kept, gone): (Blocks, Blocks) = blocks
        .clone()
        .into_iter()
        .partition(|(_, content)| needed(number_of(content)));
    (kept, gone.into_keys().collect())
}

#[test]
fn what_nothing_needs_is_gone_for_good_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, gone) = split(&fill(&store, 0..120, 300), |n| n < 30 || n.is_multiple_of(3));
    let swept = collect(&store, &kept);
    assert_eq!((swept.blocks, swept.packs_damaged), (gone.len() as u64, 0));
    assert_holds(&store, &kept);
    assert_eq!(store.missing(&gone).unwrap(), gone);
    assert!(
        gone.iter()
            .all(|key| matches!(store.get(*key), Err(StoreError::Missing(_))))
    );
    assert_only(&store, &kept);
    // What is needed is not copied again and again.
    let again = collect(&store, &kept);
    assert_eq!((again.copied_bytes, again.packs_removed), (0, 0));
    assert_eq!(store.rebuild_index().unwrap().damages, []);
    assert_only(&store, &kept);
    drop(store);
    fs::remove_file(folder.path().join("index.db")).unwrap();
    let store = open(folder.path());
    assert_eq!(store.recovery().damages, []);
    assert_holds(&store, &kept);
    assert_only(&store, &kept);
    // What went can come again.
    let back = fill(&store, 30..120, 300);
    assert_holds(&store, &back);
}

/// A store as it was at some moment, with an index of that moment, of an earlier one, or none.
struct Crashed {
    stage: &'static str,
    folder: tempfile::TempDir,
}

const INDEX: [&str; 3] = ["index.db", "index.db-wal", "index.db-shm"];

fn remove_index(folder: &Path) {
    for name in INDEX {
        let _ = fs::remove_file(folder.join(name));
    }
}

fn copy_index(from: &Path, to: &Path) {
    remove_index(to);
    for name in INDEX {
        let _ = fs::copy(from.join(name), to.join(name));
    }
}

#[test]
fn a_crash_at_any_step_loses_nothing_and_leaves_nothing_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, _) = split(&fill(&store, 0..60, 300), |n| n < 20 || n.is_multiple_of(3));
    store.shared.enter_recent().unwrap();
    // What a power cut may go back to: the index as it was synced last.
    let synced = tempfile::tempdir().unwrap();
    copy_index(folder.path(), synced.path());
    let crashes: Arc<Mutex<Vec<Crashed>>> = Arc::default();
    let (noted, source, index) = (
        crashes.clone(),
        folder.path().to_owned(),
        synced.path().to_owned(),
    );
    let stage = move |stage: &'static str| {
        if stage == "left" {
            copy_index(&source, &index);
        }
        for variant in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            copy_store(&source, folder.path());
            match variant {
                0 => {}
                1 => copy_index(&index, folder.path()),
                _ => remove_index(folder.path()),
            }
            noted.lock().unwrap().push(Crashed { stage, folder });
        }
    };
    let collection = FsCollection::begin(&store.shared, ALL, Box::new(stage)).unwrap();
    let swept = run(Box::new(collection), &kept);
    assert!(swept.packs_removed > 3 && swept.copied_bytes > 0, "{swept:?}");
    let crashes = std::mem::take(&mut *crashes.lock().unwrap());
    for stage in ["forgotten", "copied", "moved", "left", "removed", "done"] {
        assert!(crashes.iter().any(|crash| crash.stage == stage), "{stage}");
    }
    for (at, Crashed { stage, folder }) in crashes.into_iter().enumerate() {
        let store = open(folder.path());
        assert_eq!(store.recovery().damages, [], "{stage}, crash {at}");
        assert_eq!(store.stats().unwrap().damaged_blocks, 0, "{stage}, crash {at}");
        assert_holds(&store, &kept);
        collect(&store, &kept);
        assert_holds(&store, &kept);
        assert_only(&store, &kept);
        drop(store);
        let store = open(folder.path());
        assert_eq!(store.recovery().damages, [], "{stage}, crash {at}");
        assert_only(&store, &kept);
    }
}

/// The start after the crash ends the collection; a power cut may take the index back to before that, while what was stored
/// since is on disk.
#[test]
fn a_pack_made_after_a_collection_is_never_taken_for_one_that_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let kept = fill(&store, 0..20, 300);
    // So that nothing is copied, and the pack of the collection stays empty.
    store.shared.log.leave_pack().unwrap();
    fill(&store, 20..120, 300);
    store.shared.enter_recent().unwrap();
    let crashes: Arc<Mutex<Vec<Crashed>>> = Arc::default();
    let (noted, source) = (crashes.clone(), folder.path().to_owned());
    let stage = move |stage: &'static str| {
        if stage == "removed" {
            let folder = tempfile::tempdir().unwrap();
            copy_store(&source, folder.path());
            noted.lock().unwrap().push(Crashed { stage, folder });
        }
    };
    let collection = FsCollection::begin(&store.shared, ALL, Box::new(stage)).unwrap();
    run(Box::new(collection), &kept);
    let crashes = std::mem::take(&mut *crashes.lock().unwrap());
    assert!(crashes.len() > 3);
    for Crashed { stage, folder } in crashes {
        let before = tempfile::tempdir().unwrap();
        copy_index(folder.path(), before.path());
        let store = open(folder.path());
        let new = fill(&store, 1000..1200, 300);
        drop(store);
        copy_index(before.path(), folder.path());
        let store = open(folder.path());
        assert_eq!(store.recovery().damages, [], "{stage}");
        assert_holds(&store, &kept);
        assert_holds(&store, &new);
    }
}

/// A source asks which blocks are missing and is told that one is here; then it is to be here when its commit names it.
#[test]
fn a_block_that_somebody_was_told_is_here_stays_though_nothing_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks = fill(&store, 0..60, 300);
    let keys: Vec<BlockKey> = blocks.keys().copied().collect();
    let mut collection = store.collect(ALL).unwrap();
    assert_eq!(store.missing(&keys[..10]).unwrap(), []);
    collection.weigh(&mut |_| true).unwrap();
    assert_eq!(store.missing(&keys[10..20]).unwrap(), []);
    for key in &keys[20..30] {
        put(&store, &blocks[key]);
    }
    assert!(store.contains(keys[30]).unwrap());
    let mut asked = false;
    let swept = collection
        .sweep(&mut |_| {
            asked = true;
            true
        })
        .unwrap();
    assert_eq!(swept.blocks, 29);
    drop(collection);
    assert_eq!(store.missing(&keys).unwrap(), keys[31..]);
    let told: Blocks = blocks
        .into_iter()
        .filter(|(key, _)| keys[..31].contains(key))
        .collect();
    assert_holds(&store, &told);
    assert_only(&store, &told);
    // It is for that collection only.
    collect(&store, &Blocks::new());
    assert_only(&store, &Blocks::new());
}

/// Many who ask, and put what is missing, at every moment of collections to which nothing is needed.
#[test]
fn no_answer_is_overtaken_by_a_collection() {
    const THREADS: u32 = 4;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks = fill(&store, 0..400, 60);
    for round in 0..6 {
        // What is asked for from now on is to stay.
        let mut collection = store.collect(ALL).unwrap();
        let told: Blocks = std::thread::scope(|scope| {
            let ask = |thread: u32| {
                let mut told = Blocks::new();
                for (at, (key, content)) in (0..).zip(&blocks) {
                    // Some are asked for by several.
                    if (at + thread + round) % 4 > 1 {
                        continue;
                    }
                    if !store.missing(&[*key]).unwrap().is_empty() {
                        put(&store, content);
                        store.flush().unwrap();
                    }
                    told.insert(*key, content.clone());
                }
                told
            };
            let asking: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || ask(thread)))
                .collect();
            collection.weigh(&mut |_| true).unwrap();
            collection.sweep(&mut |_| true).unwrap();
            asking
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        drop(collection);
        assert_holds(&store, &told);
    }
}

#[test]
fn who_reads_does_not_notice_that_packs_vanish() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, _) = split(&fill(&store, 0..300, 200), |n| n.is_multiple_of(3));
    let (ended, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    for (key, content) in &kept {
                        assert_eq!(store.get(*key).unwrap(), content);
                        store.check(*key).unwrap();
                        reads.fetch_add(1, Ordering::SeqCst);
                    }
                    let stats = store.stats().unwrap();
                    assert_eq!(stats.damaged_blocks, 0);
                }
            });
        }
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                let mut at = Default::default();
                while let Some(next) = store
                    .scrub(at, 2000)
                    .map(|step| (step.damages, step.next))
                    .map(|(damages, next)| {
                        assert_eq!(damages, []);
                        next
                    })
                    .unwrap()
                {
                    at = next;
                }
            }
        });
        let collecting = scope.spawn(|| {
            for round in 0..10 {
                // New garbage in every pack, so that all are written anew.
                fill(&store, 1000 + round * 100..1050 + round * 100, 200);
                collect(&store, &kept);
            }
        });
        let collected = collecting.join();
        // Whatever became of it, or the others would go on for good.
        ended.store(true, Ordering::SeqCst);
        collected.unwrap();
    });
    assert!(reads.load(Ordering::SeqCst) > 0);
    assert_only(&store, &kept);
}

/// Between the look into the index and the read.
#[test]
fn a_block_that_moves_while_it_is_read_is_read_where_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, gone) = split(&fill(&store, 0..60, 300), |n| n.is_multiple_of(3));
    let find = |key: &BlockKey| store.shared.find(*key).unwrap().unwrap();
    let kept_at: Vec<_> = kept.keys().map(|key| (*key, find(key))).collect();
    let gone_at: Vec<_> = gone.iter().map(|key| (*key, find(key))).collect();
    collect(&store, &kept);
    for (key, at) in kept_at {
        assert_eq!(store.shared.read_from(key, at).unwrap(), kept[&key]);
    }
    for (key, at) in gone_at {
        let read = store.shared.read_from(key, at);
        assert!(matches!(read, Err(StoreError::Missing(_))), "{read:?}");
    }
    assert_eq!(store.stats().unwrap().damaged_blocks, 0);
}

#[test]
fn a_needed_block_that_is_damaged_keeps_its_pack_until_it_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, _) = split(&fill(&store, 0..60, 300), |n| n.is_multiple_of(4));
    let (key, bytes) = kept.iter().next().unwrap();
    let at = store.shared.find(*key).unwrap().unwrap();
    let path = pack_path(folder.path(), at.pack);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"?", at.offset + RECORD_HEADER as u64 + 2)
        .unwrap();
    for _ in 0..2 {
        let swept = collect(&store, &kept);
        assert_eq!(swept.packs_damaged, 1);
        assert!(path.exists());
        assert_eq!(store.missing(&[*key]).unwrap(), [*key]);
        assert_eq!(store.stats().unwrap().damaged_blocks, 1);
    }
    put(&store, bytes);
    store.flush().unwrap();
    collect(&store, &kept);
    assert!(!path.exists());
    assert_holds(&store, &kept);
    assert_only(&store, &kept);
}

/// Its header cannot be found any more, so reading through the pack does not show it.
#[test]
fn a_pack_stays_when_the_index_has_a_block_there_that_reading_does_not_find() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, _) = split(&fill(&store, 0..60, 300), |n| n.is_multiple_of(4));
    let (key, _) = kept.iter().next().unwrap();
    let at = store.shared.find(*key).unwrap().unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(pack_path(folder.path(), at.pack))
        .unwrap();
    file.write_all_at(&[0; RECORD_HEADER], at.offset).unwrap();
    assert_eq!(collect(&store, &kept).packs_damaged, 1);
    drop(store);
    let store = open(folder.path());
    assert!(matches!(store.get(*key), Err(StoreError::Corrupt { .. })));
    assert_eq!(store.missing(&[*key]).unwrap(), [*key]);
}

/// The index has no checksums: what it does not know it may have lost.
#[test]
fn a_needed_block_that_the_index_has_lost_or_knows_a_bad_record_of_is_found_in_the_packs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, _) = split(&fill(&store, 0..60, 300), |n| n.is_multiple_of(4));
    store.shared.enter_recent().unwrap();
    let find = |key: &BlockKey| store.shared.find(*key).unwrap().unwrap();
    let keys: Vec<_> = kept.keys().copied().collect();
    let lost = keys[0];
    let at = find(&lost);
    store
        .shared
        .index
        .update(|update| update.remove(lost, at))
        .unwrap();
    // A newer record that takes the place of a good one, and is no good.
    let replaced = keys[1];
    assert!(store.shared.remember_damage(replaced, None));
    put(&store, &kept[&replaced]);
    store.flush().unwrap();
    store.shared.enter_recent().unwrap();
    let at = find(&replaced);
    let file_of = |pack| {
        let path = pack_path(folder.path(), pack);
        fs::OpenOptions::new().write(true).open(path).unwrap()
    };
    file_of(at.pack)
        .write_all_at(b"?", at.offset + RECORD_HEADER as u64 + 2)
        .unwrap();
    assert!(store.get(replaced).is_err());
    assert_eq!(store.missing(&keys).unwrap(), keys[..2]);
    // The same, and nobody has read it yet.
    let unread = keys[2];
    assert!(store.shared.remember_damage(unread, None));
    put(&store, &kept[&unread]);
    store.flush().unwrap();
    store.shared.enter_recent().unwrap();
    let at = find(&unread);
    file_of(at.pack)
        .write_all_at(b"?", at.offset + RECORD_HEADER as u64 + 2)
        .unwrap();
    // One that the index has where nothing is, in a pack of before or after all others.
    for (key, pack) in [(keys[3], 0), (keys[4], 1 << 20)] {
        let at = find(&key);
        store
            .shared
            .index
            .update(|update| {
                update.remove(key, at)?;
                update.put(key, Location { pack, ..at })
            })
            .unwrap();
    }
    collect(&store, &kept);
    assert_holds(&store, &kept);
    assert_eq!(store.stats().unwrap().damaged_blocks, 0);
    assert_eq!(store.stats().unwrap().blocks, kept.len() as u64);
    drop(store);
    let store = open(folder.path());
    assert_holds(&store, &kept);
}

#[test]
fn a_pack_that_cannot_be_read_to_its_end_stays_and_the_others_are_collected() {
    let folder = tempfile::tempdir().unwrap();
    let bad: Arc<Mutex<String>> = Arc::default();
    let asked = bad.clone();
    let disk = Hooked::with_reads(&folder.path().join("packs"), move |name, _, length| {
        match name == *asked.lock().unwrap() && length != FILE_HEADER {
            true => Err(std::io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    });
    let store = FsStore::open_with(folder.path(), &small_packs(), disk).unwrap();
    let (kept, _) = split(&fill(&store, 0..120, 300), |n| n.is_multiple_of(4));
    let packs = store.stats().unwrap().packs;
    *bad.lock().unwrap() = "00000001.pack".to_owned();
    let swept = collect(&store, &kept);
    assert_eq!((swept.packs_damaged, swept.packs_removed), (1, packs - 1));
    assert!(pack_path(folder.path(), 1).exists());
    *bad.lock().unwrap() = String::new();
    assert_holds(&store, &kept);
    collect(&store, &kept);
    assert_holds(&store, &kept);
    assert_only(&store, &kept);
}

/// Damage of a block that nothing needs is nobody's concern any more.
#[test]
fn a_damaged_block_that_nothing_needs_is_not_reported_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks = fill(&store, 0..30, 300);
    let (key, _) = blocks.iter().next().unwrap();
    let at = store.shared.find(*key).unwrap().unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(pack_path(folder.path(), at.pack))
        .unwrap();
    file.write_all_at(b"?", at.offset + RECORD_HEADER as u64 + 2)
        .unwrap();
    assert!(store.get(*key).is_err());
    assert_eq!(store.stats().unwrap().damaged_blocks, 1);
    // Nor is one that is not here at all.
    store.mark_lost(key_of(b"never here")).unwrap();
    assert_eq!(store.stats().unwrap().damaged_blocks, 2);
    collect(&store, &Blocks::new());
    assert_eq!(store.stats().unwrap().damaged_blocks, 0);
    drop(store);
    assert_eq!(open(folder.path()).stats().unwrap().damaged_blocks, 0);
}

/// A pack that comes back (its removal was cut off, the index is an old one) may hold a damaged record that was replaced.
#[test]
fn an_old_record_that_is_read_later_does_not_take_the_place_of_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks = fill(&store, 0..30, 300);
    let (key, bytes) = blocks.iter().next().unwrap();
    let at = store.shared.find(*key).unwrap().unwrap();
    let path = pack_path(folder.path(), at.pack);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"?", at.offset + RECORD_HEADER as u64 + 2)
        .unwrap();
    assert!(store.get(*key).is_err());
    put(&store, bytes);
    store.flush().unwrap();
    let damaged = fs::read(&path).unwrap();
    collect(&store, &blocks);
    drop(store);
    fs::write(&path, damaged).unwrap();
    let store = open(folder.path());
    assert_holds(&store, &blocks);
}

#[test]
fn blocks_within_the_grace_stay_and_old_packs_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    fill(&store, 0..60, 300);
    let hour = CollectOptions {
        grace: Duration::from_secs(3600),
        ..ALL
    };
    let mut collection = store.collect(hour).unwrap();
    let weighed = collection.weigh(&mut |_| true).unwrap();
    let stats = store.stats().unwrap();
    assert_eq!(
        (weighed.blocks, weighed.dead_blocks, weighed.free_bytes),
        (60, 60, 0)
    );
    assert!(weighed.young_bytes > 0);
    assert_eq!(collection.sweep(&mut |_| true).unwrap(), Swept::default());
    drop(collection);
    assert_eq!(store.stats().unwrap(), stats);
    // All but the last one were written long ago; a time in the future says nothing.
    let day = Duration::from_secs(86_400);
    for pack in 1..stats.packs {
        let time = match pack % 2 {
            0 => SystemTime::now() - day,
            _ => SystemTime::now() + 9 * day,
        };
        let file = fs::File::open(pack_path(folder.path(), pack)).unwrap();
        file.set_modified(time).unwrap();
    }
    let swept = run(store.collect(hour).unwrap(), &Blocks::new());
    assert_eq!(swept.packs_removed, stats.packs - 1);
    assert!(store.stats().unwrap().blocks > 0);
}

#[test]
fn packs_with_few_dead_blocks_are_left_and_what_is_told_to_end_ends() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        pack_size: 100_000,
        cache_bytes: 0,
    };
    let store = FsStore::open(folder.path(), &options).unwrap();
    let blocks = fill(&store, 0..600, 1000);
    let (kept, gone) = split(&blocks, |n| !n.is_multiple_of(20));
    let sparse = CollectOptions {
        least_dead: 20,
        ..ALL
    };
    let swept = run(store.collect(sparse).unwrap(), &kept);
    assert_eq!(swept, Swept::default());
    // They are still there, and are not asked for when they are needed again.
    assert_eq!(store.missing(&gone).unwrap(), []);
    let (kept, _) = split(&blocks, |n| n.is_multiple_of(2));
    let mut collection = store.collect(ALL).unwrap();
    kept.keys().for_each(|key| collection.keep(*key));
    collection.weigh(&mut |_| true).unwrap();
    let mut told = 0;
    let swept = collection
        .sweep(&mut |_| {
            told += 1;
            false
        })
        .unwrap();
    drop(collection);
    assert_eq!(told, 1);
    assert!(swept.packs_removed < 6, "{swept:?}");
    assert_holds(&store, &kept);
    collect(&store, &kept);
    assert_only(&store, &kept);
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_the_other_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, _) = split(&fill(&store, 0..60, 300), |n| n.is_multiple_of(3));
    let stats = store.stats().unwrap();
    let dry = CollectOptions { dry_run: true, ..ALL };
    let mut collection = store.collect(dry).unwrap();
    kept.keys().for_each(|key| collection.keep(*key));
    let weighed = collection.weigh(&mut |_| true).unwrap();
    assert_eq!(collection.sweep(&mut |_| true).unwrap(), Swept::default());
    drop(collection);
    assert_eq!(store.stats().unwrap(), stats);
    let swept = collect(&store, &kept);
    assert_eq!(
        (swept.blocks, swept.copied_bytes),
        (weighed.dead_blocks, weighed.copy_bytes)
    );
    assert_eq!(swept.freed_bytes - swept.copied_bytes, weighed.free_bytes);
}

#[test]
fn one_collection_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = store.collect(ALL).unwrap();
    assert!(matches!(store.collect(ALL), Err(StoreError::Collecting)));
    assert!(matches!(store.rebuild_index(), Err(StoreError::Collecting)));
    drop(first);
    store.collect(ALL).unwrap();
}

#[test]
fn a_failed_sync_in_the_middle_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let store = open_on_a_disk_that_fails(folder.path(), &broken);
    let (kept, _) = split(&fill(&store, 0..90, 300), |n| n.is_multiple_of(3));
    let fail = broken.clone();
    let stage = move |stage: &'static str| fail.store(stage == "copied", Ordering::SeqCst);
    let mut collection = FsCollection::begin(&store.shared, ALL, Box::new(stage)).unwrap();
    kept.keys().for_each(|key| collection.keep(*key));
    collection.weigh(&mut |_| true).unwrap();
    assert!(collection.sweep(&mut |_| true).is_err());
    drop(collection);
    for (key, content) in &kept {
        assert_eq!(store.get(*key).unwrap(), content);
    }
    drop(store);
    let store = open(folder.path());
    assert_holds(&store, &kept);
    collect(&store, &kept);
    assert_only(&store, &kept);
}

#[test]
fn a_full_disk_gets_its_space_back() {
    let Some(disk) = SmallDisk::mount("64m") else {
        eprintln!("skipped: needs root for a small file system");
        return;
    };
    let reserve = disk.path().join("reserve");
    fs::write(&reserve, vec![1; 2 * 1024 * 1024]).unwrap();
    let folder = disk.path().join("store");
    let options = Options {
        pack_size: 1024 * 1024,
        cache_bytes: 0,
    };
    let store = FsStore::open(&folder, &options).unwrap();
    let mut blocks = Blocks::new();
    loop {
        // Noise, so that it takes what it has.
        let content = content(blocks.len() as u32 * 2, 30_000);
        match store.put(key_of(&content), &content, Compression::None) {
            Ok(()) => drop(blocks.insert(key_of(&content), content)),
            Err(StoreError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        if blocks.len().is_multiple_of(50) {
            store.flush().unwrap();
        }
    }
    fs::remove_file(&reserve).unwrap();
    store.flush().unwrap();
    store.shared.enter_recent().unwrap();
    let numbers = blocks.len() as u32 * 2;
    // Each pack has something that is needed: there is no room for copies of that.
    let (kept, _) = split(&blocks, |n| n.is_multiple_of(4));
    let swept = collect(&store, &kept);
    assert_eq!((swept.packs_removed, swept.copied_bytes), (0, 0));
    assert!(swept.packs_no_room > 30);
    assert_holds(&store, &blocks);
    // Packs that have nothing make room for the others.
    let (kept, _) = split(&blocks, |n| n > numbers / 2 && n.is_multiple_of(4));
    let swept = collect(&store, &kept);
    assert_eq!(swept.packs_no_room, 0, "{swept:?}");
    assert_holds(&store, &kept);
    assert_only(&store, &kept);
    drop(store);
    let store = FsStore::open(&folder, &options).unwrap();
    assert_holds(&store, &kept);
    fill(&store, 1_000_001..1_000_400, 30_000);
}
