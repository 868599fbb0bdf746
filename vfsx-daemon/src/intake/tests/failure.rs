//! The journal cannot be written; gaps.

use super::module::Module;
use super::{Fixture, NORMAL, PATIENCE, Settings, until};
use crate::intake::{BarrierError, PendingGap};
use crate::journal::{Body, Draft, GapReason, Journal, Record, Session};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vfsx_proto::{ToDaemon, ToModule};

fn gaps(records: &[Record]) -> Vec<GapReason> {
    let gap = |r: &Record| match r.body {
        Body::Gap { reason, .. } => Some(reason),
        _ => None,
    };
    records.iter().filter_map(gap).collect()
}

const SMALL: Settings = Settings {
    journal_max: 40_000,
    ..NORMAL
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_does_not_hold_up_modules_and_is_a_gap_that_ends_in_sending_again() {
    let fixture = Fixture::new(SMALL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=10).await;
    module.acknowledged(10).await;
    fill(&fixture.journal);
    // Far more than sockets hold: each of these writes would block if the daemon stopped reading.
    for hundred in 0..200 {
        module.events(hundred * 100 + 11..=hundred * 100 + 110).await;
    }
    until("a gap is pending", || pending(&fixture).is_some()).await;
    let (_other, acknowledged) = Module::welcome(&fixture.socket(), 9).await;
    assert_eq!(acknowledged, 0, "connections are still taken");

    // Survives a kill, as it is not in the journal yet.
    let fixture = fixture.kill_and_restart(SMALL);
    assert!(pending(&fixture).is_some());
    let (mut module, acknowledged) = Module::welcome(&fixture.socket(), 1).await;
    assert_eq!(acknowledged, 10);
    module.events(acknowledged + 1..=acknowledged + 1).await;
    module.assert_nothing_comes().await;

    let head = fixture.journal.status().head;
    assert_eq!(fixture.journal.wait_synced(head - 1, PATIENCE), head);
    fixture.journal.trim(head).expect("trims");
    module.assert_closed().await;
    let (mut module, again) = Module::welcome(&fixture.socket(), 1).await;
    assert_eq!(again, acknowledged, "what was dropped is asked for again");
    module.events(again + 1..=again + 1).await;
    module.acknowledged(again + 1).await;
    until("the gap is in the journal", || pending(&fixture).is_none()).await;
    fixture.journal.sync().expect("syncs");
    let mut reader = fixture.journal.read_from(head + 1).expect("not trimmed");
    assert_eq!(
        gaps(&reader.read(100).expect("reads")),
        [GapReason::JournalFailed]
    );
}

/// A gap that is not in the journal yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_fails_again_while_its_gap_is_synced_is_tried_again() {
    let fixture = Fixture::new(Settings {
        syncing: false,
        ..NORMAL
    });
    let fail = |since_ns| {
        let mut state = fixture.share.lock();
        state.discarding = true;
        let reason = GapReason::JournalFailed;
        fixture.share.raise(&mut state, PendingGap { since_ns, reason });
    };
    let head = fixture.journal.status().head;
    fail(1);
    until("the gap is appended", || fixture.journal.status().head > head).await;
    fail(2);
    until("events are taken again", || {
        fixture.journal.sync().expect("syncs");
        !fixture.share.lock().discarding && pending(&fixture).is_none()
    })
    .await;
    assert!(gaps(&fixture.records()).len() > 1, "the second failure is no gap");
}

