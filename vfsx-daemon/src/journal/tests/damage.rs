//! Damage that is not a torn end: nothing is given out wrong, and a gap says that something is missing.

use super::event;
use crate::journal::segment::{list, name};
use crate::journal::{Body, GapReason, Journal, Options, Record, Session, Storage};
use restfs_lib::disk::faulty::{Faulty, Loss};
use std::sync::Arc;

const OPTIONS: Options = Options {
    segment_bytes: 500,
    max_bytes: 1 << 20,
    floor: 0,
};

/// A journal of `count` synced events in several segments.
fn filled(count: u64) -> Faulty {
    let storage = Faulty::default();
    let journal = open(&storage, 0);
    for sequence in 1..=count {
        journal.append(vec![event(1, sequence)]).expect("no faults");
    }
    journal.sync().expect("no faults");
    storage
}

/// The same with at least three records in the newest segment; also its name and the number of events.
fn filled_with_tail() -> (Faulty, String, u64) {
    (40..80)
        .map(|count| (filled(count), count))
        .find_map(|(storage, count)| {
            let last = *list(&storage).expect("lists").last()?;
            (last + 2 <= count).then(|| (storage, name(last), count))
        })
        .expect("segments hold several records")
}

/// Within the first record of a segment with one session.
const IN_FIRST_RECORD: usize = 80;

fn open(storage: &Faulty, floor: u64) -> Journal {
    Journal::open_on(Arc::new(storage.clone()), Options { floor, ..OPTIONS }).expect("opens")
}

/// Reads until nothing more comes, syncing what the reader notes.
fn read(journal: &Journal) -> Vec<Record> {
    let mut reader = journal.read_from(1).expect("nothing trimmed");
    let mut all = Vec::new();
    loop {
        journal.sync().expect("no faults");
        all.extend(reader.read(3).expect("damage is not an error"));
        if reader.position() > journal.status().head {
            return all;
        }
    }
}

fn gaps(records: &[Record]) -> usize {
    records
        .iter()
        .filter(|r| {
            matches!(
                r.body,
                Body::Gap {
                    reason: GapReason::JournalDamaged,
                    ..
                }
            )
        })
        .count()
}

fn events(records: &[Record]) -> Vec<u64> {
    records
        .iter()
        .filter(|r| r.session_sequence > 0)
        .map(|r| r.session_sequence)
        .collect()
}

