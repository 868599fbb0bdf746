use super::rig::{BLOCK, Rig};
use crate::journal::{Body, NodeKind, Range, SessionEnd};
use std::fs::{self, File};
use std::time::Duration;

fn pattern(blocks: u64) -> Vec<u8> {
    (0..blocks * BLOCK)
        .map(|i| (i / BLOCK * 31 + i % 251) as u8)
        .collect()
}

fn truncate(rig: &Rig, path: &str, size: u64) {
    File::options()
        .write(true)
        .open(rig.path(path))
        .unwrap()
        .set_len(size)
        .unwrap();
}

#[test]
fn what_somebody_waits_for_is_read_at_once_though_the_file_stays_open() {
    let rig = Rig::with_options(|_| {}, |options| options.flush_age = Duration::from_secs(3600));
    rig.settle();
    rig.make_file("", "f", b"before");
    rig.settle();
    rig.write_at("f", 0, b"after!");
    let (node, path_hint) = (rig.node("f"), b"f".to_vec());
    let dirty = |start, end| Body::Dirty {
        handle: 7,
        node,
        path_hint: path_hint.clone(),
        ranges: vec![Range { start, end }],
        whole: false,
    };
    rig.feed(dirty(0, 6));
    rig.wait("it is applied", |s| s.applied == rig.fed());
    assert_eq!(rig.catalog.status().dirty_objects, 1, "an hour is not over");
    rig.catalog.hurry(rig.fed());
    rig.check();
    // Nobody waits for what comes after that.
    rig.write_at("f", 0, b"later!");
    rig.feed(dirty(0, 6));
    rig.wait("it is applied", |s| s.applied == rig.fed());
    assert_eq!(rig.catalog.status().dirty_objects, 1);
    rig.catalog.hurry(rig.fed() + 1);
    rig.feed(dirty(0, 6));
    rig.check();
}

#[test]
fn a_small_write_into_a_large_file_reads_only_its_blocks() {
    let rig = Rig::new();
    rig.make_file("", "big", &pattern(500));
    rig.check();
    let before = rig.catalog.status();
    assert_eq!(before.bytes_read, 500 * BLOCK);
    rig.write_at("big", 100 * BLOCK + 10, b"changed");
    rig.write_at("big", 300 * BLOCK - 3, b"across");
    let node = rig.node("big");
    let ranges = vec![
        Range {
            start: 100 * BLOCK + 10,
            end: 100 * BLOCK + 17,
        },
        Range {
            start: 300 * BLOCK - 3,
            end: 300 * BLOCK + 3,
        },
    ];
    rig.feed(Body::Opened {
        handle: 5,
        node,
        path_hint: b"big".to_vec(),
    });
    rig.feed(Body::Dirty {
        handle: 5,
        node,
        path_hint: b"big".to_vec(),
        ranges,
        whole: false,
    });
    rig.feed(Body::Closed { handle: 5, node });
    rig.check();
    assert_eq!(rig.catalog.status().bytes_read - before.bytes_read, 3 * BLOCK);
}

#[test]
fn the_block_at_the_end_follows_every_change_of_size() {
    let rig = Rig::new();
    rig.make_file("", "f", &pattern(9)[..(8 * BLOCK + 100) as usize]);
    rig.check();
    for size in [
        8 * BLOCK + 50,
        20 * BLOCK,
        5 * BLOCK + 1,
        5 * BLOCK,
        5 * BLOCK + 2000,
        1,
        0,
        3 * BLOCK + 7,
    ] {
        truncate(&rig, "f", size);
        // Only "its metadata changed": the size alone says which blocks did.
        let changed = crate::journal::Changed {
            stat: true,
            xattrs: false,
        };
        rig.feed(Body::Touched {
            node: rig.node("f"),
            path_hint: b"f".to_vec(),
            changed,
        });
        rig.check();
    }
}

#[test]
fn bytes_that_a_truncation_cut_off_do_not_come_back() {
    let rig = Rig::new();
    rig.make_file("", "f", &pattern(3));
    rig.check();
    truncate(&rig, "f", BLOCK + 10);
    truncate(&rig, "f", 3 * BLOCK);
    rig.written("f", BLOCK + 10..u64::MAX);
    rig.check();
}

#[test]
fn holes_stay_holes_and_cost_no_reads() {
    let rig = Rig::new();
    let path = rig.path("sparse");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    rig.write_at("sparse", 1 << 30, b"an island");
    rig.created("", "sparse", crate::journal::NodeKind::File);
    rig.written("sparse", 0..1 << 40);
    rig.settle();
    let read = rig.catalog.status().bytes_read;
    assert!((BLOCK..=16 * BLOCK).contains(&read), "{read}");
    // The comparison reads the file whole, so it has to become short.
    truncate(&rig, "sparse", (1 << 30) - 5 * BLOCK);
    rig.written("sparse", 0..u64::MAX);
    rig.settle();
    truncate(&rig, "sparse", 10 * BLOCK);
    rig.written("sparse", 0..u64::MAX);
    rig.check();
}

