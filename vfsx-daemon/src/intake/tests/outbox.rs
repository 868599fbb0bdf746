//! Events that a module holds in its outbox, and never sends.

use super::module::{Module, event, greeting, send_with_descriptor};
use super::{Fixture, NORMAL, until};
use crate::intake::memory::tests::Shared;
use crate::journal::{Body, GapReason, Record};
use std::ops::RangeInclusive;
use vfsx_proto::ring::Word;
use vfsx_proto::{Hello, ToDaemon, ToModule, Welcome};

async fn holding(fixture: &Fixture, shared: &Shared) -> Module {
    let mut module = Module::connect_bare(&fixture.socket()).await;
    let hello = Hello {
        ring: Some(0),
        ..greeting("data", 1)
    };
    send_with_descriptor(&module.stream, &ToDaemon::Hello(hello), shared.descriptor()).await;
    assert!(matches!(module.receive().await, ToModule::Welcome(_)));
    module
}

/// Frames as the module makes them: one for each event.
fn frames(sequences: RangeInclusive<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for sequence in sequences {
        vfsx_proto::encode(&ToDaemon::Events(vec![event(sequence)]), &mut bytes).expect("encodes");
    }
    bytes
}

fn events(records: &[Record]) -> Vec<u64> {
    let sequences = records.iter().map(|record| record.session_sequence);
    sequences.filter(|sequence| *sequence > 0).collect()
}

fn gaps(records: &[Record]) -> Vec<GapReason> {
    let gap = |record: &Record| match record.body {
        Body::Gap { reason, .. } => Some(reason),
        _ => None,
    };
    records.iter().filter_map(gap).collect()
}

