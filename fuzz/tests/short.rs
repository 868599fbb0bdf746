//! A little of what `cargo xtask fuzz` does, with the same inputs each time.

use peak_alloc::PeakAlloc;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use vfsx_fuzz::{Mutator, TARGETS, Target, find, take};
use vfsx_proto::{Event, GapReason, MAX_FRAME, Metadata, NodeRef, Stamped, ToDaemon, decode, encode};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Inputs per target.
const INPUTS: u64 = 3_000;
/// On a slow machine a target does with fewer.
const AT_MOST: Duration = Duration::from_millis(1_200);
/// No single input takes this long, on any machine: a decoder that does works in the square of what it is given.
const ONE: Duration = Duration::from_secs(5);

/// One test, so that nobody else takes memory meanwhile.
#[test]
fn every_decoder_bears_any_bytes_and_takes_no_more_memory_than_it_may() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for seed in &seeds {
            assert!(seed.len() <= target.longest, "a seed of {} is cut", target.name);
            given(target, seed);
        }
        let start = Instant::now();
        let mut mutator = Mutator::new(7);
        for _ in 0..INPUTS {
            given(target, &mutator.next(&seeds, target.longest));
            if start.elapsed() > AT_MOST {
                break;
            }
        }
    }
    the_bound_of_memory_is_seen_when_it_is_broken();
    frames_full_of_the_shortest_items_take_what_the_format_says();
}

/// As `docs/formats/socket.md` has it.
const FRAME_MEMORY: usize = 13 << 20;

/// What takes most memory for its bytes.
fn frames_full_of_the_shortest_items_take_what_the_format_says() {
    let node = NodeRef {
        dev: 0,
        ino: 0,
        btime_ns: 0,
    };
    let stamped = |event| Stamped {
        sequence: 0,
        time_ns: 0,
        began_ns: 0,
        event,
    };
    let metadata = Metadata {
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        atime: (0, 0),
        xattrs: vec![(Vec::new(), Vec::new()); 130_000],
    };
    let attributes = Event::Metadata {
        node,
        path_hint: Vec::new(),
        metadata,
    };
    let shortest = Event::Gap {
        since_ns: 0,
        reason: GapReason::RingFull,
    };
    for events in [vec![stamped(shortest); 9_350], vec![stamped(attributes)]] {
        let mut frame = Vec::new();
        encode(&ToDaemon::Events(events), &mut frame).expect("fits into a frame");
        assert!(frame.len() > MAX_FRAME - 8 * 1024);
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        let message: ToDaemon = decode(&frame[4..]).expect("is one");
        let taken = HEAP.peak_usage() - before;
        assert!(
            taken < FRAME_MEMORY,
            "{taken} bytes for a frame of {}",
            frame.len()
        );
        drop(message);
    }
}

fn given(target: &Target, input: &[u8]) {
    let start = Instant::now();
    let done = catch_unwind(AssertUnwindSafe(|| take(target, &HEAP, input)));
    let shown: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(done.is_ok(), "target {}, input {shown}", target.name);
    assert!(
        start.elapsed() < ONE,
        "target {}, input {shown}: {:?}",
        target.name,
        start.elapsed()
    );
}

/// Else the bounds above would say nothing.
fn the_bound_of_memory_is_seen_when_it_is_broken() {
    let greedy = Target {
        name: "greedy",
        about: "",
        seeds: Vec::new,
        run: |data| drop(std::hint::black_box(vec![1u8; usize::from(data[0]) << 20])),
        longest: 1,
        memory: 3 << 20,
    };
    take(&greedy, &HEAP, &[2]);
    assert!(catch_unwind(AssertUnwindSafe(|| take(&greedy, &HEAP, &[4]))).is_err());
}

#[test]
fn targets_are_found_by_their_names() {
    for target in TARGETS {
        assert_eq!(find(target.name).map(|found| found.about), Some(target.about));
    }
    assert!(find("none").is_none());
}