/// Once it was read, it passes for content.
#[test]
fn preallocated_space_is_not_read() {
    use rustix::fs::{FallocateFlags, fallocate};
    const PREALLOCATED: u64 = 64 << 20;
    let rig = Rig::new();
    let file = File::create(rig.path("f")).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, PREALLOCATED).unwrap();
    rig.created("", "f", crate::journal::NodeKind::File);
    rig.written("f", 0..PREALLOCATED);
    rig.settle();
    assert_eq!(rig.catalog.status().bytes_read, 0);
    rig.check();
}

#[test]
fn a_punched_hole_takes_its_blocks_out() {
    let rig = Rig::new();
    rig.make_file("", "f", &pattern(12));
    rig.check();
    let file = File::options().write(true).open(rig.path("f")).unwrap();
    use rustix::fs::FallocateFlags as F;
    rustix::fs::fallocate(&file, F::PUNCH_HOLE | F::KEEP_SIZE, 2 * BLOCK, 7 * BLOCK).unwrap();
    rig.written("f", 2 * BLOCK..9 * BLOCK);
    rig.check();
}

#[test]
fn a_file_that_stays_open_is_read_when_its_changes_are_old_enough() {
    let rig = Rig::new();
    fs::write(rig.path("f"), b"").unwrap();
    rig.created("", "f", crate::journal::NodeKind::File);
    rig.check();
    rig.write_at("f", 0, &pattern(2));
    let node = rig.node("f");
    rig.feed(Body::Opened {
        handle: 1,
        node,
        path_hint: b"f".to_vec(),
    });
    let ranges = vec![Range {
        start: 0,
        end: 2 * BLOCK,
    }];
    rig.feed(Body::Dirty {
        handle: 1,
        node,
        path_hint: b"f".to_vec(),
        ranges,
        whole: false,
    });
    rig.check();
    assert_eq!(rig.catalog.status().open_handles, 1);
}

#[test]
fn what_a_lost_client_had_open_is_compared_whole() {
    let rig = Rig::new();
    rig.make_file("", "f", &pattern(6));
    rig.check();
    let head = rig.catalog.status().head;
    let node = rig.node("f");
    rig.feed_as(
        7,
        Body::Opened {
            handle: 3,
            node,
            path_hint: b"f".to_vec(),
        },
    );
    rig.write_at("f", 4 * BLOCK, b"never told");
    rig.feed_as(
        7,
        Body::SessionEnded {
            how: SessionEnd::Closed,
        },
    );
    rig.check();
    let changes = rig.changes(head);
    let blocks: usize = changes
        .iter()
        .map(|c| {
            if let restfs_lib::model::Op::PutBlocks { blocks, .. } = &c.op {
                blocks.len()
            } else {
                0
            }
        })
        .sum();
    assert_eq!(blocks, 1);
    assert_eq!(rig.catalog.status().open_handles, 0);
}

#[test]
fn a_file_that_is_always_being_written_converges() {
    let rig = Rig::new();
    rig.make_file("", "f", &pattern(64));
    rig.check();
    let node = rig.node("f");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let at = round * 7919 % (63 * BLOCK);
                rig.write_at("f", at, &round.to_le_bytes());
                let ranges = vec![Range {
                    start: at,
                    end: at + 8,
                }];
                rig.feed(Body::Dirty {
                    handle: 1,
                    node,
                    path_hint: b"f".to_vec(),
                    ranges,
                    whole: false,
                });
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        // The position moves on while the writing never ends.
        let waiting = scope.spawn(|| {
            for _ in 0..3 {
                let now = rig.fed();
                rig.wait("the position passes what was told by now", |s| s.covered >= now);
            }
        });
        let waited = waiting.join();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        waited.unwrap();
    });
    rig.check();
}

#[test]
fn many_small_files_are_all_read() {
    let rig = Rig::new();
    rig.make_dir("", "d");
    for i in 0..1500u32 {
        rig.make_file(
            "d",
            &format!("{i}"),
            &i.to_le_bytes().repeat(1 + i as usize % 2000),
        );
    }
    rig.check();
}

/// Each record adds one range to the thousands that wait: what it costs is not to grow with these.
#[test]
fn many_single_writes_into_a_file_that_is_not_read_meanwhile_are_taken_in() {
    const WRITES: u64 = 16_000;
    let rig = Rig::with_options(|_| {}, |options| options.flush_age = Duration::from_secs(3600));
    rig.settle();
    let size = WRITES * 3 * BLOCK;
    File::create(rig.path("f")).unwrap().set_len(size).unwrap();
    rig.created("", "f", NodeKind::File);
    rig.catalog.hurry(rig.fed());
    rig.settle();
    let node = rig.node("f");
    rig.feed(Body::Opened {
        handle: 7,
        node,
        path_hint: b"f".to_vec(),
    });
    for write in 0..WRITES {
        // Apart, and not in order.
        let start = (write * 7919 % WRITES) * 3 * BLOCK;
        rig.feed(Body::Write {
            handle: 7,
            node,
            start,
            length: 10,
            data: None,
        });
    }
    let status = rig.wait("they are applied", |s| s.applied == rig.fed());
    assert_eq!(status.dirty_objects, 1);
    assert_eq!(status.dirty_bytes, WRITES * 10);
    rig.catalog.hurry(rig.fed());
    rig.check();
}
