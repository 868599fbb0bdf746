//! Rounds: while clients of several processes work, every place that the change log marks as exact is a state that the
//! share had, in the order in which it had them.

use super::rig::{BLOCK, block_on, join};
use crate::intake::tests::PATIENCE;
use crate::journal::{Body, GapReason, SessionEnd, monotonic_ns};
use bytes::Bytes;
use dr_replicator::{BatchLimits, ChangeSource, ReadBlock};
use proptest::prelude::*;
use restfs_lib::model::Op;
use std::cell::Cell;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vfsx_proto::ring::WRITE_ENDED_AFTER;

mod clients;
mod state;

use clients::*;
use state::*;

#[derive(Debug, Clone)]
struct Step {
    call: u8,
    a: usize,
    b: usize,
    process: usize,
    deliver: usize,
    pause: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0u8..26,
        0usize..1000,
        0usize..20_000,
        0..PROCESSES,
        0usize..4,
        0u64..6,
    );
    let step = step.prop_map(|(call, a, b, process, deliver, pause)| Step {
        call,
        a,
        b,
        process,
        deliver,
        pause,
    });
    proptest::collection::vec(step, 1..120)
}

fn act(clients: &mut Clients, step: &Step) {
    let paths: Vec<String> = state_of(clients.rig.share.path()).into_keys().collect();
    let full = |p: &String| clients.rig.path(p);
    let dirs: Vec<String> = std::iter::once(String::new())
        .chain(paths.iter().filter(|p| full(p).is_dir()).cloned())
        .collect();
    let files: Vec<String> = paths.iter().filter(|p| full(p).is_file()).cloned().collect();
    let dir = dirs[step.a % dirs.len()].clone();
    let name = format!("n{}", step.b % 6);
    let file = (!files.is_empty()).then(|| files[step.a % files.len()].clone());
    let any = (!paths.is_empty()).then(|| paths[step.b % paths.len()].clone());
    let process = step.process;
    let described = !step.a.is_multiple_of(4);
    let data = vec![step.b as u8 | 1; 1 + step.a * 11 % 9000];
    let offset = step.b as u64;
    match (step.call, file, any) {
        (0..=2, _, _) => clients.create(process, &dir, &name, described),
        (3, _, _) => clients.mkdir(process, &dir, &name, described),
        (4..=11, Some(file), _) => {
            clients.write(process, &file, offset, data, step.a.is_multiple_of(13));
            if step.call < 9 {
                clients.land(usize::MAX - 1);
            }
        }
        (12, Some(file), _) if !clients.is_busy(&file) => clients.write_untold(process, &file, offset, &data),
        (13, Some(file), _) if !clients.is_busy(&file) => clients.resize(process, &file, offset),
        (14, Some(file), _) if !clients.is_busy(&file) => clients.remove(process, &file),
        (15, _, Some(path)) if !clients.is_busy(&path) => clients.remove(process, &path),
        (16..=18, _, Some(from)) => {
            let to = join(&dir, &name);
            if !clients.is_busy(&from) && !clients.is_busy(&to) {
                clients.rename(process, &from, &to);
            }
        }
        (19 | 20, _, Some(path)) => clients.chmod(process, &path, 0o700 | (step.b as u32 % 64), described),
        (21..=23, _, _) => clients.land(step.a),
        (24 | 25, _, _) => {
            let mut world = clients.world.lock().unwrap();
            world.unsure = !world.unsure;
        }
        _ => {}
    }
    clients.deliver(step.deliver, step.b);
    std::thread::sleep(Duration::from_millis(step.pause));
}

fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_time: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_marked_exact_is_a_state_that_the_share_had(steps in steps()) {
        let mut clients = Clients::new();
        for step in &steps {
            act(&mut clients, step);
        }
        let marks = clients.check();
        prop_assert!(marks > 0);
        prop_assert!(clients.rig.catalog.status().gap.is_none());
    }
}

/// Works without a pause: states are exact all the time, and each of them is right.
fn has_exact_states(begin: impl Fn(&mut Clients), work: impl Fn(&mut Clients, u64)) {
    let has_them = |slower| {
        let mut clients = Clients::new();
        begin(&mut clients);
        let has_them = without_pause(&mut clients, |clients, round| {
            work(clients, round);
            std::thread::sleep(slower);
        });
        clients.check();
        has_them
    };
    // A machine that has other things to do takes longer, and one that has no time at all for ten seconds gives up:
    // its clients have less of it, too.
    assert!([0, 5, 50].map(Duration::from_millis).into_iter().any(has_them));
}

