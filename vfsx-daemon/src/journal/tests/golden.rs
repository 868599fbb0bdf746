//! Journals on disk, as versions of vfsxd have written them: made once by a program of its own from `docs/formats/journal.md`,
//! and never to be made again. What is read of them stays, and so do they go on.

use super::event;
use crate::journal::{Body, GapReason, Journal, Options, Record, Session, SessionEnd};
use std::path::Path;

/// Without *began*; bodies up to variant 12.
const PAYLOAD_1: &[u8] = include_bytes!("golden/payload-1.journal");
const PAYLOAD_2: &[u8] = include_bytes!("golden/payload-2.journal");
const FIRST: u64 = 41;
/// The sequence that the files' sessions had before.
const KNOWN: (Session, u64) = (Session([2; 16]), 8);

fn open(directory: &Path) -> Journal {
    let options = Options {
        segment_bytes: 1 << 20,
        max_bytes: 1 << 24,
        floor: FIRST - 1,
    };
    Journal::open(directory, options).expect("a journal of an earlier version opens")
}

fn records(journal: &Journal) -> Vec<Record> {
    let mut reader = journal.read_from(FIRST).expect("nothing is trimmed");
    reader.read(1000).expect("reads")
}

/// The variants in their order of the file.
fn variants(records: &[Record]) -> Vec<u8> {
    let variant = |record: &Record| postcard::to_stdvec(&record.body).expect("small")[0];
    records.iter().map(variant).collect()
}

fn check(file: &[u8], expected: &[u8], began: u64) {
    let scratch = tempfile::tempdir().expect("scratch");
    let name = format!("{FIRST:020}.journal");
    std::fs::write(scratch.path().join(&name), file).expect("writes");
    let journal = open(scratch.path());
    let found = records(&journal);
    assert_eq!(variants(&found), expected);
    for (number, record) in (0..).zip(&found) {
        assert_eq!(record.sequence, FIRST + number);
        assert_eq!(record.time_ns, 1_700_000_000_000_000_000 + number.cast_signed());
        assert_eq!(record.began_ns, if began > 0 { began + number } else { 0 });
    }
    let gap = Body::Gap {
        since_ns: 1,
        reason: GapReason::Panic,
    };
    assert!(found.iter().any(|record| record.body == gap), "{found:?}");
    let end = Body::SessionEnded {
        how: SessionEnd::NotBack,
    };
    assert_eq!(found.last().map(|record| &record.body), Some(&end));
    // Nothing was cut, and sessions are known.
    assert_eq!(std::fs::read(scratch.path().join(&name)).expect("reads"), file);
    assert_eq!(journal.acknowledged(KNOWN.0), KNOWN.1);
    let last = found
        .iter()
        .map(|record| record.session_sequence)
        .max()
        .expect("some");
    assert_eq!(journal.acknowledged(Session([1; 16])), last);
    // It goes on in the same file.
    journal.append(vec![event(1, last + 1)]).expect("appends");
    journal.sync().expect("syncs");
    drop(journal);
    let again = records(&open(scratch.path()));
    assert_eq!(again.len(), found.len() + 1);
    assert_eq!(again[..found.len()], found);
}

#[test]
fn a_journal_with_the_payload_before_is_read_and_goes_on() {
    check(PAYLOAD_1, &[11, 0, 5, 6, 7, 8, 1, 2, 9, 4, 3, 10, 12], 0);
}

#[test]
fn a_journal_with_the_payload_of_today_is_read_and_goes_on() {
    let variants = [11, 0, 5, 6, 7, 8, 1, 2, 9, 4, 3, 10, 13, 13, 14, 15, 12];
    check(PAYLOAD_2, &variants, 1000);
}
