//! Written data through shared memory, and the moments that its words tell.

use super::module::{Module, greeting, send_with_descriptor};
use super::{Fixture, NORMAL, Settings, until};
use crate::catalog::{Moment, Sessions};
use crate::intake::memory::tests::Shared;
use crate::intake::{CaptureMode, Demand, IntakeSessions};
use crate::journal::{Body, GapReason, Session, monotonic_ns};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vfsx_proto::ring::{MAX_WRITE, WRITE_ENDED_AFTER, Word};
use vfsx_proto::{Event, Hello, InRing, NodeRef, Stamped, ToDaemon, ToModule};

const RING: u64 = 1 << 20;
const NODE: NodeRef = NodeRef {
    dev: 1,
    ino: 2,
    btime_ns: 3,
};

/// A session with a ring; greeted.
async fn copying(fixture: &Fixture, n: u8, shared: &Shared) -> Module {
    let mut module = Module::connect_bare(&fixture.socket()).await;
    let hello = Hello {
        ring: Some(RING),
        ..greeting("data", n)
    };
    send_with_descriptor(&module.stream, &ToDaemon::Hello(hello), shared.descriptor()).await;
    assert!(matches!(module.receive().await, ToModule::Welcome(_)));
    module
}

async fn told(module: &mut Module) -> bool {
    loop {
        match module.receive().await {
            ToModule::Copy { on } => return on,
            ToModule::Ack { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn write(sequence: u64, length: usize, data: Option<InRing>) -> ToDaemon {
    ToDaemon::Events(vec![Stamped {
        sequence,
        time_ns: 1,
        began_ns: sequence,
        event: Event::Write {
            handle: 1,
            node: NODE,
            start: 0,
            length: length as u64,
            data,
        },
    }])
}

/// Why it is map though the newest session has data to tell.
fn map_because(fixture: &Fixture) -> Option<&'static str> {
    match fixture.share.mode() {
        CaptureMode::Map(why) => why,
        CaptureMode::Copy => panic!("it is copy"),
    }
}

/// The data of all writes in the journal, in order.
fn written(fixture: &Fixture) -> Vec<Option<Vec<u8>>> {
    let data = fixture
        .records()
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Write { data, .. } => Some(data.map(|data| data.to_vec())),
            _ => None,
        });
    data.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_announced_is_in_the_journal_though_the_process_was_killed() {
    let fixture = Fixture::new(NORMAL);
    let mut shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    let place = shared.put(b"one");
    module.send(&write(1, 3, Some(place))).await;
    let place = shared.put(b"two");
    module.send(&write(2, 3, Some(place))).await;
    drop((module, shared));
    until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
    assert_eq!(written(&fixture), [Some(b"one".to_vec()), Some(b"two".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_of_vfsxd_data_is_taken_from_the_new_descriptor_and_each_write_once() {
    let fixture = Fixture::new(NORMAL);
    let mut shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    let first = shared.put(b"one");
    module.send(&write(1, 3, Some(first))).await;
    module.acknowledged(1).await;
    let second = shared.put(b"two");
    let fixture = fixture.kill_and_restart(NORMAL);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    // The first again: its place in the ring may have other data by now.
    let wrong = InRing { checksum: 0, ..first };
    module.send(&write(1, 3, Some(wrong))).await;
    module.send(&write(2, 3, Some(second))).await;
    module.acknowledged(2).await;
    assert_eq!(written(&fixture), [Some(b"one".to_vec()), Some(b"two".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_not_what_was_announced_is_a_range_like_others() {
    let fixture = Fixture::new(NORMAL);
    let mut shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    let place = shared.put(b"one");
    module.send(&write(1, 2, Some(place))).await;
    module.send(&write(2, MAX_WRITE + 1, Some(place))).await;
    module.send(&write(3, 3, Some(place))).await;
    module.acknowledged(3).await;
    assert_eq!(written(&fixture), [None, None, Some(b"one".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_data_makes_the_others_stop_until_it_is_over() {
    let fixture = Fixture::new(NORMAL);
    let shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    assert_eq!(fixture.share.mode(), CaptureMode::Copy);
    let (plain, _) = Module::welcome(&fixture.socket(), 2).await;
    assert!(!told(&mut module).await);
    assert_eq!(map_because(&fixture), Some("a session tells no data"));
    drop(plain);
    assert!(told(&mut module).await);
    drop(module);
    until("no session is left", || fixture.share.sessions() == (0, 0)).await;
    assert_eq!(fixture.share.mode(), CaptureMode::Copy);
    let (_plain, _) = Module::welcome(&fixture.socket(), 3).await;
    assert_eq!(fixture.share.mode(), CaptureMode::Map(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_later_is_asked_for_data_too() {
    let fixture = Fixture::new(NORMAL);
    let shared = [Shared::new(RING), Shared::new(RING)];
    let mut first = copying(&fixture, 1, &shared[0]).await;
    assert!(told(&mut first).await);
    let mut second = copying(&fixture, 2, &shared[1]).await;
    assert!(told(&mut second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_could_be_cut_under_vfsxd_is_not_taken() {
    let fixture = Fixture::new(NORMAL);
    let mut module = Module::connect_bare(&fixture.socket()).await;
    let hello = Hello {
        ring: Some(RING),
        ..greeting("data", 1)
    };
    let file = tempfile::tempfile().expect("scratch");
    file.set_len(2 * RING).expect("grows");
    send_with_descriptor(&module.stream, &ToDaemon::Hello(hello), file.into()).await;
    assert!(matches!(module.receive().await, ToModule::Welcome(_)));
    module.assert_nothing_comes().await;
    assert_eq!(fixture.share.mode(), CaptureMode::Map(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_not_taken_while_the_journal_is_half_full_or_it_is_of_no_use() {
    let fixture = Fixture::new(Settings {
        journal_max: 4 << 20,
        ..NORMAL
    });
    let mut shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    let data = vec![7; MAX_WRITE];
    for sequence in 1..=16 {
        let place = shared.put(&data);
        module.send(&write(sequence, data.len(), Some(place))).await;
        module.acknowledged_in_passing(sequence).await;
    }
    assert!(!module.copy, "it was not told to stop");
    assert_eq!(map_because(&fixture), Some("the journal has no room for data"));
    let written = written(&fixture);
    let kept = written.iter().take_while(|data| data.is_some()).count();
    assert!((8..=9).contains(&kept), "{kept} of 16 times 256 KiB");
    assert_eq!(written.len(), 16, "without data they are taken");

    // The catalog has applied all.
    fixture
        .journal
        .trim(fixture.journal.status().head)
        .expect("trims");
    let kept = |kept| Demand {
        kept,
        ..Demand::default()
    };
    fixture.share.note_demand(kept(2 << 20));
    module.assert_nothing_comes().await;
    fixture.share.note_demand(kept(0));
    assert!(told(&mut module).await);

    let scan = Demand {
        scan: true,
        ..kept(0)
    };
    let gap = Demand { gap: true, ..scan };
    let rest = Demand {
        rest: true,
        ..kept(0)
    };
    for (demand, why) in [
        (scan, "the share is compared"),
        (gap, "there is a gap"),
        (rest, "exact states cannot be had for the time"),
    ] {
        fixture.share.note_demand(demand);
        assert_eq!(map_because(&fixture), Some(why));
        fixture.share.note_demand(kept(0));
    }
    assert_eq!(fixture.share.mode(), CaptureMode::Copy);
}

fn sessions(fixture: &Fixture) -> Arc<IntakeSessions> {
    let barriers = fixture.intake.barriers();
    Arc::new(IntakeSessions::new(Arc::clone(&fixture.share), barriers))
}

async fn moment(sessions: &Arc<IntakeSessions>, limit: Duration) -> Moment {
    let sessions = Arc::clone(sessions);
    tokio::task::spawn_blocking(move || sessions.moment(limit))
        .await
        .expect("runs")
}

const SOON: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

async fn connected_by_now(fixture: &Fixture) {
    let from = fixture.intake.barriers.from;
    tokio::time::sleep_until(from).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_waits_for_calls_under_way_and_for_what_they_noted() {
    let fixture = Fixture::new(NORMAL);
    let shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    let sessions = sessions(&fixture);
    let early = moment(&sessions, SOON).await;
    assert_eq!(early.unsure.as_deref(), Some("sessions are still to come back"));
    connected_by_now(&fixture).await;

    shared.set(Word::Begun, 5);
    shared.set(Word::Ended, 4);
    let held = moment(&sessions, SOON).await;
    assert!(held.unsure.is_some_and(|why| why.contains("holds back")));
    shared.set(Word::Copying, 1);
    let waited = moment(&sessions, SOON).await;
    assert_eq!(waited.unsure.as_deref(), Some("a call of smbd takes long"));
    shared.set(Word::Noted, 1);
    shared.set(Word::Ended, 5);
    let waited = moment(&sessions, SOON).await;
    assert!(
        waited
            .unsure
            .is_some_and(|why| why.contains("not in the journal"))
    );
    let asked = tokio::spawn({
        let sessions = Arc::clone(&sessions);
        async move { moment(&sessions, LONG).await }
    });
    tokio::time::sleep(SOON).await;
    assert!(!asked.is_finished());
    module.events(1..=1).await;
    let moment_now = asked.await.expect("runs");
    assert_eq!(moment_now.unsure, None);
    assert_eq!(moment_now.sequence, fixture.journal.status().head);
    let session = Session::from(super::module::session(1));
    assert_eq!(moment_now.writers, [(session, 1)], "a write may be under way");

    assert!(!ended(&sessions, &moment_now, SOON).await);
    let over = tokio::spawn({
        let (sessions, moment) = (Arc::clone(&sessions), moment_now.clone());
        async move { ended(&sessions, &moment, LONG).await }
    });
    tokio::time::sleep(SOON).await;
    shared.set(Word::Running, 2);
    assert!(over.await.expect("runs"));
    let after = moment(&sessions, LONG).await;
    assert_eq!((after.unsure, after.writers), (None, vec![]));
}

async fn ended(sessions: &Arc<IntakeSessions>, moment: &Moment, limit: Duration) -> bool {
    let (sessions, moment) = (Arc::clone(sessions), moment.clone());
    tokio::task::spawn_blocking(move || sessions.ended(&moment, limit))
        .await
        .expect("runs")
}

/// A session that is within a write, which is in the journal.
async fn writing(fixture: &Fixture, shared: &mut Shared) -> Module {
    let mut module = copying(fixture, 1, shared).await;
    assert!(told(&mut module).await);
    for (word, value) in [(Word::Copying, 1), (Word::Running, 1), (Word::Noted, 1)] {
        shared.set(word, value);
    }
    let place = shared.put(b"one");
    module.send(&write(1, 3, Some(place))).await;
    module.acknowledged_in_passing(1).await;
    module
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_way_is_waited_for_though_the_moment_is_unsure() {
    let fixture = Fixture::new(NORMAL);
    let mut shared = Shared::new(RING);
    let _module = writing(&fixture, &mut shared).await;
    let sessions = sessions(&fixture);
    let early = moment(&sessions, SOON).await;
    assert_eq!(early.unsure.as_deref(), Some("sessions are still to come back"));
    assert!(!ended(&sessions, &early, SOON).await);
    shared.set(Word::Running, u64::MAX);
    assert!(ended(&sessions, &early, LONG).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_lost_within_a_write_is_given_the_time_of_a_write_or_says_when_it_is_back() {
    let fixture = Fixture::new(NORMAL);
    let mut shared = Shared::new(RING);
    let mut module = writing(&fixture, &mut shared).await;
    connected_by_now(&fixture).await;
    let sessions = sessions(&fixture);
    let before = moment(&sessions, LONG).await;
    assert_eq!(before.unsure, None);
    let lost = Instant::now();
    module.say_hello("data", 1).await;
    module.assert_closed().await;
    until("it is awaited", || fixture.share.sessions() == (0, 1)).await;
    let after = moment(&sessions, SOON).await;
    assert!(after.unsure.is_some());
    assert!(!ended(&sessions, &before, SOON).await && !ended(&sessions, &after, SOON).await);
    assert!(ended(&sessions, &before, LONG).await && ended(&sessions, &after, LONG).await);
    assert!(lost.elapsed() >= WRITE_ENDED_AFTER);

    let _module = copying(&fixture, 1, &shared).await;
    assert!(!ended(&sessions, &before, SOON).await && !ended(&sessions, &after, SOON).await);
    shared.set(Word::Running, u64::MAX);
    assert!(ended(&sessions, &before, LONG).await && ended(&sessions, &after, LONG).await);
}

/// Gaps in the journal.
fn gaps(fixture: &Fixture) -> Vec<GapReason> {
    let gaps = fixture
        .records()
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Gap { reason, .. } => Some(reason),
            _ => None,
        });
    gaps.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_in_a_call_leaves_a_gap_and_one_that_ends_by_itself_does_not() {
    let fixture = Fixture::new(NORMAL);
    for (n, begun, ended, noted, expected) in [
        (1, 9, 9, 1, &[][..]),
        (2, 9, 8, 1, &[GapReason::Killed]),
        // Noted, and never sent.
        (3, 9, 9, 2, &[GapReason::Killed, GapReason::Killed]),
    ] {
        let shared = Shared::new(RING);
        let mut module = copying(&fixture, n, &shared).await;
        shared.set(Word::Begun, begun);
        shared.set(Word::Ended, ended);
        shared.set(Word::Noted, noted);
        module.events(1..=1).await;
        module.acknowledged_in_passing(1).await;
        drop(module);
        until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
        assert_eq!(gaps(&fixture), expected, "session {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_moment_is_sure_while_a_process_dies_in_its_call() {
    let fixture = Fixture::new(NORMAL);
    let shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    connected_by_now(&fixture).await;
    let sessions = sessions(&fixture);
    shared.set(Word::Copying, 1);
    shared.set(Word::Begun, 1);
    let asked = tokio::spawn({
        let sessions = Arc::clone(&sessions);
        async move { moment(&sessions, LONG).await }
    });
    tokio::time::sleep(SOON).await;
    assert!(!asked.is_finished());
    drop(module);
    let unsure = asked.await.expect("runs").unsure;
    assert!(unsure.is_some_and(|why| why.contains("killed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_begins_with_ranges_makes_for_a_later_moment() {
    let fixture = Fixture::new(NORMAL);
    connected_by_now(&fixture).await;
    let sessions = sessions(&fixture);
    let idle = Shared::new(RING);
    let mut first = copying(&fixture, 1, &idle).await;
    assert!(told(&mut first).await);
    // Has done nothing yet: what it will do is later.
    idle.set(Word::Copying, 1);
    let shared = Shared::new(RING);
    let second = copying(&fixture, 2, &shared).await;
    let asked = tokio::spawn({
        let sessions = Arc::clone(&sessions);
        async move { moment(&sessions, LONG).await }
    });
    tokio::time::sleep(SOON).await;
    assert!(!asked.is_finished());
    // The call that noted what was held back has begun before the moment.
    let switched = monotonic_ns();
    shared.set(Word::Copying, 1);
    let moment = asked.await.expect("runs");
    assert_eq!(moment.unsure, None);
    assert!(moment.clock_ns >= switched);
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_connection_makes_moments_unsure() {
    let fixture = Fixture::new(NORMAL);
    connected_by_now(&fixture).await;
    let sessions = sessions(&fixture);
    assert_eq!(moment(&sessions, SOON).await.unsure, None);
    let name = hex::encode(super::module::session(1).0);
    let left = &fixture.share.left;
    let standing = left.standing.join("data/live").join(&name);
    for file in [
        standing.clone(),
        left.gaps.join("data").join(&name),
        left.spool.join("data").join(&name),
    ] {
        std::fs::create_dir_all(file.parent().expect("has one")).expect("makes");
        let mut seen = false;
        // Before a moment looks it may have been taken in.
        for _ in 0..10 {
            std::fs::write(&file, b"").expect("writes");
            let unsure = moment(&sessions, SOON).await.unsure;
            seen |= unsure.is_some_and(|why| why.contains("without a connection"));
            let _ = std::fs::remove_file(&file);
            if seen {
                break;
            }
        }
        assert!(seen, "{file:?}");
    }
    // Connected, what it has noted is waited for.
    let shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    shared.set(Word::Copying, 1);
    std::fs::write(standing, b"").expect("writes");
    assert_eq!(moment(&sessions, LONG).await.unsure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_vfsxd_gives_up_is_a_session_that_comes_back() {
    let fixture = Fixture::new(NORMAL);
    let mut shared = Shared::new(RING);
    let mut module = copying(&fixture, 1, &shared).await;
    assert!(told(&mut module).await);
    module.say_hello("data", 1).await;
    module.assert_closed().await;
    until("it is awaited", || fixture.share.sessions() == (0, 1)).await;
    let mut module = copying(&fixture, 1, &shared).await;
    let place = shared.put(b"one");
    module.send(&write(1, 3, Some(place))).await;
    module.acknowledged_in_passing(1).await;
    assert_eq!(fixture.share.sessions(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_includes_a_session_that_has_connected_and_said_nothing_yet() {
    let fixture = Fixture::new(NORMAL);
    connected_by_now(&fixture).await;
    let sessions = sessions(&fixture);
    let mut slow = Module::connect(&fixture.socket()).await;
    let asked = tokio::spawn({
        let sessions = Arc::clone(&sessions);
        async move { moment(&sessions, LONG).await }
    });
    tokio::time::sleep(SOON).await;
    assert!(!asked.is_finished());
    slow.say_hello("data", 1).await;
    let unsure = asked.await.expect("runs").unsure;
    assert_eq!(unsure.as_deref(), Some("a session tells no data"));
}
