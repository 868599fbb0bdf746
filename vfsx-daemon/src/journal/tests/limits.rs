//! Duplicates, holes, the bound on bytes, and the real files.

use super::event;
use crate::journal::{AppendError, Body, GapReason, Journal, Options, ReadError, Session, SyncThread};
use restfs_lib::disk::faulty::{EIO, ENOSPC, Fault, Faulty, Loss};
use std::sync::Arc;
use std::time::Duration;

const OPTIONS: Options = Options {
    segment_bytes: 500,
    max_bytes: 4_000,
    floor: 0,
};

fn journal() -> Journal {
    Journal::open_on(Arc::new(Faulty::default()), OPTIONS).expect("opens")
}

#[test]
fn events_sent_again_are_dropped() {
    let journal = journal();
    journal.append(vec![event(1, 1), event(1, 2)]).expect("appends");
    let again = journal
        .append(vec![event(1, 1), event(1, 2), event(1, 3), event(1, 3)])
        .expect("appends");
    assert_eq!((again.duplicates, again.last, again.hole), (3, 3, false));
}

#[test]
fn a_hole_in_a_session_is_a_gap_ahead_of_what_follows_it() {
    let journal = journal();
    journal.append(vec![event(1, 1)]).expect("appends");
    let appended = journal.append(vec![event(1, 5)]).expect("appends");
    assert!(appended.hole);
    journal.sync().expect("syncs");
    let records = journal.read_from(2).expect("reads").read(9).expect("reads");
    assert!(matches!(
        records[0].body,
        Body::Gap {
            reason: GapReason::SessionHole,
            ..
        }
    ));
    assert_eq!(records[1].session_sequence, 5);
}

#[test]
fn nothing_is_acknowledged_or_given_out_before_it_is_synced() {
    let journal = journal();
    let mut reader = journal.read_from(1).expect("reads");
    journal.append(vec![event(1, 1)]).expect("appends");
    assert_eq!(journal.acknowledged(Session([1; 16])), 0);
    assert!(journal.take_acknowledgements().is_empty());
    assert!(reader.read(9).expect("reads").is_empty());
    journal.sync().expect("syncs");
    assert_eq!(journal.take_acknowledgements(), [(Session([1; 16]), 1)]);
    assert_eq!(reader.read(9).expect("reads").len(), 1);
}

#[test]
fn a_full_journal_refuses_and_takes_again_after_trimming() {
    let journal = journal();
    let full =
        (1..1_000).find(|n| matches!(journal.append(vec![event(1, *n)]), Err(AppendError::Full { .. })));
    let full = full.expect("the bound is never reached");
    assert!(journal.status().bytes <= OPTIONS.max_bytes);
    journal.sync().expect("syncs");
    journal.trim(full - 1).expect("trims");
    assert!(matches!(journal.read_from(1), Err(ReadError::Trimmed { .. })));
    journal.append(vec![event(1, full)]).expect("has room again");
}

#[test]
fn a_batch_that_was_refused_is_not_there_after_a_restart() {
    let calls = {
        let storage = Faulty::default();
        let journal = Journal::open_on(Arc::new(storage.clone()), OPTIONS).expect("opens");
        let calls = storage.calls();
        journal.append(vec![event(1, 1)]).expect("appends");
        assert_eq!(storage.calls(), calls + 1, "an append is one write");
        calls
    };
    // Half of the batch is written: its first record is whole.
    let storage = Faulty::with_fault(calls + 1, Fault::Error(ENOSPC));
    let journal = Journal::open_on(Arc::new(storage.clone()), OPTIONS).expect("opens");
    let batch = vec![event(1, 1), event(1, 2), event(1, 3)];
    assert!(matches!(journal.append(batch), Err(AppendError::Write { .. })));
    let journal = Journal::open_on(Arc::new(storage.after_crash(Loss::None)), OPTIONS).expect("opens");
    assert_eq!(journal.status().head, 0);
}

/// A journal with one record whose sync has failed.
fn with_failed_sync() -> (Faulty, Journal) {
    let calls = {
        let storage = Faulty::default();
        let _journal = Journal::open_on(Arc::new(storage.clone()), OPTIONS).expect("opens");
        storage.calls()
    };
    let storage = Faulty::with_fault(calls + 2, Fault::Error(EIO));
    let journal = Journal::open_on(Arc::new(storage.clone()), OPTIONS).expect("opens");
    journal.append(vec![event(1, 1)]).expect("appends");
    journal.sync().expect_err("meets the fault");
    (storage, journal)
}

