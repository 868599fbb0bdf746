use super::rig::{BLOCK, Rig, block_on};
use bytes::Bytes;
use dr_replicator::{BatchLimits, ChangeSource, ReadBlock, SourceError};
use restfs_lib::content::{cut, hash_block, patch};
use restfs_lib::kv::{Kv, MemoryKv};
use restfs_lib::model::{BlockRef, ObjectId, Op, RowKey};
use restfs_lib::tree::{self, History, Tree};
use std::fs;

fn blocks(rig: &Rig) -> Vec<(ObjectId, u64, u32, BlockRef)> {
    let mut found = Vec::new();
    for change in rig.changes(0) {
        if let Op::PutBlocks { id, segment, blocks } = change.op {
            found.extend(
                blocks
                    .into_iter()
                    .filter_map(|(p, b)| b.map(|b| (id, segment, p, b))),
            );
        }
    }
    found
}

fn read(rig: &Rig, (id, segment, position, block): (ObjectId, u64, u32, BlockRef)) -> ReadBlock {
    block_on(rig.catalog.read_block(id, segment, position, block)).unwrap()
}

/// Blocks that the cache does not hold any more.
fn without_cache(rig: &mut Rig) {
    rig.restart();
    rig.settle();
}

#[test]
fn a_block_that_was_just_read_is_not_read_again() {
    let rig = Rig::new();
    rig.make_file("", "f", &[5; 3 * BLOCK as usize]);
    rig.check();
    let before = rig.catalog.status().bytes_read;
    for block in blocks(&rig) {
        assert!(matches!(read(&rig, block), ReadBlock::Same(content) if content[..] == [5; BLOCK as usize]));
    }
    assert_eq!(rig.catalog.status().bytes_read, before);
}

/// The one block that changed after `head`: by what it is said to be made, the new content out of the old.
fn difference(rig: &Rig, head: u64, old: &[u8], new: &[u8]) -> Option<u64> {
    let changed = rig.changes(head).into_iter().find_map(|change| match change.op {
        Op::PutBlocks { blocks, .. } => Some((blocks, change.since)),
        _ => None,
    });
    let (blocks, since) = changed.expect("a block has changed");
    assert_eq!(blocks.len(), 1);
    let (_, since) = since.first()?;
    let (ranges, bytes) = cut(new, since.ranges());
    let made = patch(old, new.len(), &ranges, &bytes).expect("a block");
    assert_eq!(
        blocks[0].1.map(|b| b.key),
        Some(hash_block(&made, Default::default()).key)
    );
    Some(since.bytes())
}

#[test]
fn the_log_says_what_of_a_block_a_client_wrote() {
    let mut rig = Rig::new();
    let mut content: Vec<u8> = (0..3 * BLOCK).map(|i| (i * i % 251) as u8).collect();
    rig.make_file("", "f", &content);
    rig.check();
    let block = BLOCK as usize..2 * BLOCK as usize;
    for cached in [false, true] {
        if !cached {
            without_cache(&mut rig);
        }
        let (head, old) = (rig.catalog.status().head, content.clone());
        let at = BLOCK + if cached { 100 } else { 2000 };
        content[at as usize..at as usize + 50].fill(9);
        rig.write_at("f", at, &[9; 50]);
        // What is in memory is compared: then it is no matter how much is said to be written.
        let told = if cached { BLOCK..2 * BLOCK } else { at..at + 50 };
        rig.written("f", told);
        rig.check();
        let bytes = difference(&rig, head, &old[block.clone()], &content[block.clone()]);
        assert!(
            bytes.is_some_and(|bytes| (50..=128).contains(&bytes)),
            "{bytes:?}"
        );
    }
}

