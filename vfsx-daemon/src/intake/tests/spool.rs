//! What sessions left in the spool.

use super::module::{Module, event, greeting, session};
use super::{Fixture, NORMAL, Settings, until};
use crate::intake::prepare_spool;
use crate::journal::{Body, GapReason, Record, Session, SessionEnd};
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use vfsx_proto::{Hello, MAGIC, PREAMBLE, PROTOCOL_VERSION, ToDaemon, ToModule, encode, preamble};

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
    for (torn, reason, events) in [(true, GapReason::DaemonAbsent, 2), (false, GapReason::Unknown, 0)] {
        let fixture = Fixture::new(NORMAL);
        let mut bytes = file(1, 1..=3, false);
        // A frame that a loss of power has cut.
        bytes.truncate(bytes.len() - 1);
        if !torn {
            bytes[4] ^= 0x40;
        }
        let path = leave(&fixture, 1, &bytes);
        until("the file is dealt with", || !path.exists()).await;
        let gap = format!("gap: {}", reason.text());
        until("the gap is noted", || story(&fixture.records()).contains(&gap)).await;
        until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
        let story = story(&fixture.records());
        assert_eq!(story.contains(&events.to_string()), events > 0, "{story:?}");
        assert!(!story.contains(&"3".to_owned()), "{story:?}");
    }
}

fn of_version(version: u16) -> [u8; PREAMBLE] {
    let [m, a, g, i] = MAGIC;
    let [low, high] = version.to_le_bytes();
    [m, a, g, i, low, high]
}

fn gaps(fixture: &Fixture) -> Vec<(i64, GapReason)> {
    let gap = |record: &Record| match record.body {
        Body::Gap { since_ns, reason } => Some((since_ns, reason)),
        _ => None,
    };
    fixture.records().iter().filter_map(gap).collect()
}

/// An update of vfsxd and the module while clients had changes that vfsxd did not have, or the way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_version_or_with_a_damaged_preamble_is_a_gap_since_nobody_knows_when() {
    let damaged = [b'v', 0, b'S', 0xFF, 6, 0];
    for wrong in [
        of_version(PROTOCOL_VERSION - 1),
        of_version(PROTOCOL_VERSION + 1),
        damaged,
    ] {
        let fixture = Fixture::new(NORMAL);
        let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
        module.events(1..=3).await;
        module.acknowledged(3).await;
        let fixture = fixture.kill_and_restart(NORMAL);
        let mut bytes = file(1, 4..=6, true);
        bytes[..PREAMBLE].copy_from_slice(&wrong);
        let path = leave(&fixture, 1, &bytes);
        until("the file is dealt with", || !path.exists()).await;
        until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
        // What is lost is older than the file's time, by how much nobody knows.
        assert_eq!(gaps(&fixture), [(0, GapReason::Unknown)], "{wrong:?}");
        assert_eq!(events(&fixture), [1, 2, 3], "{wrong:?}");
        // The next session is as any other.
        let (mut module, _) = Module::welcome(&fixture.socket(), 2).await;
        module.events(1..=2).await;
        module.acknowledged(2).await;
        tokio::task::block_in_place(|| fixture.share.tend());
        assert_eq!(gaps(&fixture).len(), 1, "{wrong:?}");
    }
}