#[test]
fn a_flipped_byte_in_an_old_segment_costs_the_rest_of_that_segment_and_a_gap() {
    let storage = filled(40);
    let firsts = list(&storage).expect("lists");
    assert!(firsts.len() > 3, "{firsts:?}");
    storage.tamper(&name(firsts[1]), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let records = read(&open(&storage, 0));
    let seen = events(&records);
    assert_eq!(gaps(&records), 1);
    let missing: Vec<u64> = (1..=40).filter(|s| !seen.contains(s)).collect();
    assert!(!missing.is_empty());
    assert!(
        missing.iter().all(|s| (firsts[1]..firsts[2]).contains(s)),
        "missing {missing:?}"
    );
}

#[test]
fn damage_in_the_newest_segment_before_whole_records_is_not_cut_off_silently() {
    let (storage, last, count) = filled_with_tail();
    storage.tamper(&last, |bytes| bytes[IN_FIRST_RECORD] ^= 1);
    let journal = open(&storage, 0);
    let records = read(&journal);
    assert_eq!(gaps(&records), 1, "one gap, not one per finder");
    assert!(!events(&records).contains(&count));
    assert!(journal.status().head > count, "sequences are not used again");
    assert_eq!(
        gaps(&read(&open(&storage, 0))),
        1,
        "and still one after the next start"
    );
}

#[test]
fn damage_under_a_running_journal_ends_in_a_gap() {
    let (storage, last, count) = filled_with_tail();
    let journal = open(&storage, 0);
    storage.tamper(&last, |bytes| bytes[IN_FIRST_RECORD] ^= 1);
    let records = read(&journal);
    assert_eq!(gaps(&records), 1);
    journal.append(vec![event(1, count + 1)]).expect("goes on");
    assert!(events(&read(&journal)).contains(&(count + 1)));
}

#[test]
fn a_segment_that_is_gone_or_cut_short_is_a_gap() {
    for cut in [false, true] {
        let storage = filled(40);
        let firsts = list(&storage).expect("lists");
        if cut {
            storage.tamper(&name(firsts[1]), |bytes| bytes.truncate(bytes.len() - 200));
        } else {
            storage.remove(&name(firsts[1])).expect("removes");
        }
        let records = read(&open(&storage, 0));
        assert_eq!(gaps(&records), 1, "cut: {cut}");
        assert!(events(&records).contains(&40));
    }
}

#[test]
fn a_damaged_header_of_the_newest_segment_is_a_gap() {
    let storage = filled(40);
    let last = *list(&storage).expect("lists").last().expect("segments");
    storage.tamper(&name(last), |bytes| bytes[20] ^= 1);
    let journal = open(&storage, 0);
    assert!(journal.status().head > 40, "sequences are not used again");
    assert_eq!(gaps(&read(&journal)), 1);
}

#[test]
fn a_journal_older_than_the_catalog_goes_on_behind_it_with_a_gap() {
    for storage in [filled(40), Faulty::default()] {
        let journal = open(&storage, 1_000);
        let mut reader = journal.read_from(1_001).expect("the catalog's place");
        let records = reader.read(10).expect("reads");
        assert_eq!(gaps(&records), 1);
        assert_eq!(records[0].sequence, 1_001);
        drop(journal);
        let again = open(&storage.after_crash(Loss::All), 1_000);
        assert_eq!(again.status().head, 1_001, "said once");
    }
}

#[test]
fn sessions_survive_that_their_records_are_trimmed() {
    let storage = filled(40);
    let journal = open(&storage, 0);
    for sequence in 1..=200 {
        journal.append(vec![event(2, sequence)]).expect("no faults");
    }
    journal.sync().expect("no faults");
    journal.trim(240).expect("trims");
    drop(journal);
    let journal = open(&storage.after_crash(Loss::All), 240);
    assert_eq!(journal.acknowledged(Session([1; 16])), 40);
    assert_eq!(journal.acknowledged(Session([2; 16])), 200);
    assert_eq!(journal.open_sessions(), [Session([1; 16]), Session([2; 16])]);
}

/// The newest segment, but for its last record, and behind it what a power cut left.
fn torn_with(left: &[u8]) -> (Faulty, u64) {
    let (storage, newest, count) = filled_with_tail();
    let file = storage.open(&newest).expect("is there");
    let end = file.length().expect("has one");
    // A record that is none: its length is there, and what it was to hold is not.
    let torn = [&[200, 0, 0, 0, 1, 2, 3, 4][..], left].concat();
    file.write_at(&torn, end).expect("no faults");
    file.sync_data().expect("no faults");
    (storage, count)
}

/// A client chooses what is in its files, and with `copy` that is in the journal. A record in it, of the highest number there is, would
/// leave no number for those that follow.
#[test]
fn a_record_planted_in_content_does_not_count_the_journal_to_its_end() {
    for sequence in [u64::MAX, 1 << 60] {
        let mut planted = Vec::new();
        let record = super::of(event(9, 1), sequence);
        crate::journal::codec::encode_record(&record, &mut planted).expect("is short");
        let (storage, count) = torn_with(&planted);
        let journal = open(&storage, 0);
        assert!(journal.status().head <= count + 1, "{:?}", journal.status());
        journal.append(vec![event(1, count + 1)]).expect("goes on");
        journal.sync().expect("goes on");
        assert_eq!(events(&read(&journal)).last(), Some(&(count + 1)));
    }
}

/// Each of these would be summed up to its end, a mebibyte further: hours for the content of one segment.
#[test]
fn content_full_of_beginnings_of_records_does_not_keep_vfsxd_from_starting() {
    let claim = |sequence: u64| {
        [
            &0x000F_FFFFu32.to_le_bytes()[..],
            &[7; 4],
            &sequence.to_le_bytes(),
        ]
        .concat()
    };
    let (_, _, count) = filled_with_tail();
    let left = claim(count + 5).repeat(256 * 1024);
    let (storage, count) = torn_with(&left);
    let roomy = Options {
        max_bytes: 16 << 20,
        ..OPTIONS
    };
    let start = std::time::Instant::now();
    let journal = Journal::open_on(Arc::new(storage), roomy).expect("opens");
    assert!(
        start.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    // Nobody knows whether something good was behind it: a gap, and numbers that nothing there can have had.
    journal.append(vec![event(1, count + 1)]).expect("goes on");
    let records = read(&journal);
    assert_eq!(gaps(&records), 1);
    assert!(journal.status().head > left.len() as u64 / 64);
}

#[test]
fn a_file_that_is_named_like_no_segment_is_none() {
    let storage = Faulty::default();
    for name in [
        "00000000000000000000.journal",
        "+0000000000000000001.journal",
        "18446744073709551615.journal",
        "99999999999999999999.journal",
    ] {
        storage.create(name).expect("no faults");
    }
    assert_eq!(list(&storage).expect("lists"), [0u64; 0]);
    assert_eq!(open(&storage, 0).status().head, 0);
}