#[test]
fn a_file_that_was_cut_or_grew_ships_the_difference_at_its_end() {
    let mut rig = Rig::new();
    let old: Vec<u8> = (0..BLOCK).map(|i| (i % 251) as u8).collect();
    rig.make_file("", "f", &old[..3000]);
    rig.check();
    let file = fs::File::options().write(true).open(rig.path("f")).unwrap();
    for (from, to) in [(3000, 1000), (1000, 3500)] {
        without_cache(&mut rig);
        let head = rig.catalog.status().head;
        file.set_len(to).unwrap();
        if to > from {
            rig.write_at("f", from, &old[from as usize..to as usize]);
        }
        rig.written("f", from.min(to)..u64::MAX);
        rig.check();
        let bytes = difference(&rig, head, &old[..from as usize], &old[..to as usize]);
        assert_eq!(bytes, Some(to.saturating_sub(from)));
    }
}

#[test]
fn of_a_file_written_whole_or_new_no_difference_is_told() {
    let mut rig = Rig::new();
    rig.make_file("", "f", &[5; 3 * BLOCK as usize]);
    rig.check();
    assert!(rig.changes(0).iter().all(|change| change.since.is_empty()));
    without_cache(&mut rig);
    let head = rig.catalog.status().head;
    rig.write_at("f", 0, &[6; 3 * BLOCK as usize]);
    rig.written("f", 0..3 * BLOCK);
    rig.check();
    assert!(rig.changes(head).iter().all(|change| change.since.is_empty()));
}

#[test]
fn a_block_rewritten_since_is_in_the_catalog_before_it_is_shipped() {
    let mut rig = Rig::new();
    rig.make_file("", "f", &[5; 3 * BLOCK as usize]);
    rig.check();
    without_cache(&mut rig);
    let block = blocks(&rig)[1];
    assert!(matches!(read(&rig, block), ReadBlock::Same(_)));
    without_cache(&mut rig);

    rig.write_at("f", BLOCK + 1, b"newer");
    let head = rig.catalog.status().head;
    let ReadBlock::Newer(newer, content) = read(&rig, block) else {
        panic!("the old content is gone")
    };
    assert_eq!(
        content,
        Bytes::from(fs::read(rig.path("f")).unwrap()[BLOCK as usize..2 * BLOCK as usize].to_vec())
    );
    let entered = rig.changes(head);
    assert!(
        entered
            .iter()
            .any(|c| matches!(&c.op, Op::PutBlocks { blocks, .. } if blocks[0].1 == Some(newer)))
    );
    rig.written("f", BLOCK + 1..BLOCK + 6);
    rig.check();
}

#[test]
fn a_block_cut_off_or_punched_out_since_is_a_hole_in_the_catalog_too() {
    let mut rig = Rig::new();
    rig.make_file("", "f", &[5; 3 * BLOCK as usize]);
    rig.check();
    without_cache(&mut rig);
    let file = fs::File::options().write(true).open(rig.path("f")).unwrap();
    file.set_len(BLOCK).unwrap();
    let block = blocks(&rig)[2];
    assert!(matches!(read(&rig, block), ReadBlock::Hole));
    // Back to what it was before anybody told: the site must get the block again.
    rig.write_at("f", 2 * BLOCK, &[5; BLOCK as usize]);
    rig.write_at("f", BLOCK, &[5; BLOCK as usize]);
    rig.written("f", BLOCK..u64::MAX);
    rig.check();
}

#[test]
fn a_block_of_a_file_that_is_gone_is_gone() {
    let mut rig = Rig::new();
    rig.make_file("", "f", &[5; 3 * BLOCK as usize]);
    rig.check();
    without_cache(&mut rig);
    let block = blocks(&rig)[0];
    let event = crate::journal::Body::Unlink {
        dir: rig.dir(""),
        name: b"f".to_vec(),
        node: rig.node("f"),
    };
    fs::remove_file(rig.path("f")).unwrap();
    // The event comes while the replicator searches.
    std::thread::scope(|scope| {
        let found = scope.spawn(|| read(&rig, block));
        std::thread::sleep(std::time::Duration::from_millis(100));
        rig.feed(event);
        assert!(matches!(found.join().unwrap(), ReadBlock::Gone));
    });
}