fn without_pause(clients: &mut Clients, work: impl Fn(&mut Clients, u64)) -> bool {
    let before = clients.rig.catalog.status().cuts.exact;
    let began = Instant::now();
    for round in 0.. {
        work(clients, round);
        clients.deliver(4, round as usize);
        let cuts = clients.rig.catalog.status().cuts;
        let enough = began.elapsed() >= WHILE && cuts.exact >= before + 5;
        if enough || cuts.fuzzy > 0 || began.elapsed() >= PATIENCE {
            println!("{round} rounds of work, {cuts:?}");
            return enough && cuts.fuzzy == 0;
        }
    }
    unreachable!("rounds have no end")
}

const WHILE: Duration = Duration::from_millis(1500);

#[test]
fn a_database_that_is_written_without_pause_has_exact_states_all_the_time() {
    let begin = |clients: &mut Clients| {
        clients.create(0, "", "db", true);
        clients.write(0, "db", 0, vec![1; 64 * BLOCK as usize], false);
        clients.land_all();
        clients.settle();
        clients.create(0, "", "log", true);
    };
    // Pages smaller than a block, some again and again, and a log that grows and is emptied.
    has_exact_states(begin, |clients, round| {
        let page = match round % 3 {
            0 => 0,
            _ => round * 7919 % 250,
        };
        clients.write(0, "db", page * 1024, vec![round as u8 | 1; 1024], false);
        clients.land_all();
        clients.write(0, "log", round % 50 * 100, vec![round as u8 | 1; 100], false);
        clients.land_all();
        if round % 50 == 49 {
            clients.resize(0, "log", 0);
        }
        std::thread::sleep(Duration::from_micros(300));
    });
}

#[test]
fn files_written_in_turn_are_never_seen_in_another_order() {
    let begin = |clients: &mut Clients| {
        clients.create(0, "", "a", true);
        clients.create(1, "", "b", true);
    };
    has_exact_states(begin, |clients, round| {
        for (process, file) in [(0, "a"), (1, "b")] {
            clients.write(process, file, round * 16, round.to_be_bytes().repeat(2), false);
            clients.land_all();
            std::thread::sleep(Duration::from_micros(100));
        }
    });
}

#[test]
fn names_that_change_without_pause_have_exact_states_all_the_time() {
    let begin = |clients: &mut Clients| {
        for dir in ["x", "y"] {
            clients.mkdir(0, "", dir, true);
            clients.create(0, dir, "file", true);
        }
        clients.settle();
    };
    has_exact_states(begin, |clients, round| {
        match round % 4 {
            0 => clients.rename(0, "x", "z"),
            1 => clients.rename(1, "y", "x"),
            2 => clients.rename(0, "z", "y"),
            _ => clients.rename(2, "x/file", "y/file"),
        }
        if round % 8 == 7 {
            clients.create(2, "x", "file", true);
        }
        std::thread::sleep(Duration::from_micros(200));
    });
}

#[test]
fn small_files_that_are_made_and_replaced_without_pause_have_exact_states_all_the_time() {
    has_exact_states(
        |_| {},
        |clients, round| {
            let process = (round % 3) as usize;
            let (temporary, file) = (format!("t{process}"), format!("f{}", round % 20));
            clients.create(process, "", &temporary, true);
            clients.write(process, &temporary, 0, vec![round as u8 | 1; 6000], false);
            clients.land_all();
            clients.chmod(process, &temporary, 0o640, true);
            clients.rename(process, &temporary, &file);
            std::thread::sleep(Duration::from_micros(500));
        },
    );
}