/// Settling is for whoever has made space: that it takes a second until the journal is tried again is no failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_waits_until_the_journal_takes_what_it_has_dropped_and_not_beyond_its_deadline() {
    let fixture = Fixture::new(SMALL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=1).await;
    module.acknowledged(1).await;
    fill(&fixture.journal);
    module.events(2..=2).await;
    until("a gap is pending", || pending(&fixture).is_some()).await;

    let barrier = |patience| {
        let (barriers, share) = (fixture.intake.barriers(), fixture.share.clone());
        tokio::spawn(async move { barriers.barrier(&share, Instant::now() + patience).await })
    };
    let (short, long) = (barrier(Duration::from_secs(4)), barrier(PATIENCE));
    answer(&mut module, &short).await;
    let failed = short.await.expect("runs");
    assert!(
        matches!(failed, Err(BarrierError::JournalFailed { .. })),
        "{failed:?}"
    );
    assert!(!long.is_finished(), "the journal is full");
    let head = fixture.journal.status().head;
    assert_eq!(fixture.journal.wait_synced(head - 1, PATIENCE), head);
    fixture.journal.trim(head).expect("trims");

    module.assert_closed().await;
    let (mut module, again) = Module::welcome(&fixture.socket(), 1).await;
    module.events(again + 1..=2).await;
    answer(&mut module, &long).await;
    let sequence = long.await.expect("runs").expect("the journal works again");
    fixture.journal.sync().expect("syncs");
    let mut reader = fixture.journal.read_from(head + 1).expect("not trimmed");
    let records = reader.read(100).expect("reads");
    let dropped = records.iter().find(|r| r.session_sequence == 2).expect("taken");
    assert!(sequence >= dropped.sequence);
}

/// What it is asked, as long as a barrier lasts.
async fn answer<T>(module: &mut Module, barrier: &JoinHandle<T>) {
    while !barrier.is_finished() {
        let next = tokio::time::timeout(Duration::from_millis(50), module.next());
        if let Ok(Some(ToModule::SendNow { token })) = next.await {
            module.send(&ToDaemon::Sent { token }).await;
        }
    }
}

fn pending(fixture: &Fixture) -> Option<PendingGap> {
    fixture.share.gap_after(fixture.journal.status().head)
}

/// Until not even a gap fits.
fn fill(journal: &Journal) {
    let body = || Body::Gap {
        since_ns: 0,
        reason: GapReason::Unknown,
    };
    let filler = || Draft::note(Session::DAEMON, 0, body());
    while journal.append(vec![filler()]).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_flag_becomes_a_record_and_goes() {
    let fixture = Fixture::new(NORMAL);
    let flag = fixture.directory.path().join("gaps/data").join("ab".repeat(16));
    // As the module does it: whole or not at all.
    let unfinished = flag.with_extension("new");
    let line = r#"{"since_ns":17,"reason":"DaemonAbsent","pid":1}"#;
    std::fs::write(&unfinished, line).expect("writes");
    std::fs::rename(&unfinished, &flag).expect("renames");
    until("it is taken", || !flag.exists()).await;
    let records = fixture.records();
    assert_eq!(gaps(&records), [GapReason::DaemonAbsent]);
    assert!(matches!(records[0].body, Body::Gap { since_ns: 17, .. }));
    fixture.share.tend();
    assert_eq!(gaps(&fixture.records()).len(), 1, "once");
}

/// What the module of session 1 leaves when it has not heard of the acknowledgement of its events up to `last`.
fn leave_flag(fixture: &Fixture, last: u64) -> std::path::PathBuf {
    let flag = fixture.directory.path().join("gaps/data").join("01".repeat(16));
    let line = format!(r#"{{"since_ns":17,"reason":"DaemonAbsent","pid":1,"last":{last}}}"#);
    std::fs::write(flag.with_extension("new"), line).expect("writes");
    std::fs::rename(flag.with_extension("new"), &flag).expect("renames");
    flag
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_acknowledgement_is_no_gap() {
    let fixture = Fixture::new(Settings {
        syncing: false,
        ..NORMAL
    });
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=3).await;
    let flag = leave_flag(&fixture, 3);
    drop(module);
    until("all is written", || {
        fixture.journal.written(Session([1; 16])) == 3
    })
    .await;
    fixture.share.tend();
    assert!(flag.exists(), "not decided before the sync");
    fixture.journal.sync().expect("syncs");
    until("it is seen to mean nothing", || !flag.exists()).await;
    assert_eq!(gaps(&fixture.records()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_never_came_are_a_gap_though_others_of_the_session_did() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=3).await;
    module.acknowledged(3).await;
    drop(module);
    until("the session has ended", || {
        fixture.journal.open_sessions().is_empty()
    })
    .await;
    let flag = leave_flag(&fixture, 4);
    until("it is taken", || !flag.exists()).await;
    assert_eq!(gaps(&fixture.records()), [GapReason::DaemonAbsent]);
}
