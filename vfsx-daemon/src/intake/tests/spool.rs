//! What sessions left in the spool.

use super::module::{Module, event, greeting, session};
use super::{Fixture, NORMAL, Settings, until};
use crate::journal::{Body, GapReason, Record, Session, SessionEnd};
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use vfsx_proto::{ToDaemon, encode, preamble};

/// What the module writes; `end`: with the frame that says that it is whole.
pub(super) fn file(n: u8, events: RangeInclusive<u64>, end: bool) -> Vec<u8> {
    let mut bytes = preamble().to_vec();
    let mut put = |message: ToDaemon| encode(&message, &mut bytes).expect("encodes");
    put(ToDaemon::Hello(greeting("data", n)));
    for sequence in events.clone() {
        put(ToDaemon::Events(vec![event(sequence)]));
    }
    if end {
        put(ToDaemon::Sent { token: *events.end() });
    }
    bytes
}

/// As the module does it: whole and in its place at once.
pub(super) fn leave(fixture: &Fixture, n: u8, file: &[u8]) -> PathBuf {
    let path = place(fixture, n);
    let new = path.with_extension("new");
    fs::write(&new, file).expect("writes");
    fs::rename(&new, &path).expect("moves");
    path
}

fn place(fixture: &Fixture, n: u8) -> PathBuf {
    let dir = fixture.directory.path().join("spool/data");
    fs::create_dir_all(&dir).expect("makes");
    dir.join(hex::encode(session(n).0))
}

pub(super) fn story(records: &[Record]) -> Vec<String> {
    let tell = |r: &Record| match &r.body {
        Body::SessionStarted { .. } => "start".to_owned(),
        Body::SessionEnded { how } => {
            assert_eq!(*how, SessionEnd::Closed);
            "end".to_owned()
        }
        Body::Gap { reason, .. } => format!("gap: {}", reason.text()),
        _ => r.session_sequence.to_string(),
    };
    records.iter().map(tell).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_session_is_taken_in_once_and_in_order_and_ends_it() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=3).await;
    module.acknowledged(3).await;
    let fixture = fixture.kill_and_restart(NORMAL);
    // The acknowledgement of 3 was not heard.
    let path = leave(&fixture, 1, &file(1, 3..=2_500, true));
    until("the file is dealt with", || !path.exists()).await;
    until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
    // Left there by a vfsxd that was killed before it could remove it.
    let again = leave(&fixture, 1, &file(1, 3..=2_500, true));
    until("the file is dealt with again", || !again.exists()).await;
    let mut expected: Vec<_> = ["start".to_owned()].into();
    expected.extend((1..=2_500).map(|n| n.to_string()));
    expected.push("end".to_owned());
    let told = story(&fixture.records());
    let told: Vec<_> = told.into_iter().collect();
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_journal_has_forgotten_is_a_session_all_the_same() {
    let fixture = Fixture::new(NORMAL);
    let path = leave(&fixture, 2, &file(2, 1..=2, true));
    until("the file is dealt with", || !path.exists()).await;
    until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
    assert_eq!(story(&fixture.records()), ["start", "1", "2", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_synced_stays_in_the_spool() {
    let fixture = Fixture::new(Settings {
        syncing: false,
        ..NORMAL
    });
    let path = leave(&fixture, 1, &file(1, 1..=2, true));
    let session = Session::from(session(1));
    until("it is written", || fixture.journal.written(session) == 2).await;
    assert!(path.exists());
    assert_eq!(fixture.share.sessions(), (0, 1), "nobody calls the share settled");
    fixture.journal.sync().expect("syncs");
    until("the file is dealt with", || !path.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_process_still_writes_waits_for_its_end() {
    let fixture = Fixture::new(NORMAL);
    let path = place(&fixture, 4);
    let new = path.with_extension("new");
    fs::write(&new, file(4, 1..=1, true)).expect("writes");
    let process = fs::File::open(&new).expect("opens");
    process.try_lock().expect("locks");
    fs::rename(&new, &path).expect("moves");
    let whole = leave(&fixture, 3, &file(3, 1..=1, true));
    tokio::task::block_in_place(|| fixture.share.tend());
    until("the other file is dealt with", || !whole.exists()).await;
    assert!(path.exists());
    assert_eq!(fixture.share.sessions(), (0, 1), "nobody calls the share settled");
    drop(process);
    until("the file is dealt with", || !path.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_or_foreign_file_is_a_gap_and_what_can_be_read_of_it_counts() {
    for torn in [true, false] {
        let fixture = Fixture::new(NORMAL);
        let mut bytes = file(1, 1..=2, !torn);
        if !torn {
            bytes[4] ^= 0x40;
        }
        let path = leave(&fixture, 1, &bytes);
        until("the file is dealt with", || !path.exists()).await;
        let gap = format!("gap: {}", GapReason::Unknown.text());
        until("the gap is noted", || story(&fixture.records()).contains(&gap)).await;
    }
}