#[test]
fn a_state_before_content_that_a_site_has_already_is_not_exact_there() {
    let mut clients = Clients::with_options(|options| {
        options.cache_bytes = 1;
        options.kept_bytes = 0;
    });
    let start = clients.settle().head;
    clients.create(0, "", "f", true);
    clients.write(0, "f", 0, vec![1; BLOCK as usize], false);
    let first = clients.settle().head;
    clients.write(0, "f", 0, vec![2; BLOCK as usize], false);
    let newest = clients.settle().head;
    let catalog = &clients.rig.catalog;
    let trusted_from = Cell::new(0);
    let is_exact = |head: u64| {
        let limits = BatchLimits {
            trusted_from: trusted_from.get(),
            ..BatchLimits::of_log(head as usize)
        };
        let batch = block_on(catalog.changes(0, limits)).unwrap();
        assert_eq!(batch.changes.last().map(|change| change.sequence), Some(head));
        batch.exact
    };
    assert!(is_exact(first) && is_exact(newest));
    let changes = clients.rig.changes(0);
    let put = changes.iter().find_map(|change| match &change.op {
        Op::PutBlocks { id, segment, blocks } => blocks
            .first()
            .map(|(position, block)| (*id, *segment, *position, *block)),
        _ => None,
    });
    let (id, segment, position, block) = put.unwrap();
    let read = block_on(catalog.read_block(id, segment, position, block.unwrap())).unwrap();
    assert!(matches!(read, ReadBlock::Newer(..)), "{read:?}");
    trusted_from.set(block_on(catalog.newest()).unwrap());
    assert!(!is_exact(first) && is_exact(newest));
    // What is to be committed goes on to a state that is exact there, whatever it takes.
    let all = |trusted_from| {
        let batch = clients.rig.batch(start, 1, trusted_from);
        assert!(batch.whole == batch.exact && batch.exact != batch.changes.is_empty());
        batch.changes.last().map(|change| change.sequence)
    };
    assert_eq!(all(0), Some(first));
    assert_eq!(all(trusted_from.get()), Some(newest));
    assert_eq!(all(newest + 1), None, "there is none yet");
}

/// A round reads all that it touches before it ends, more than readers have in hand at once.
#[test]
fn a_round_of_many_files_is_exact() {
    const FILES: usize = 300;
    const STILL_READING: &str = "a file is still being read";
    let reads_all = || {
        let mut clients = Clients::with_options(|options| options.records = 10_000);
        clients.settle();
        for n in 0..FILES {
            let name = format!("f{n}");
            clients.create(0, "", &name, true);
            clients.write(0, &name, 0, vec![1; 100], false);
        }
        clients.land_all();
        clients.deliver(10 * FILES, 0);
        clients.check();
        clients.rig.catalog.status().cuts.last_failure.as_deref() != Some(STILL_READING)
    };
    // A machine that stands still for half a second is another reason.
    assert!((0..5).any(|_| reads_all()));
}

/// What a commit takes while sessions tell data, however small it is to be: all up to the next exact state, or nothing.
#[test]
fn no_state_between_two_exact_ones_is_to_be_committed() {
    let mut clients = Clients::new();
    let start = clients.settle().head;
    clients.create(0, "", "f", true);
    clients.write(0, "f", 0, vec![1; 3 * BLOCK as usize], false);
    let first = clients.settle().head;
    let ends = |clients: &Clients, after| {
        let batch = clients.rig.batch(after, 1, 0);
        assert!(batch.whole == batch.exact && batch.exact != batch.changes.is_empty());
        batch.changes.last().map(|change| change.sequence)
    };
    assert_eq!(ends(&clients, start), Some(first));
    assert_eq!(ends(&clients, first), None);

    // No state is exact for a while.
    clients.world.lock().unwrap().unsure = true;
    clients.write(0, "f", 0, vec![2; 3 * BLOCK as usize], false);
    clients.create(0, "", "g", true);
    clients.land_all();
    clients.deliver(100, 0);
    clients
        .rig
        .wait("changes that are held", |status| status.head > first);
    assert_eq!(ends(&clients, first), None);
    clients.world.lock().unwrap().unsure = false;
    let second = clients.settle().head;
    assert!(second > first);
    assert_eq!(ends(&clients, first), Some(second));
    clients.check();
}

/// The first block of a file, as the change that put it named it, is not to be had any more: what is there now.
fn read_newer(clients: &Clients, path: &str) {
    let file = clients.rig.id(path).unwrap();
    let changes = clients.rig.changes(0);
    let put = changes.iter().find_map(|change| match &change.op {
        Op::PutBlocks { id, segment, blocks } if *id == file => Some((*segment, blocks[0])),
        _ => None,
    });
    let (segment, (position, block)) = put.unwrap();
    let read = clients
        .rig
        .catalog
        .read_block(file, segment, position, block.unwrap());
    let read = block_on(read).unwrap();
    assert!(matches!(read, ReadBlock::Newer(..)), "{read:?}");
}