#[test]
fn after_a_failed_sync_nothing_is_taken_until_the_journal_is_cut_back_and_then_it_works() {
    let (storage, journal) = with_failed_sync();
    assert!(matches!(
        journal.append(vec![event(1, 2)]),
        Err(AppendError::Failed)
    ));
    journal.recover().expect("the fault is over");
    assert_eq!(journal.status().head, 0, "what was not synced is lost");
    journal
        .append(vec![event(1, 1), event(1, 2)])
        .expect("sent again");
    journal.sync().expect("syncs");
    let journal = Journal::open_on(Arc::new(storage.after_crash(Loss::All)), OPTIONS).expect("opens");
    assert_eq!(journal.acknowledged(Session([1; 16])), 2);
}

#[test]
fn what_went_wrong_is_told_until_a_later_record_is_on_disk() {
    let full = |journal: &Journal| journal.trouble().map(|trouble| trouble.full);
    let storage = Faulty::default();
    let journal = Journal::open_on(Arc::new(storage.clone()), OPTIONS).expect("opens");
    journal.append(vec![event(1, 1)]).expect("appends");
    storage.set_fault(1, Fault::Error(ENOSPC));
    journal.append(vec![event(1, 2)]).expect_err("meets the fault");
    let why = journal.trouble().expect("is told").why;
    assert!(why.contains("0000000001"), "names the file: {why}");
    journal.sync().expect("syncs what is older");
    assert_eq!(full(&journal), Some(true), "nothing was written since");
    journal.append(vec![event(1, 2)]).expect("appends");
    assert_eq!(full(&journal), Some(true), "written is not on disk");
    journal.sync().expect("syncs");
    assert_eq!(full(&journal), None);

    let (_, journal) = with_failed_sync();
    assert_eq!(full(&journal), Some(false), "EIO");
    journal.recover().expect("the fault is over");
    assert_eq!(full(&journal), Some(false));
    journal.append(vec![event(1, 1)]).expect("sent again");
    journal.sync().expect("syncs");
    assert_eq!(full(&journal), None);
}

#[test]
fn what_a_restart_finds_after_a_failed_sync_is_durable_before_it_is_acknowledged() {
    let (storage, _journal) = with_failed_sync();
    let restarted = storage.after_crash(Loss::None);
    let journal = Journal::open_on(Arc::new(restarted.clone()), OPTIONS).expect("opens");
    assert_eq!(
        journal.acknowledged(Session([1; 16])),
        1,
        "the kernel still shows it"
    );
    let journal = Journal::open_on(Arc::new(restarted.after_crash(Loss::All)), OPTIONS).expect("opens");
    assert_eq!(journal.acknowledged(Session([1; 16])), 1);
}

#[test]
fn real_files_keep_what_the_thread_has_synced() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("journal");
    let options = Options {
        segment_bytes: 10_000,
        max_bytes: 1 << 20,
        floor: 0,
    };
    {
        let journal = Journal::open(&path, options).expect("opens");
        let _thread = SyncThread::start(&journal).expect("starts");
        for sequence in 1..=500 {
            let last = journal.append(vec![event(1, sequence)]).expect("appends").last;
            if sequence % 100 == 0 {
                let synced = journal.wait_synced(last - 1, Duration::from_secs(30));
                assert!(synced >= last);
            }
        }
    }
    let journal = Journal::open(&path, options).expect("opens again");
    let records = journal.read_from(1).expect("reads").read(1_000).expect("reads");
    assert_eq!(records.len(), 500);
    assert!(
        std::fs::read_dir(&path).expect("lists").count() > 2,
        "several segments"
    );
}

#[test]
fn a_record_is_so_long_and_no_longer() {
    use crate::journal::codec::{MAX_ENCODED, decode_record, encode_record};
    let record = |length: usize| {
        let mut draft = event(1, 1);
        if let Body::Opened { path_hint, .. } = &mut draft.body {
            *path_hint = vec![b'x'; length];
        }
        super::of(draft, 1)
    };
    let encoded = |length: usize| {
        let mut bytes = Vec::new();
        encode_record(&record(length), &mut bytes).map(|()| bytes)
    };
    let beside = encoded(1 << 19).expect("fits").len() - (1 << 19);
    let longest = encoded(MAX_ENCODED - beside).expect("is at the limit");
    assert_eq!(longest.len(), MAX_ENCODED);
    assert!(decode_record(&longest).is_ok());
    let error = encoded(MAX_ENCODED - beside + 1).expect_err("is over it");
    assert!(error.to_string().contains("limit of 1048576"), "{error}");
    let mut says_more = longest;
    says_more[..4].copy_from_slice(&(1_048_577u32).to_le_bytes());
    assert!(decode_record(&says_more).is_err());
}