#[test]
fn batches_respect_their_limits_and_are_exact_only_at_the_end() {
    let rig = Rig::new();
    for i in 0..40 {
        rig.make_file("", &format!("f{i}"), &[i as u8; 2 * BLOCK as usize]);
    }
    rig.check();
    let limits = BatchLimits {
        max_bytes: 3 * BLOCK,
        ..BatchLimits::of_log(10)
    };
    let (mut after, mut whole) = (0, 0);
    loop {
        let batch = block_on(rig.catalog.changes(after, limits)).unwrap();
        let Some(last) = batch.changes.last() else { break };
        assert_eq!(batch.changes[0].sequence, after + 1);
        assert!(batch.changes.len() <= 10);
        after = last.sequence;
        assert_eq!(batch.exact, after == rig.catalog.status().head);
        whole += batch.changes.len();
    }
    assert_eq!(whole as u64, rig.catalog.status().head);
}

#[test]
fn the_position_of_a_site_never_passes_what_it_has() {
    let rig = Rig::new();
    rig.make_file("", "a", b"1");
    rig.settle();
    rig.save_cursor("site", rig.catalog.status().head);
    let at = rig.site("site").unwrap();
    assert_eq!(
        (at.journal, at.pending_ops, at.oldest_unshipped_ns),
        (rig.fed(), 0, None)
    );
    let before = rig.fed();
    rig.make_file("", "b", &[1; 5000]);
    rig.settle();
    let at = rig.site("site").unwrap();
    assert!(at.journal <= before + 1, "{at:?}");
    assert_eq!(at.pending_bytes, 5000);
    assert!(
        at.oldest_unshipped_ns
            .is_some_and(|ns| ns as u64 > before && ns as u64 <= rig.fed())
    );
    for sequence in at.cursor + 1..=rig.catalog.status().head {
        let earlier = rig.site("site").unwrap().journal;
        rig.save_cursor("site", sequence);
        assert!(rig.site("site").unwrap().journal >= earlier);
    }
    assert_eq!(rig.site("site").unwrap().journal, rig.fed());
    assert_eq!(rig.site("nobody"), None);
}

#[test]
fn cursors_survive_a_restart() {
    let mut rig = Rig::new();
    rig.make_file("", "a", b"1");
    rig.settle();
    let head = rig.catalog.status().head;
    rig.save_cursor("site", head);
    rig.restart();
    assert_eq!(rig.site("site").unwrap().cursor, head);
    let source = rig.catalog.source_id();
    rig.restart();
    assert_eq!(rig.catalog.source_id(), source);
    assert_eq!(source.len(), 32);
}

/// Its chunks move the site's own position: only the cursor knows that they are not all there.
#[test]
fn a_resync_that_was_begun_is_remembered_by_the_store_at_once() {
    let rig = Rig::new();
    rig.make_file("", "a", b"1");
    rig.settle();
    let begun = dr_replicator::Cursor {
        epoch: 0,
        sequence: 3,
    };
    block_on(rig.catalog.save_cursor("site", begun)).unwrap();
    rig.crash_after(0, false);
    let mut rig = rig;
    rig.restart();
    assert_eq!(block_on(rig.catalog.load_cursor("site")).unwrap(), Some(begun));
}

#[test]
fn a_cursor_from_the_future_is_not_in_the_log() {
    let rig = Rig::new();
    let limits = BatchLimits {
        max_bytes: 1,
        ..BatchLimits::of_log(1)
    };
    let asked = rig.catalog.status().head + 5;
    let error = block_on(rig.catalog.changes(asked, limits)).unwrap_err();
    assert!(matches!(error, SourceError::TooOld { .. }));
}

