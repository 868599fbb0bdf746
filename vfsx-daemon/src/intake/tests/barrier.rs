//! The barrier that settle begins with.

use super::module::{Module, event, session};
use super::spool::{file, leave, story};
use super::{Fixture, NORMAL, PATIENCE, until};
use crate::intake::BarrierError;
use crate::intake::barrier::Barrier;
use crate::intake::share::Unheard;
use crate::journal::Session;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vfsx_proto::{ToDaemon, ToModule};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_module_holds_back_is_in_the_journal_after_a_barrier() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    let (quiet, _) = Module::welcome(&fixture.socket(), 2).await;
    let (barriers, share) = (fixture.intake.barriers(), fixture.share.clone());
    let barrier = tokio::spawn(async move { barriers.barrier(&share, Instant::now() + PATIENCE).await });
    // Held back until it is asked for; one that has ended need not answer.
    let ToModule::SendNow { token } = module.receive().await else {
        panic!("not asked")
    };
    drop(quiet);
    module.assert_nothing_comes().await;
    assert!(!barrier.is_finished(), "it did not wait for the answer");
    module.send(&ToDaemon::Events(vec![event(1)])).await;
    module.send(&ToDaemon::Sent { token }).await;
    let sequence = barrier.await.expect("runs").expect("all answered");
    let records = fixture.records();
    let held_back = records.iter().find(|r| r.session_sequence == 1).expect("taken");
    assert!(sequence >= held_back.sequence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_made_before_a_barrier_is_part_of_it_however_slow_its_hello_is() {
    let fixture = Fixture::new(NORMAL);
    let mut slow = Module::connect(&fixture.socket()).await;
    let (barriers, share) = (fixture.intake.barriers(), fixture.share.clone());
    let barrier = tokio::spawn(async move { barriers.barrier(&share, Instant::now() + PATIENCE).await });
    slow.assert_nothing_comes().await;
    slow.say_hello("data", 1).await;
    assert!(matches!(slow.receive().await, ToModule::Welcome(_)));
    let ToModule::SendNow { token } = slow.receive().await else {
        panic!("not asked")
    };
    slow.send(&ToDaemon::Sent { token }).await;
    barrier.await.expect("runs").expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_does_not_answer_is_a_timeout() {
    let fixture = Fixture::new(NORMAL);
    let (_module, _) = Module::welcome(&fixture.socket(), 1).await;
    let deadline = Instant::now() + super::super::ALL_CONNECTED_AFTER + Duration::from_millis(200);
    let outcome = fixture.intake.barriers().barrier(&fixture.share, deadline).await;
    assert!(
        matches!(outcome, Err(BarrierError::Timeout { waiting: 1, .. })),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_barrier_waits_for_the_sessions_from_before() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=1).await;
    module.acknowledged(1).await;
    let fixture = fixture.kill_and_restart(NORMAL);
    let (barriers, share) = (fixture.intake.barriers(), fixture.share.clone());
    let barrier = tokio::spawn(async move { barriers.barrier(&share, Instant::now() + PATIENCE).await });
    until("all others would be connected", || {
        Instant::now() > fixture.intake.barriers.from + Duration::from_millis(100)
    })
    .await;
    assert!(!barrier.is_finished(), "it did not wait");
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    let ToModule::SendNow { token } = module.receive().await else {
        panic!("not asked")
    };
    module.events(2..=2).await;
    module.send(&ToDaemon::Sent { token }).await;
    let sequence = barrier.await.expect("runs").expect("answered");
    assert_eq!(sequence, fixture.journal.status().head);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sessions_that_are_over_have_left_is_in_the_journal_after_a_barrier() {
    let fixture = Fixture::new(NORMAL);
    let barriers = fixture.intake.barriers();
    let deadline = || Instant::now() + PATIENCE;
    barriers
        .barrier(&fixture.share, deadline())
        .await
        .expect("all answered");
    let mut expected = Vec::new();
    // More than come before vfsxd looks by itself.
    for n in 1..=10 {
        let (mut module, _) = Module::welcome(&fixture.socket(), n).await;
        module.events(1..=2).await;
        // It did not hear that its events were taken, and one more found no room in the socket.
        leave(&fixture, n, &file(n, 1..=3, true));
        drop(module);
        let sequence = barriers
            .barrier(&fixture.share, deadline())
            .await
            .expect("all answered");
        let records = fixture.records();
        expected.extend(["start", "1", "2", "3", "end"]);
        assert_eq!(story(&records), expected);
        assert_eq!(records.last().map(|r| r.sequence), Some(sequence));
    }
}

/// As of a process that works without a connection: given while it stands. `last`: what it says of its last event.
fn stand(fixture: &Fixture, n: u8, last: &str) -> (std::path::PathBuf, std::fs::File) {
    let live = fixture.directory.path().join("run/gaps/data/live");
    std::fs::create_dir_all(&live).expect("makes");
    let flag = live.join(hex::encode(session(n).0));
    let new = flag.with_extension("new");
    let line = format!(r#"{{"since_ns":1,"reason":"daemon-absent","pid":1{last}}}"#);
    std::fs::write(&new, line).expect("writes");
    let stands = std::fs::File::open(&new).expect("opens");
    stands.lock().expect("locks");
    std::fs::rename(&new, &flag).expect("shows it");
    (flag, stands)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_works_without_a_connection_is_waited_for_and_asked_when_it_has_one() {
    let fixture = Fixture::new(NORMAL);
    let (flag, _stands) = stand(&fixture, 1, "");
    let barriers = fixture.intake.barriers();
    // Also one whose time is over in the midst of a look.
    let began = Instant::now() + Duration::from_secs(4);
    let mut until = JoinSet::new();
    for late in 0..200 {
        let share = fixture.share.clone();
        until.spawn(async move { share.barrier(began + Duration::from_millis(late)).await });
    }
    while let Some(outcome) = until.join_next().await {
        let outcome = outcome.expect("runs");
        assert!(
            matches!(&outcome, Err(BarrierError::Unheard { sessions: 1, which, .. }) if flag.ends_with(which)),
            "{outcome:?}"
        );
    }
    let (mut slow, _) = Module::welcome(&fixture.socket(), 2).await;
    let share = fixture.share.clone();
    let barrier = tokio::spawn(async move { barriers.barrier(&share, Instant::now() + PATIENCE).await });
    let ToModule::SendNow { token } = slow.receive().await else {
        panic!("not asked")
    };
    // It connects while the others are asked: its flag says nothing any more.
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    slow.send(&ToDaemon::Sent { token }).await;
    let ToModule::SendNow { token } = module.receive().await else {
        panic!("not asked")
    };
    module.assert_nothing_comes().await;
    assert!(!barrier.is_finished(), "it did not wait for the answer");
    module.events(1..=1).await;
    module.send(&ToDaemon::Sent { token }).await;
    let sequence = barrier.await.expect("runs").expect("answered");
    let records = fixture.records();
    let brought = records.iter().find(|r| r.session_sequence == 1).expect("taken");
    assert!(sequence >= brought.sequence);
}

/// However long its process goes on: it said so with its last event, and vfsxd has that.
#[tokio::test(flavor = "multi_thread")]
async fn a_flag_that_says_no_more_than_the_journal_has_holds_up_nobody() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=2).await;
    module.acknowledged(2).await;
    let _stands = stand(&fixture, 1, r#","last":2"#);
    drop(module);
    until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
    let barriers = fixture.intake.barriers();
    let outcome = barriers.barrier(&fixture.share, Instant::now() + PATIENCE).await;
    assert_eq!(
        outcome.expect("nothing is missing"),
        fixture.journal.status().head
    );
}

/// Clients come and go all the time on a disk that is slow to sync: what they leave after the call is not what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_after_a_barrier_has_begun_does_not_hold_it_up() {
    let fixture = Fixture::new(NORMAL);
    let state = fixture.share.lock();
    let of = |sessions: &[u8]| sessions.iter().map(|n| Some(Session(session(*n).0))).collect();
    let mut barrier = Barrier::default();
    assert_eq!(barrier.still(&state, &of(&[2])), of(&[2]));
    assert_eq!(barrier.still(&state, &of(&[2, 3, 4])), of(&[2]));
    assert_eq!(barrier.still(&state, &of(&[3, 4])), Unheard::new());
}