/// Its smbd has the old module still, as long as its client stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_version_waits_for_the_end_of_its_session() {
    let fixture = Fixture::new(NORMAL);
    let path = place(&fixture, 1);
    let mut bytes = file(1, 1..=3, true);
    bytes[..PREAMBLE].copy_from_slice(&of_version(PROTOCOL_VERSION - 1));
    let new = path.with_extension("new");
    fs::write(&new, bytes).expect("writes");
    let process = fs::File::open(&new).expect("opens");
    process.try_lock().expect("locks");
    fs::rename(&new, &path).expect("moves");
    until("it is awaited", || fixture.share.sessions() == (0, 1)).await;
    assert!(path.exists());
    assert!(!has_gap(&fixture));
    drop(process);
    until("the file is dealt with", || !path.exists()).await;
    assert_eq!(gaps(&fixture), [(0, GapReason::Unknown)]);
    assert_eq!(fixture.share.sessions(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_had_on_disk_is_taken_in_and_a_gap_stands_for_the_rest() {
    let fixture = Fixture::new(NORMAL);
    let path = leave(&fixture, 1, &file(1, 1..=1_500, false));
    until("the file is dealt with", || !path.exists()).await;
    until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
    let records = fixture.records();
    let mut expected = vec!["start".to_owned()];
    expected.extend((1..=1_500).map(|n| n.to_string()));
    expected.push(format!("gap: {}", GapReason::DaemonAbsent.text()));
    expected.push("end".to_owned());
    assert_eq!(story(&records), expected);
    // What came before is there.
    let since = records.iter().find_map(|record| match record.body {
        Body::Gap { since_ns, .. } => Some(since_ns),
        _ => None,
    });
    assert_eq!(since, Some(event(1_500).time_ns));
}

/// The file of a session that goes on.
struct Kept {
    path: PathBuf,
    _lock: fs::File,
}

fn keep(fixture: &Fixture, n: u8, events: RangeInclusive<u64>) -> Kept {
    let path = place(fixture, n);
    let new = path.with_extension("new");
    fs::write(&new, file(n, events, false)).expect("writes");
    let lock = fs::File::open(&new).expect("opens");
    lock.try_lock().expect("locks");
    fs::rename(&new, &path).expect("moves");
    Kept { path, _lock: lock }
}

async fn hello(fixture: &Fixture, n: u8, spooled: u64) -> Module {
    let mut module = Module::connect(&fixture.socket()).await;
    let hello = Hello {
        spooled,
        ..greeting("data", n)
    };
    module.send(&ToDaemon::Hello(hello)).await;
    module
}

async fn acknowledged(module: &mut Module) -> u64 {
    match module.receive().await {
        ToModule::Welcome(welcome) => welcome.acknowledged,
        other => panic!("no welcome: {other:?}"),
    }
}

fn has_gap(fixture: &Fixture) -> bool {
    let gap = |record: &Record| matches!(record.body, Body::Gap { .. });
    fixture.records().iter().any(gap)
}

fn events(fixture: &Fixture) -> Vec<u64> {
    let records = fixture.records();
    let sequences = records.iter().map(|record| record.session_sequence);
    sequences.filter(|sequence| *sequence > 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_welcomed_when_what_it_has_on_disk_is_in_the_journal() {
    let fixture = Fixture::new(Settings {
        syncing: false,
        ..NORMAL
    });
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=3).await;
    until("they are written", || {
        fixture.journal.written(Session::from(session(1))) == 3
    })
    .await;
    fixture.journal.sync().expect("syncs");
    module.acknowledged(3).await;
    drop(module);
    // The last acknowledgement was not heard, and the keeper is writing one more.
    let kept = keep(&fixture, 1, 3..=2_501);
    let mut module = hello(&fixture, 1, 2_500).await;
    module.assert_nothing_comes().await;
    let journal = fixture.journal.clone();
    until("it is written", || {
        journal.written(Session::from(session(1))) == 2_500
    })
    .await;
    module.assert_nothing_comes().await;
    fixture.journal.sync().expect("syncs");
    assert_eq!(acknowledged(&mut module).await, 2_500);
    assert!(kept.path.exists(), "it is the session's");
    module.events(2_501..=2_502).await;
    until("it is written", || {
        journal.written(Session::from(session(1))) == 2_502
    })
    .await;
    fixture.journal.sync().expect("syncs");
    module.acknowledged(2_502).await;
    assert!(events(&fixture).into_iter().eq(1..=2_502), "once and in order");
    assert!(!has_gap(&fixture));
    // What has been taken in already is not even looked for.
    fs::remove_file(&kept.path).expect("removes");
    let mut again = hello(&fixture, 1, 2_500).await;
    assert_eq!(acknowledged(&mut again).await, 2_502);
    assert!(!has_gap(&fixture));
}

/// Events that come by connections find room, and vfsxd's memory does not grow with the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_waits_for_room_in_the_journal_and_is_no_gap() {
    const MAX: u64 = 512 << 10;
    const EVENTS: u64 = 8_000;
    let fixture = Fixture::new(Settings {
        journal_max: MAX,
        ..NORMAL
    });
    let _kept = keep(&fixture, 1, 1..=EVENTS);
    let left = leave(&fixture, 2, &file(2, 1..=EVENTS, true));
    let mut module = hello(&fixture, 1, EVENTS).await;
    module.assert_nothing_comes().await;
    let (mut other, _) = Module::welcome(&fixture.socket(), 3).await;
    other.events(1..=10).await;
    other.acknowledged(10).await;
    let status = fixture.journal.status();
    assert!(status.bytes > MAX / 4 && status.bytes < MAX * 3 / 4, "{status:?}");
    assert!(left.exists());
    // What the catalog does, and the share's upkeep.
    let (journal, trimming) = (fixture.journal.clone(), tokio::sync::oneshot::channel::<()>());
    let trimmed = tokio::task::spawn_blocking(move || {
        let mut end = trimming.1;
        while end.try_recv().is_err() {
            journal.trim(journal.status().synced).expect("trims");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    });
    assert_eq!(acknowledged(&mut module).await, EVENTS);
    until("the other file is dealt with", || !left.exists()).await;
    trimming.0.send(()).expect("it trims");
    trimmed.await.expect("ends");
    assert_eq!(fixture.journal.acknowledged(Session::from(session(2))), EVENTS);
    assert_eq!(fixture.share.gap_after(0), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_file_is_gone_or_too_short_is_welcomed_with_a_gap() {
    for there in [false, true] {
        let fixture = Fixture::new(NORMAL);
        let _kept = there.then(|| keep(&fixture, 1, 1..=2));
        let mut module = hello(&fixture, 1, 3).await;
        assert_eq!(acknowledged(&mut module).await, 3, "it has no more to wait for");
        assert!(has_gap(&fixture));
        assert_eq!(events(&fixture).len(), if there { 2 } else { 0 });
        module.events(4..=5).await;
        module.acknowledged(5).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_not_wait_for_its_welcome_is_one_that_comes_back() {
    let fixture = Fixture::new(Settings {
        syncing: false,
        ..NORMAL
    });
    let _kept = keep(&fixture, 1, 1..=100);
    let module = hello(&fixture, 1, 100).await;
    let written = || fixture.journal.written(Session::from(session(1))) == 100;
    until("it is written", written).await;
    drop(module);
    let barriers = fixture.intake.barriers();
    tokio::time::timeout(super::PATIENCE, barriers.handshakes.ended_before_now())
        .await
        .expect("nobody waits for it");
    assert_eq!(fixture.share.sessions(), (0, 1));
    fixture.journal.sync().expect("syncs");
    let mut module = hello(&fixture, 1, 100).await;
    assert_eq!(acknowledged(&mut module).await, 100);
    assert!(events(&fixture).into_iter().eq(1..=100));
}

/// By a tending, say, which then removes the file.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_in_while_a_session_waits_for_its_turn_is_no_gap() {
    let fixture = Fixture::new(NORMAL);
    let kept = keep(&fixture, 1, 1..=10);
    let (hold, held) = (std::sync::mpsc::channel::<()>(), tokio::sync::oneshot::channel());
    let share = fixture.share.clone();
    let turn = tokio::task::spawn_blocking(move || {
        let _turn = share.spooling.lock().expect("no panic");
        held.0.send(()).expect("the test waits");
        // Until it is dropped.
        let _ = hold.1.recv();
    });
    held.1.await.expect("held");
    let mut waiting = hello(&fixture, 1, 10).await;
    waiting.assert_nothing_comes().await;
    let (mut other, _) = Module::welcome(&fixture.socket(), 1).await;
    other.events(1..=10).await;
    other.acknowledged(10).await;
    fs::remove_file(&kept.path).expect("removes");
    drop(hold.0);
    turn.await.expect("ends");
    assert_eq!(acknowledged(&mut waiting).await, 10);
    assert!(!has_gap(&fixture));
    // The newer connection stays the session's.
    waiting.assert_closed().await;
    other.events(11..=11).await;
    other.acknowledged(11).await;
}

/// A session that is without vfsxd again and again, with what it has on disk and what it has in memory.
#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_many_absences_is_taken_once_and_in_order() {
    for seed in 1..=4u64 {
        let mut random = seed;
        // A linear congruential generator.
        let mut below = move |n: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        // Nobody trims it.
        let settings = Settings {
            journal_max: 64 << 20,
            ..NORMAL
        };
        let mut fixture = Fixture::new(settings);
        let mut known = 0;
        for _ in 0..12 {
            // Some that vfsxd has already are in the file, too, and some behind those that the session speaks of.
            let first = known + 1 - below(known.min(5) + 1);
            let spooled = known + 1 + below(1_500);
            let kept = keep(&fixture, 1, first..=spooled + below(3));
            let impatient = hello(&fixture, 1, spooled).await;
            if below(2) == 0 {
                drop(impatient);
            }
            let mut module = hello(&fixture, 1, spooled).await;
            assert_eq!(acknowledged(&mut module).await, spooled, "seed {seed}");
            known = spooled + below(50);
            if known > spooled {
                module.events(spooled + 1..=known).await;
                module.acknowledged(known).await;
            }
            fs::remove_file(&kept.path).expect("removes");
            if below(3) == 0 {
                fixture = fixture.kill_and_restart(settings);
            }
        }
        assert!(events(&fixture).into_iter().eq(1..=known), "seed {seed}");
        assert!(!has_gap(&fixture), "seed {seed}");
    }
}

#[test]
fn each_share_has_a_directory_and_one_that_is_gone_has_none_once_it_is_empty() {
    let scratch = tempfile::tempdir().expect("scratch");
    let spool = scratch.path();
    let names = || {
        let entries = fs::read_dir(spool)
            .expect("reads")
            .map(|entry| entry.expect("entry"));
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    prepare_spool(spool, &["data", "more"]).expect("makes");
    assert_eq!(names(), ["data", "more"]);
    prepare_spool(spool, &["DATA"]).expect("removes");
    assert_eq!(names(), ["data"], "Samba does not tell names apart by case");
    fs::write(spool.join("data/left"), "events").expect("writes");
    prepare_spool(spool, &[]).expect("leaves it");
    assert_eq!(names(), ["data"]);
}

/// Its file waits for the journal for longer than a session is given to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_file_is_still_there_was_not_killed() {
    let fixture = Fixture::new(Settings {
        syncing: false,
        ..NORMAL
    });
    let (mut module, _) = Module::welcome(&fixture.socket(), 1).await;
    module.events(1..=1).await;
    let path = leave(&fixture, 1, &file(1, 1..=2, true));
    drop(module);
    until("the connection has ended", || fixture.share.sessions() == (0, 1)).await;
    // The one that the connection's end has begun waits for the journal.
    until("it was tended", || {
        let later = std::time::Instant::now() + super::super::COMES_BACK_WITHIN * 2;
        fixture.share.tend_as_of(later)
    })
    .await;
    assert!(path.exists() && fixture.share.sessions() == (0, 1));
    fixture.journal.sync().expect("syncs");
    until("the file is dealt with", || {
        fixture.journal.sync().expect("syncs");
        !path.exists()
    })
    .await;
    until("the session has ended", || fixture.share.sessions() == (0, 0)).await;
    assert_eq!(story(&fixture.records()), ["start", "1", "2", "end"]);
}