/// What a resync by difference does: every row of every group, made anew elsewhere.
#[test]
fn the_rows_of_all_groups_make_the_same_tree() {
    let rig = Rig::new();
    rig.make_dir("", "d");
    for i in 0..30 {
        rig.make_file("d", &format!("f{i}"), &vec![i as u8; i * 1000]);
    }
    rig.check();
    let kv = MemoryKv::new();
    let mut txn = kv.write().unwrap();
    let bucket = tree::bucket::create(&mut *txn, "replica", Default::default(), 0)
        .unwrap()
        .id;
    let mut after = None;
    let mut ops = Vec::new();
    while let Some((group, _)) = block_on(rig.catalog.groups(after, 1)).unwrap().pop() {
        after = Some(group);
        let mut row: Option<RowKey> = None;
        loop {
            let rows = block_on(rig.catalog.rows(group, row, 7)).unwrap();
            let Some((last, _)) = rows.last() else { break };
            row = Some(last.clone());
            let keys = rows.into_iter().map(|(key, _)| key).collect();
            ops.extend(block_on(rig.catalog.ops_for(keys)).unwrap());
        }
    }
    let gone = RowKey::Object {
        id: ObjectId(999_999),
    };
    assert_eq!(
        block_on(rig.catalog.ops_for(vec![gone])).unwrap(),
        [Op::DropObject {
            id: ObjectId(999_999)
        }]
    );
    let checks = tree::Checks::Mirror;
    tree::apply_all(&mut *txn, bucket, 1, History::Keep, checks, &ops).unwrap();
    txn.commit().unwrap();
    let kv = kv.read().unwrap();
    let (_, expected) = block_on(rig.catalog.digest()).unwrap();
    assert_eq!(Tree::head(&*kv, bucket).digest().unwrap(), expected);
}

#[test]
fn the_change_log_is_kept_for_the_slowest_site_and_not_for_ever() {
    let rig = Rig::with(|root| {
        for f in 0..3500 {
            fs::write(root.join(format!("f{f}")), b"x").unwrap();
        }
    });
    let head = rig.settle().head;
    assert!(head > 12_000, "{head} changes are too few to trim");
    let oldest = |expected: u64| {
        rig.wait("the log is trimmed", |_| {
            let limits = BatchLimits {
                max_bytes: 0,
                ..BatchLimits::of_log(1)
            };
            match block_on(rig.catalog.changes(0, limits)) {
                Err(SourceError::TooOld { oldest, .. }) => oldest == expected,
                _ => expected == 1,
            }
        });
        let limits = BatchLimits {
            max_bytes: 0,
            ..BatchLimits::of_log(1)
        };
        let first = block_on(rig.catalog.changes(expected - 1, limits)).unwrap();
        assert_eq!(first.changes[0].sequence, expected);
    };
    oldest(1);
    rig.save_cursor("site", head);
    rig.save_cursor("other", 1500);
    oldest(1501);
    // Kept for a site that is about to name its base.
    rig.save_cursor("other", head);
    oldest(head - 10_000 + 1);
}

/// The rows that say how old what it lacks is are not in the log any more.
#[test]
fn a_site_beyond_the_bound_is_as_old_as_the_first_change_that_it_lacks() {
    let content = |root: &std::path::Path| {
        for f in 0..3500 {
            fs::write(root.join(format!("f{f}")), b"x").unwrap();
        }
    };
    let rig = Rig::with_options(content, |options| options.change_log_rows = 1);
    rig.save_cursor("site", 10);
    let lacks = |rig: &Rig| rig.site("site").unwrap().oldest_unshipped_ns;
    rig.wait("there is more than the site has", |_| lacks(&rig).is_some());
    let before = rig.site("site").unwrap();
    let head = rig.settle().head;
    rig.save_cursor("other", head);
    rig.wait("the log is trimmed", |_| {
        let limits = BatchLimits {
            max_bytes: 0,
            ..BatchLimits::of_log(1)
        };
        matches!(
            block_on(rig.catalog.changes(10, limits)),
            Err(SourceError::TooOld { .. })
        )
    });
    let after = rig.site("site").unwrap();
    assert_eq!(after.oldest_unshipped_ns, before.oldest_unshipped_ns);
    assert_eq!((after.pending_ops, after.journal), (head - 10, 0));
    let blocks = 3500;
    assert!(after.pending_bytes > blocks - 20, "{after:?}");
    // Somewhere else, as after a backup was put back, nobody knows.
    rig.save_cursor("site", 5);
    let unknown = rig.site("site").unwrap();
    assert_eq!(unknown.oldest_unshipped_ns, None);
}
