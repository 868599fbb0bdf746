//! Sessions: acknowledgements, restarts, duplicates, refusals.

use super::module::{Module, event, session};
use super::{Fixture, NORMAL, Settings, until};
use crate::journal::{Body, GapReason, Record, Session, SessionEnd};
use std::os::unix::process::CommandExt;
use std::time::Instant;
use vfsx_proto::{Refusal, ToDaemon, ToModule};

fn events(records: &[Record]) -> Vec<u64> {
    records
        .iter()
        .map(|r| r.session_sequence)
        .filter(|s| *s > 0)
        .collect()
}

fn ends(records: &[Record]) -> Vec<SessionEnd> {
    let end = |r: &Record| match r.body {
        Body::SessionEnded { how } => Some(how),
        _ => None,
    };
    records.iter().filter_map(end).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_acknowledged_only_after_it_is_synced() {
    let fixture = Fixture::new(Settings {
        syncing: false,
        ..NORMAL
    });
    let (mut module, acknowledged) = Module::welcome(&fixture.socket(), 1).await;
    assert_eq!(acknowledged, 0);
    module.events(1..=3).await;
    until("the journal has them", || fixture.journal.status().head == 4).await;
    module.assert_nothing_comes().await;
    fixture.journal.sync().expect("syncs");
    module.acknowledged(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_session_goes_on_where_the_disk_is() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=10).await;
    module.acknowledged(10).await;

    let fixture = fixture.kill_and_restart(NORMAL);
    module.assert_closed().await;
    let (mut module, acknowledged) = Module::welcome(&fixture.socket(), 1).await;
    assert_eq!(acknowledged, 10);
    // A module that did not hear the last acknowledgements sends more than needed.
    module.events(7..=12).await;
    module.acknowledged(12).await;
    let records = fixture.records();
    assert_eq!(
        events(&records),
        (1..=12).collect::<Vec<_>>(),
        "no duplicates, no holes"
    );
    assert_eq!(ends(&records), [], "the session never ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_on_disk_already_is_acknowledged_when_it_is_sent_again() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=5).await;
    module.acknowledged(5).await;
    let (mut again, acknowledged) = Module::welcome(&fixture.socket(), 1).await;
    assert_eq!(acknowledged, 5);
    module.assert_closed().await;
    again.events(4..=5).await;
    again.events(6..=6).await;
    again.acknowledged(6).await;
    assert_eq!(
        ends(&fixture.records()),
        [],
        "a newer connection takes the place of the old one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_connection_ends_its_session() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=2).await;
    drop(module);
    until("the session has ended", || {
        fixture.journal.open_sessions().is_empty()
    })
    .await;
    let records = fixture.records();
    assert_eq!(events(&records), [1, 2], "what was sent before the end is taken");
    assert_eq!(ends(&records), [SessionEnd::Closed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_not_come_back_after_a_restart_was_killed() {
    let fixture = Fixture::new(NORMAL);
    let (mut gone, _) = Module::welcome(&fixture.socket(), 1).await;
    let (mut back, _) = Module::welcome(&fixture.socket(), 2).await;
    gone.events(1..=1).await;
    gone.acknowledged(1).await;
    back.events(1..=1).await;
    back.acknowledged(1).await;

    let fixture = fixture.kill_and_restart(NORMAL);
    let (_back, _) = Module::welcome(&fixture.socket(), 2).await;
    fixture.share.tend_as_of(Instant::now());
    assert_eq!(ends(&fixture.records()), [], "it still may");
    fixture
        .share
        .tend_as_of(Instant::now() + super::super::COMES_BACK_WITHIN);
    assert_eq!(ends(&fixture.records()), [SessionEnd::NotBack]);
    assert_eq!(fixture.journal.open_sessions(), [Session::from(session(2))]);
    let gap = fixture.share.gap_after(0).expect("nobody knows what it did last");
    assert_eq!(gap.reason, GapReason::Killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_while_vfsxd_was_away_and_left_word_is_not_waited_for() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=3).await;
    module.acknowledged(3).await;

    let fixture = fixture.kill_and_restart(NORMAL);
    let live = fixture.share.left.standing.join("data/live");
    std::fs::create_dir_all(&live).expect("makes");
    let word = live.join(hex::encode(session(1).0));
    let line = r#"{"since_ns":7,"reason":"DaemonAbsent","pid":3,"last":3}"#;
    std::fs::write(&word, line).expect("writes");
    let locked = std::fs::File::open(&word).expect("opens");
    locked.lock().expect("its process still writes");
    fixture.share.tend_as_of(Instant::now());
    assert_eq!(fixture.share.sessions(), (0, 1));

    drop(locked);
    fixture.share.tend_as_of(Instant::now());
    assert_eq!(fixture.share.sessions(), (0, 0));
    assert_eq!(ends(&fixture.records()), [SessionEnd::Closed]);
    assert_eq!(fixture.share.gap_after(0), None);
    assert!(!word.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_a_session_is_a_gap() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=1).await;
    module.events(3..=3).await;
    module.acknowledged(3).await;
    let holes = fixture.records().into_iter().filter(|r| {
        matches!(
            r.body,
            Body::Gap {
                reason: GapReason::SessionHole,
                ..
            }
        )
    });
    assert_eq!(holes.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_closes_its_connection_and_no_other() {
    let fixture = Fixture::new(NORMAL);
    let (mut good, _) = Module::welcome(&fixture.socket(), 1).await;
    let (mut bad, _) = Module::welcome(&fixture.socket(), 2).await;
    tokio::io::AsyncWriteExt::write_all(&mut bad.stream, &[0xFF; 64])
        .await
        .expect("writes");
    bad.assert_closed().await;
    let mut early = Module::connect(&fixture.socket()).await;
    early.send(&ToDaemon::Sent { token: 1 }).await;
    early.assert_closed().await;
    good.events(1..=1).await;
    good.acknowledged(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_share_is_refused_by_name_and_case_does_not_matter() {
    let fixture = Fixture::new(NORMAL);
    let (mut module, answer) = Module::hello(&fixture.socket(), "other", 1).await;
    assert_eq!(
        answer,
        ToModule::Refused(Refusal::UnknownShare {
            share: "other".into()
        })
    );
    module.assert_closed().await;
    let (_module, answer) = Module::hello(&fixture.socket(), "DATA", 1).await;
    assert!(matches!(answer, ToModule::Welcome(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_not_allowed_is_turned_away() {
    let fixture = Fixture::new(Settings {
        allow: 12_345,
        ..NORMAL
    });
    let mut module = Module::connect(&fixture.socket()).await;
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(
        module.receive().await,
        ToModule::Refused(Refusal::NotAllowed { uid })
    );
    module.assert_closed().await;
    assert_eq!(fixture.journal.status().head, 0);
}

const NOBODY: u32 = 65_534;
const SOCKET: &str = "VFSX_TEST_SOCKET";

/// A real process of another user, which even has permission on the socket file.
#[tokio::test(flavor = "multi_thread")]
async fn an_unprivileged_process_is_turned_away() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become someone else; `a_user_that_is_not_allowed_is_turned_away` has covered the check.
        return;
    }
    let fixture = Fixture::new(NORMAL);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(fixture.socket(), open).expect("mode");
    let mut child = std::process::Command::new("/proc/self/exe");
    child.uid(NOBODY).gid(NOBODY).env(SOCKET, fixture.socket());
    child.args([
        "--ignored",
        "--exact",
        &format!("{CHILD_MODULE}::child_that_says_hello"),
    ]);
    let output = tokio::task::spawn_blocking(move || child.output().expect("runs"))
        .await
        .expect("joins");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(fixture.journal.status().head, 0);
}

/// This module as the test runner names it.
const CHILD_MODULE: &str = {
    let path = module_path!();
    let (_, in_crate) = path.split_at(crate_name_length(path));
    in_crate
};

const fn crate_name_length(path: &str) -> usize {
    let bytes = path.as_bytes();
    let mut at = 0;
    while bytes[at] != b':' {
        at += 1;
    }
    at + 2
}

#[tokio::test]
#[ignore = "runs as another user, from an_unprivileged_process_is_turned_away"]
async fn child_that_says_hello() {
    assert_eq!(rustix::process::geteuid().as_raw(), NOBODY);
    let socket = std::env::var_os(SOCKET).expect("given by the parent");
    let mut module = Module::connect(socket.as_ref()).await;
    assert_eq!(
        module.receive().await,
        ToModule::Refused(Refusal::NotAllowed { uid: NOBODY })
    );
    module.assert_closed().await;
}

/// One worker, kept from its work until all has happened: it then finds the acknowledgement, which nobody hears any
/// more, before it looks at the socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_module_sent_before_it_closed_is_taken_though_it_hears_no_acknowledgement() {
    // More than is read at once, and less than the socket holds.
    const EVENTS: u64 = 2_500;
    let fixture = Fixture::new(Settings {
        journal_max: 64 << 20,
        syncing: false,
        ..NORMAL
    });
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    let session = Session::from(session(1));
    module.events(1..=10).await;
    until("the first are read", || fixture.journal.written(session) == 10).await;

    let (stalled, is_stalled) = std::sync::mpsc::channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let stall = tokio::spawn(async move {
        stalled.send(()).expect("the test waits");
        wait.recv().expect("the test goes on");
    });
    is_stalled.recv().expect("the worker is stalled");
    for first in (11..=EVENTS).step_by(499) {
        let events = (first..(first + 499).min(EVENTS + 1)).map(event).collect();
        let mut frame = Vec::new();
        vfsx_proto::encode(&ToDaemon::Events(events), &mut frame).expect("encodes");
        assert_eq!(module.stream.try_write(&frame).expect("room"), frame.len());
    }
    drop(module);
    fixture.journal.sync().expect("syncs");
    go_on.send(()).expect("the worker waits");
    stall.await.expect("ends");

    until("all events are in the journal", || {
        fixture.journal.written(session) == EVENTS
    })
    .await;
    until("all sessions have ended", || fixture.share.sessions() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_closes_before_its_welcome_leaves_no_session_behind() {
    let fixture = Fixture::new(NORMAL);
    for n in 1..=40 {
        let mut module = Module::connect(&fixture.socket()).await;
        module.say_hello("data", n).await;
    }
    let (barriers, share) = (fixture.intake.barriers(), fixture.share.clone());
    let deadline = tokio::time::Instant::now() + super::PATIENCE;
    barriers
        .barrier(&share, deadline)
        .await
        .expect("nobody is waited for");
    until("all sessions have ended", || fixture.share.sessions() == (0, 0)).await;
}

const FEW: Settings = Settings {
    sessions_max: 2,
    ..NORMAL
};

/// A session that finds no place hears nothing, like one without vfsxd, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_too_many_is_turned_away_waited_for_and_taken_when_there_is_a_place() {
    let fixture = Fixture::new(FEW);
    let (mut first, _) = Module::welcome(&fixture.socket(), 1).await;
    let (_second, _) = Module::welcome(&fixture.socket(), 2).await;
    let places = || fixture.intake.barriers().places();
    for round in 1..=3 {
        let mut third = Module::connect(&fixture.socket()).await;
        third.say_hello("data", 3).await;
        third.assert_closed().await;
        assert_eq!(places().turned_away, round);
    }
    assert_eq!(fixture.share.sessions(), (2, 1), "what it holds is missing");
    let now = Instant::now();
    fixture
        .share
        .tend_as_of(now + super::super::COMES_BACK_WITHIN / 2);
    assert_eq!(fixture.share.sessions(), (2, 1), "it has not ended");
    // Those that have a place are served as ever, and one of them comes back on its own.
    first.events(1..=2).await;
    first.acknowledged(2).await;
    let (mut first, acknowledged) = {
        drop(first);
        until("its place is free", || places().sessions == 1).await;
        Module::welcome(&fixture.socket(), 1).await
    };
    assert_eq!(acknowledged, 2);
    first.events(3..=3).await;
    first.acknowledged(3).await;
    drop(first);
    until("its place is free", || places().sessions == 1).await;

    let (mut third, acknowledged) = Module::welcome(&fixture.socket(), 3).await;
    assert_eq!(acknowledged, 0);
    third.events(1..=5).await;
    third.acknowledged(5).await;
    assert_eq!(fixture.share.sessions(), (2, 0));
    let of_third = |r: &&Record| r.session == Session::from(session(3)) && r.session_sequence > 0;
    assert_eq!(
        fixture.records().iter().filter(of_third).count(),
        5,
        "nothing is lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_comes_back_after_it_was_turned_away_is_waited_for_no_longer() {
    let fixture = Fixture::new(Settings {
        sessions_max: 1,
        ..NORMAL
    });
    let (_first, _) = Module::welcome(&fixture.socket(), 1).await;
    let mut second = Module::connect(&fixture.socket()).await;
    second.say_hello("data", 2).await;
    second.assert_closed().await;
    fixture
        .share
        .tend_as_of(Instant::now() + super::super::COMES_BACK_WITHIN);
    assert_eq!(fixture.share.sessions(), (1, 0));
}

/// They take no places, and end soon.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_no_session_out() {
    let fixture = Fixture::new(FEW);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Module::connect_bare(&fixture.socket()).await);
    }
    Module::welcome(&fixture.socket(), 1).await;
    assert_eq!(fixture.intake.barriers().places().turned_away, 0);
}