fn without_content_kept() -> Clients {
    let mut clients = Clients::with_options(|options| {
        options.cache_bytes = 1;
        options.kept_bytes = 0;
    });
    clients.create(0, "", "f", true);
    clients.create(0, "", "g", true);
    clients.write(0, "f", 0, vec![1; BLOCK as usize], false);
    clients.settle();
    clients
}

#[test]
fn content_that_a_site_needed_from_disk_is_in_no_exact_state_of_a_time_before() {
    let mut clients = without_content_kept();
    // A round that waits for this write: what follows is no part of it.
    clients.write(0, "g", 0, vec![1; 100], false);
    clients.apply();
    clients.create(1, "", "h", true);
    clients.write(1, "f", 0, vec![2; BLOCK as usize], false);
    clients.land(1);
    read_newer(&clients, "f");
    clients.check();
}

#[test]
fn content_that_a_site_needed_from_disk_after_a_moment_is_in_no_exact_state_of_that_moment() {
    let mut clients = without_content_kept();
    clients.write(0, "g", 0, vec![1; 100], false);
    clients.apply();
    let asked = {
        let mut world = clients.world.lock().unwrap();
        world.held = true;
        world.asked
    };
    // Its round has ended, and the next moment is taken.
    clients.land(0);
    let world = Arc::clone(&clients.world);
    clients
        .rig
        .wait("a moment", |_| world.lock().unwrap().asked > asked);
    clients.create(1, "", "h", true);
    clients.write(1, "f", 0, vec![2; BLOCK as usize], false);
    clients.land(0);
    read_newer(&clients, "f");
    clients.world.lock().unwrap().held = false;
    clients.check();
}

#[test]
fn while_a_write_takes_long_no_state_without_it_is_exact_and_none_with_a_part_of_it() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.create(0, "", "g", true);
    let before = clients.settle().cuts.exact;
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.chmod(1, "g", 0o700, true);
    clients.apply();
    let until = Instant::now() + WRITE_ENDED_AFTER + WRITE_ENDED_AFTER / 2;
    while Instant::now() < until {
        clients.create(1, "", "h", true);
        clients.remove(1, "h");
        clients.deliver(10, 1);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(clients.rig.catalog.status().cuts.exact, before);
    clients.check();
}

#[test]
fn what_was_told_late_is_not_laid_over_what_was_done_after_it() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.create(0, "", "g", true);
    clients.write(0, "f", 0, vec![9; 100], false);
    clients.settle();
    clients.world.lock().unwrap().unsure = true;
    // Two writes of the same bytes, and only the second is told in time.
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.land(0);
    clients.write(1, "f", 0, vec![2; 100], false);
    clients.land(0);
    for (began_ns, body) in clients.world.lock().unwrap().queues[1].drain(..) {
        clients.rig.fed.feed(2, began_ns, body);
    }
    let fed = clients.rig.fed();
    clients
        .rig
        .wait("the second is read", |s| s.applied == fed && s.dirty_objects == 0);
    // From the next moment on all is known. Its round has the first, and waits for this one.
    clients.write(0, "g", 0, vec![1; 100], false);
    let world = Arc::clone(&clients.world);
    let asked = {
        let mut world = world.lock().unwrap();
        world.held = true;
        world.asked
    };
    clients
        .rig
        .wait("a moment", |_| world.lock().unwrap().asked > asked);
    {
        let mut world = world.lock().unwrap();
        (world.unsure, world.held) = (false, false);
    }
    let records = fed + 4;
    clients.rig.wait("the first is applied", |s| s.applied == records);
    clients.write(2, "f", 50, vec![3; 10], false);
    clients.land(1);
    clients.check();
}

/// After a round that failed the tree is ahead of the records: all that there are make one round, in many transactions.
#[test]
fn a_backlog_behind_a_round_that_failed_is_one_round() {
    let mut clients = Clients::new();
    for file in ["f", "g"] {
        clients.create(0, "", file, true);
    }
    clients.settle();
    let world = Arc::clone(&clients.world);
    world.lock().unwrap().unsure = true;
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.land_all();
    while clients.world.lock().unwrap().deliver(&clients.rig.fed, 0) {}
    clients.rig.wait("a round has failed", |s| {
        s.applied == clients.rig.fed() && s.cuts.last_failure.is_some()
    });
    world.lock().unwrap().held = true;
    for n in 0..100u8 {
        let (file, process) = (["f", "g"][n as usize % 2], n as usize % 3);
        clients.write(process, file, u64::from(n) * 100, vec![n; 150], false);
        clients.land_all();
        if n % 10 == 0 {
            let new = format!("new{n}");
            clients.create(process, "", &new, true);
            clients.rename(process, &new, &format!("renamed{n}"));
        }
    }
    let before = clients.rig.catalog.status().cuts;
    {
        let mut world = world.lock().unwrap();
        (world.unsure, world.held) = (false, false);
    }
    clients.settle();
    let after = clients.rig.catalog.status().cuts;
    assert!(after.exact > before.exact);
    assert!(after.exact - before.exact < 20, "{after:?}");
    clients.check();
}

