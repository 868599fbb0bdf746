use super::damage::flip;
use super::{Blocks, assert_holds, content, fill, key_of, open, pack_path, put};
use crate::storage::fs::FsStore;
use crate::storage::{BlockStore, ScrubDamage, ScrubPosition, StoreError};
use restfs_lib::model::BlockKey;
use std::collections::BTreeSet;
use std::fs;

/// From one end to the other in small steps.
fn scrub(store: &FsStore) -> Vec<ScrubDamage> {
    let (mut from, mut damages) = (ScrubPosition::default(), Vec::new());
    loop {
        let step = store.scrub(from, 1500).unwrap();
        damages.extend(step.damages);
        match step.next {
            Some(next) => assert!(next > std::mem::replace(&mut from, next)),
            None => return damages,
        }
    }
}

fn keys(damages: &[ScrubDamage]) -> BTreeSet<BlockKey> {
    damages.iter().filter_map(|damage| damage.key).collect()
}

fn bad(store: &FsStore, blocks: &Blocks) -> BTreeSet<BlockKey> {
    let unreadable = |key: &&BlockKey| match store.get(**key) {
        Ok(content) => {
            assert_eq!(content, blocks[*key], "a damaged block was served");
            false
        }
        Err(StoreError::Corrupt { .. } | StoreError::Missing(_)) => true,
        Err(other) => panic!("{other}"),
    };
    blocks.keys().filter(unreadable).copied().collect()
}

/// A thousand times another bit. A flip of a flipped bit is none, so each is flipped once.
fn flip_bits(folder: &std::path::Path, count: usize) {
    let mut flipped = BTreeSet::new();
    let packs: Vec<_> = (1..)
        .map(|n| pack_path(folder, n))
        .take_while(|p| p.exists())
        .collect();
    let lengths: Vec<u64> = packs.iter().map(|p| fs::metadata(p).unwrap().len()).collect();
    let mut random = 7_u64;
    while flipped.len() < count {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bit = (random >> 20) % (lengths.iter().sum::<u64>() * 8);
        if !flipped.insert(bit) {
            continue;
        }
        let (mut byte, mut pack) = (bit / 8, 0);
        while byte >= lengths[pack] {
            byte -= lengths[pack];
            pack += 1;
        }
        flip(&packs[pack], byte, 1 << (bit % 8));
    }
}

#[test]
fn a_thousand_flipped_bits_are_all_found_none_is_served_and_all_are_mended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks = fill(&store, 0..3000, 200);
    assert_eq!(scrub(&store), []);
    flip_bits(folder.path(), 1000);
    let damages = scrub(&store);
    let found = keys(&damages);
    // Every record is small: hardly any two bits hit the same.
    assert!(found.len() > 600, "{}", found.len());
    assert_eq!(found, bad(&store, &blocks));
    let all: Vec<BlockKey> = blocks.keys().copied().collect();
    let wanted: BTreeSet<BlockKey> = store.missing(&all).unwrap().into_iter().collect();
    assert_eq!(wanted, found);
    assert_eq!(store.stats().unwrap().damaged_blocks, found.len() as u64);
    // It is known after a restart, before anybody reads.
    drop(store);
    let store = open(folder.path());
    let wanted: BTreeSet<BlockKey> = store.missing(&all).unwrap().into_iter().collect();
    assert_eq!(wanted, found);
    for key in &found {
        put(&store, &blocks[key]);
    }
    store.flush().unwrap();
    assert_holds(&store, &blocks);
    assert_eq!(store.stats().unwrap().damaged_blocks, 0);
    // The bad copies are still there, and nobody needs them.
    assert_eq!(keys(&scrub(&store)), BTreeSet::new());
    drop(store);
    let store = open(folder.path());
    assert_holds(&store, &blocks);
    assert_eq!(store.stats().unwrap().damaged_blocks, 0);
}

#[test]
fn every_flipped_bit_of_a_pack_is_a_damage_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    fill(&store, 0..4, 30);
    let path = pack_path(folder.path(), 1);
    let length = fs::metadata(&path).unwrap().len();
    for byte in 0..length {
        let bit = 1 << (byte % 8);
        flip(&path, byte, bit);
        let found = scrub(&store);
        assert_eq!(found.len(), 1, "byte {byte}");
        // The file's header is no block's.
        assert_eq!(keys(&found).len(), usize::from(byte >= 24), "byte {byte}");
        flip(&path, byte, bit);
        // What was called damaged by mistake of a cable, say, is good again.
        assert_eq!(scrub(&store), []);
        assert_eq!(store.stats().unwrap().damaged_blocks, 0, "byte {byte}");
    }
}

#[test]
fn a_pack_that_is_gone_or_shorter_names_its_blocks_while_running_and_after_a_restart() {
    for restart in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let blocks = fill(&store, 0..100, 200);
        drop(store);
        store = open(folder.path());
        fs::remove_file(pack_path(folder.path(), 2)).unwrap();
        let cut = fs::OpenOptions::new()
            .write(true)
            .open(pack_path(folder.path(), 4))
            .unwrap();
        cut.set_len(1000).unwrap();
        if restart {
            drop(store);
            store = open(folder.path());
        }
        let found = keys(&scrub(&store));
        let wanted: Vec<BlockKey> = blocks.keys().copied().collect();
        let missing: BTreeSet<BlockKey> = store.missing(&wanted).unwrap().into_iter().collect();
        assert!(missing.len() > 15, "{}", missing.len());
        assert_eq!(store.stats().unwrap().damaged_blocks, missing.len() as u64);
        if !restart {
            assert_eq!(found, missing);
        }
        assert_eq!(bad(&store, &blocks), missing);
        for key in &missing {
            put(&store, &blocks[key]);
        }
        store.flush().unwrap();
        assert_holds(&store, &blocks);
        assert_eq!(store.stats().unwrap().damaged_blocks, 0);
    }
}

#[test]
fn what_is_being_written_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, b"not synced yet");
    assert_eq!(scrub(&store), []);
    let blocks = fill(&store, 0..50, 200);
    put(&store, &content(77, 100));
    assert_eq!(scrub(&store), []);
    assert_holds(&store, &blocks);
    assert!(store.contains(key_of(b"not synced yet")).unwrap());
}