async fn session_ended(fixture: &Fixture) {
    until("the session is over", || fixture.share.sessions() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_had_not_sent_is_taken_out_of_its_memory_once_and_in_order() {
    let fixture = Fixture::new(NORMAL);
    let shared = Shared::new(0);
    let mut module = holding(&fixture, &shared).await;
    // The kill came between the send and the word that it is done.
    shared.hold(1, &frames(1..=5));
    module.events(1..=3).await;
    drop(module);
    session_ended(&fixture).await;
    let records = fixture.records();
    assert_eq!(events(&records), [1, 2, 3, 4, 5]);
    assert!(gaps(&records).is_empty());
    let ended = |record: &Record| matches!(record.body, Body::SessionEnded { .. });
    assert!(
        records.last().is_some_and(ended),
        "the session's end comes after them"
    );
}

/// smbd waits for a disk, and does not come back to its event loop.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_still_is_taken_though_the_process_lives() {
    let fixture = Fixture::new(NORMAL);
    let shared = Shared::new(0);
    let mut module = holding(&fixture, &shared).await;
    module.events(1..=2).await;
    shared.hold(7, &frames(3..=4));
    until("they are taken", || events(&fixture.records()) == [1, 2, 3, 4]).await;
    // Then it goes on, and sends them as if nothing had been.
    module.events(3..=5).await;
    module.acknowledged_in_passing(5).await;
    let records = fixture.records();
    assert_eq!(events(&records), [1, 2, 3, 4, 5]);
    assert!(gaps(&records).is_empty());
}

/// Else the events between them would look lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_follow_what_was_read_waits_for_what_is_in_the_socket() {
    let fixture = Fixture::new(NORMAL);
    let shared = Shared::new(0);
    let mut module = holding(&fixture, &shared).await;
    shared.hold(7, &frames(3..=4));
    // Looks at it more than once.
    let looked = std::time::Instant::now();
    while looked.elapsed() < std::time::Duration::from_secs(1) {
        fixture.share.tend();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(events(&fixture.records()).is_empty());
    module.events(1..=2).await;
    until("they are taken", || events(&fixture.records()) == [1, 2, 3, 4]).await;
    assert!(gaps(&fixture.records()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_makes_no_sense_at_the_end_is_a_gap() {
    let fixture = Fixture::new(NORMAL);
    let shared = Shared::new(0);
    let module = holding(&fixture, &shared).await;
    shared.hold(1, &[0xff; 64]);
    drop(module);
    session_ended(&fixture).await;
    until("the gap is on record", || {
        gaps(&fixture.records()) == [GapReason::SessionHole]
    })
    .await;
}

/// As when the socket was full: they were in the process's own memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_had_noted_and_nobody_can_find_is_a_gap() {
    let fixture = Fixture::new(NORMAL);
    let shared = Shared::new(0);
    let mut module = holding(&fixture, &shared).await;
    module.events(1..=2).await;
    shared.set(Word::Noted, 3);
    drop(module);
    session_ended(&fixture).await;
    assert_eq!(gaps(&fixture.records()), [GapReason::Killed]);
}

/// What it has done, it had not noted.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_in_a_change_is_a_gap() {
    for (begun, ended, expected) in [(4, 4, &[][..]), (4, 3, &[GapReason::Killed])] {
        let fixture = Fixture::new(NORMAL);
        let shared = Shared::new(0);
        let mut module = holding(&fixture, &shared).await;
        module.events(1..=2).await;
        shared.set(Word::Noted, 2);
        shared.set(Word::Begun, begun);
        shared.set(Word::Ended, ended);
        drop(module);
        session_ended(&fixture).await;
        assert_eq!(gaps(&fixture.records()), expected);
    }
}

/// The socket was full when the session ended, and what it then wrote hangs: its standing flag tells what becomes of that.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_could_not_write_before_its_end_is_decided_by_its_flag() {
    for taken in [true, false] {
        let fixture = Fixture::new(NORMAL);
        let shared = Shared::new(0);
        let mut module = holding(&fixture, &shared).await;
        module.events(1..=2).await;
        module.acknowledged_in_passing(2).await;
        shared.set(Word::Noted, if taken { 2 } else { 3 });
        let live = fixture.directory.path().join("run/gaps/data/live");
        std::fs::create_dir_all(&live).expect("makes");
        let name = "01".repeat(16);
        let last = if taken { 2 } else { 3 };
        let line = format!(r#"{{"since_ns":17,"reason":"DaemonAbsent","pid":4,"last":{last}}}"#);
        let flag = live.join(&name);
        std::fs::write(flag.with_extension("new"), line).expect("writes");
        let process = std::fs::File::open(flag.with_extension("new")).expect("opens");
        process.try_lock().expect("locks");
        std::fs::rename(flag.with_extension("new"), &flag).expect("renames");
        let unfinished = fixture.directory.path().join("spool/data").join(name + ".new");
        std::fs::create_dir_all(unfinished.parent().expect("has one")).expect("makes");
        std::fs::write(&unfinished, "").expect("writes");
        drop(module);
        session_ended(&fixture).await;
        tokio::task::block_in_place(|| fixture.share.tend());
        assert!(gaps(&fixture.records()).is_empty(), "it may still be written");
        drop(process);
        until("the flag is taken", || !flag.exists()).await;
        let expected: &[_] = if taken { &[] } else { &[GapReason::DaemonAbsent] };
        assert_eq!(gaps(&fixture.records()), expected);
        assert!(!unfinished.exists(), "it would be a gap of its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_hears_whether_its_memory_is_read() {
    let fixture = Fixture::new(NORMAL);
    let hello = Hello {
        ring: Some(0),
        ..greeting("data", 1)
    };
    let welcome = |memory| {
        ToModule::Welcome(Welcome {
            acknowledged: 0,
            memory,
        })
    };
    // As when vfsxd has no descriptor left for it.
    let mut module = Module::connect(&fixture.socket()).await;
    module.send(&ToDaemon::Hello(hello.clone())).await;
    assert_eq!(module.receive().await, welcome(false));
    let mut module = Module::connect_bare(&fixture.socket()).await;
    let shared = Shared::new(0);
    send_with_descriptor(&module.stream, &ToDaemon::Hello(hello), shared.descriptor()).await;
    assert_eq!(module.receive().await, welcome(true));
}
