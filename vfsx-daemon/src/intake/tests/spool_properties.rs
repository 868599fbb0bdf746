//! Whatever became of a spool file: its events are taken in once and in order, or there is a gap.

use super::spool::{file, leave, story};
use super::{Fixture, NORMAL, PATIENCE};
use proptest::prelude::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// What vfsxd finds in place of the file.
#[derive(Debug, Clone)]
enum Found {
    Whole,
    /// Something was written behind its end.
    Longer(Vec<u8>),
    Cut(prop::sample::Index),
    Other(Vec<u8>),
}

fn found() -> impl Strategy<Value = Found> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..100);
    prop_oneof![
        2 => Just(Found::Whole),
        1 => bytes().prop_map(Found::Longer),
        3 => any::<prop::sample::Index>().prop_map(Found::Cut),
        1 => bytes().prop_map(Found::Other),
    ]
}

fn take_in(fixture: &Fixture, path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while path.exists() {
        fixture.share.tend();
        assert!(Instant::now() < deadline, "the file is not dealt with");
        std::thread::sleep(Duration::from_millis(1));
    }
}

proptest! {
    // Each has a journal of its own on disk.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn its_events_are_taken_in_once_and_in_order_or_there_is_a_gap(
        before in 0u64..6,
        events in 1u64..12,
        found in found(),
    ) {
        let fixture = Fixture::new(NORMAL);
        // What the journal has already, from a file that was left behind when it was taken in.
        if before > 0 {
            take_in(&fixture, &leave(&fixture, 1, &file(1, 1..=before, true)));
        }
        let events = before.max(events);
        let whole = file(1, 1..=events, true);
        let (bytes, is_whole) = match &found {
            Found::Whole => (whole, true),
            Found::Longer(more) => ([&whole[..], more].concat(), true),
            Found::Cut(at) => (whole[..at.index(whole.len())].to_vec(), false),
            Found::Other(bytes) => (bytes.clone(), false),
        };
        take_in(&fixture, &leave(&fixture, 1, &bytes));
        let told = story(&fixture.records());
        let taken: Vec<u64> = told.iter().filter_map(|word| word.parse().ok()).collect();
        prop_assert_eq!(&taken, &(1..=taken.len() as u64).collect::<Vec<_>>(), "{:?}", told);
        let expected = if is_whole { events..=events } else { before..=events };
        prop_assert!(expected.contains(&(taken.len() as u64)), "{told:?}");
        prop_assert_eq!(told.iter().any(|word| word.starts_with("gap: ")), !is_whole, "{:?}", told);
    }
}