#[test]
fn a_share_without_an_exact_state_for_3_s_rests_and_misses_nothing() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.settle();
    clients.world.lock().unwrap().unsure = true;
    let began = Instant::now();
    let mut byte = 0;
    while !clients.rig.catalog.status().cuts.rests() {
        byte += 1;
        clients.write(0, "f", 0, vec![byte; 100], false);
        clients.land_all();
        clients.deliver(4, 0);
        std::thread::sleep(Duration::from_millis(100));
        assert!(byte < 250, "{:?}", clients.rig.catalog.status().cuts);
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    let status = clients.rig.catalog.status();
    assert_eq!(status.cuts.fuzzy, 1, "{:?}", status.cuts);
    clients.check();
}

/// What reads too soon has done so after this time.
const TOO_SOON: Duration = Duration::from_millis(300);

/// Somebody waits for what is in the journal, and all the same a write under way is not taken for ended.
fn is_read_when_it_has_ended(clients: &mut Clients) {
    clients.rig.catalog.hurry(clients.rig.fed());
    std::thread::sleep(TOO_SOON);
    assert_ne!(clients.rig.catalog.status().dirty_objects, 0);
    clients.land_all();
    clients.rig.settle();
    clients.rig.check_disk();
}

fn within_a_write() -> Clients {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.settle();
    clients.write(0, "f", 0, vec![2; 100], false);
    clients.apply();
    clients
}

#[test]
fn a_write_under_way_when_exact_states_end_is_read_when_it_has_ended() {
    let mut clients = within_a_write();
    clients.world.lock().unwrap().map = true;
    is_read_when_it_has_ended(&mut clients);
}

#[test]
fn a_write_under_way_when_vfsxd_starts_is_read_when_it_has_ended() {
    let mut clients = within_a_write();
    clients.rig.catalog.stop();
    clients.world.lock().unwrap().map = true;
    clients.rig.restart();
    is_read_when_it_has_ended(&mut clients);
}

#[test]
fn a_gap_ends_exact_states_until_the_share_was_compared() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.settle();
    // Done in a call that nobody told of, by a process that is gone.
    fs::create_dir(clients.rig.path("untold")).unwrap();
    fs::create_dir(clients.shadow.path().join("untold")).unwrap();
    clients.states.push(state_of(clients.shadow.path()));
    let gap = Body::Gap {
        since_ns: 1,
        reason: GapReason::Killed,
    };
    clients.world.lock().unwrap().tell(1, monotonic_ns(), gap);
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.land_all();
    let status = clients.settle();
    assert!(status.gap.is_none() && clients.rig.id("untold").is_some());
    clients.check();
}

#[test]
fn a_process_that_dies_in_its_writes_leaves_what_is_on_disk() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.write(0, "f", 0, vec![1; 5 * BLOCK as usize], false);
    clients.land_all();
    clients.settle();
    // Announced and never made, in the middle of others that are.
    let node = clients.rig.node("f");
    for at in [0, 3 * BLOCK] {
        let body = Body::Write {
            handle: 77,
            node,
            start: at,
            length: 100,
            data: Some(Bytes::from(vec![9; 100])),
        };
        let mut world = clients.world.lock().unwrap();
        let began = monotonic_ns();
        world.tell(2, began, opened(&clients.rig, "f", 77));
        world.tell(2, began, body);
    }
    clients.write(0, "f", BLOCK, vec![3; 100], false);
    clients.land_all();
    clients.deliver(10, 1);
    std::thread::sleep(Duration::from_millis(100));
    let ended = Body::SessionEnded {
        how: SessionEnd::Closed,
    };
    clients.world.lock().unwrap().tell(2, monotonic_ns(), ended);
    clients.settle();
    clients.rig.check();
}
