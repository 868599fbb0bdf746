//! Events that are held back: whatever happens, vfsxd finds each of them in the socket or in the outbox.

use super::tests::{Connection, Daemon, config, event, hello, host};
use super::*;
use proptest::prelude::*;
use vfsx_proto::ring::OUTBOX;
use vfsx_proto::{Decoder, Durability};

/// Longer than a test takes: what is sent was not sent because of the time.
const LONG: Duration = Duration::from_secs(600);

struct Stand {
    _dir: tempfile::TempDir,
    daemon: Daemon,
    connection: Connection,
    client: Client,
}

fn stand(durability: Durability) -> Stand {
    let dir = tempfile::tempdir().expect("scratch directory");
    let daemon = Daemon::start(dir.path());
    let config = Config {
        hold: LONG,
        durability,
        ..config(dir.path(), 1 << 20)
    };
    let mut client = Client::new(config, host(), hello());
    let mut connection = daemon.accept();
    connection.welcome(0);
    client.flush();
    assert!(client.is_up());
    Stand {
        _dir: dir,
        daemon,
        connection,
        client,
    }
}

impl Stand {
    fn note(&mut self, n: u64) {
        self.client.note(event(n));
        self.client.flush();
    }

    fn in_outbox(&self) -> Vec<u64> {
        let mut decoder = Decoder::default();
        decoder.push(&self.connection.memory.as_ref().expect("shared").outbox());
        let mut sequences = Vec::new();
        while let Some(message) = decoder.next().expect("whole frames") {
            let ToDaemon::Events(events) = message else {
                panic!("events only")
            };
            sequences.extend(events.iter().map(|event| event.sequence));
        }
        sequences
    }
}

#[test]
fn an_event_waits_in_the_outbox_and_is_sent_when_its_time_has_come() {
    let mut stand = stand(Durability::Noted);
    stand.note(1);
    stand.note(2);
    assert_eq!(stand.in_outbox(), [1, 2]);
    assert!(!stand.connection.has_news());
    let due = stand.client.held_until().expect("it is to be sent");
    assert!(stand.client.deadline().is_some_and(|deadline| deadline <= due));
    stand.client.tick(due);
    assert_eq!(stand.connection.sequences(2), [1, 2]);
    assert!(stand.in_outbox().is_empty());
    stand.note(3);
    assert_eq!(stand.in_outbox(), [3]);
}

#[test]
fn an_outbox_that_fills_is_sent_before_it_is_full() {
    let mut stand = stand(Durability::Noted);
    let mut noted = 0;
    while !stand.connection.has_first() {
        noted += 1;
        stand.note(noted);
        assert!(noted < OUTBOX, "never sent");
    }
    assert!(stand.in_outbox().is_empty());
    assert!(
        stand
            .connection
            .sequences(noted as usize)
            .into_iter()
            .eq(1..=noted)
    );
}

/// It is longer than the outbox.
#[test]
fn a_long_event_is_sent_at_once_with_those_before_it() {
    let mut stand = stand(Durability::Noted);
    stand.note(1);
    stand.client.note(Event::Look {
        dir: vfsx_proto::DirRef {
            node: vfsx_proto::NodeRef {
                dev: 1,
                ino: 1,
                btime_ns: 1,
            },
            path_hint: vec![b'x'; OUTBOX as usize],
        },
        name: b"n".to_vec(),
    });
    stand.client.note(event(3));
    stand.client.flush();
    assert_eq!(stand.connection.sequences(3), [1, 2, 3]);
    stand.note(4);
    assert_eq!(stand.in_outbox(), [4]);
}

#[test]
fn who_asks_for_what_is_held_back_gets_it_at_once() {
    let mut stand = stand(Durability::Noted);
    stand.note(1);
    stand.connection.send(&ToModule::SendNow { token: 9 });
    assert_eq!(stand.client.readable(), [Request::SendNow { token: 9 }]);
    stand.client.answer(9);
    stand.client.flush();
    assert_eq!(stand.connection.sequences(1), [1]);
    assert_eq!(stand.connection.message(), ToDaemon::Sent { token: 9 });
}

#[test]
fn the_end_of_a_tree_connect_leaves_nothing_in_the_outbox() {
    let mut stand = stand(Durability::Noted);
    stand.note(1);
    stand.client.finish(Duration::ZERO, false);
    assert_eq!(stand.connection.sequences(1), [1]);
}

#[test]
fn nothing_is_held_where_clients_wait_for_it() {
    let mut stand = stand(Durability::Journal);
    stand.note(1);
    assert_eq!(stand.connection.sequences(1), [1]);
    assert!(stand.in_outbox().is_empty());
}

/// vfsxd has read the outbox of an smbd that stood still.
#[test]
fn what_was_acknowledged_before_it_was_sent_leaves_no_hole() {
    let mut stand = stand(Durability::Noted);
    for n in 1..=5 {
        stand.note(n);
    }
    stand.connection.send(&ToModule::Ack { sequence: 5 });
    stand.client.readable();
    for n in 6..=11 {
        stand.client.note(event(n));
        let outbox = stand.in_outbox();
        assert!(outbox.iter().copied().eq(1..=n), "{outbox:?}");
    }
}

#[test]
fn nothing_is_held_for_a_vfsxd_that_does_not_read_the_memory() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let daemon = Daemon::start(dir.path());
    let config = Config {
        hold: LONG,
        ..config(dir.path(), 1 << 20)
    };
    let mut client = Client::new(config, host(), hello());
    let mut connection = daemon.accept();
    connection.send(&ToModule::Welcome(vfsx_proto::Welcome {
        acknowledged: 0,
        memory: false,
    }));
    client.flush();
    client.note(event(1));
    client.flush();
    assert_eq!(connection.sequences(1), [1]);
}

#[test]
fn what_is_due_is_sent_with_the_next_call_when_no_timer_comes() {
    let mut stand = stand(Durability::Noted);
    stand.client.config.hold = Duration::from_nanos(1);
    stand.note(1);
    stand.client.flush();
    assert_eq!(stand.connection.sequences(1), [1]);
}

#[test]
fn a_new_connection_is_given_what_the_lost_one_was_not() {
    let mut stand = stand(Durability::Noted);
    stand.note(1);
    stand.client.tick(Instant::now() + LONG);
    stand.note(2);
    stand.connection.close();
    stand.client.readable();
    assert!(!stand.client.is_up());
    stand.note(3);
    assert!(stand.in_outbox().is_empty(), "nobody would read it");
    while let Some(at) = stand
        .client
        .deadline()
        .filter(|_| stand.client.watch().1.is_none())
    {
        stand.client.tick(at);
    }
    let mut connection = stand.daemon.accept();
    connection.welcome(1);
    stand.client.flush();
    assert_eq!(connection.sequences(2), [2, 3]);
}

#[derive(Debug, Clone)]
enum Step {
    Note,
    Flush,
    Due,
    Acknowledge,
    /// vfsxd reads what is there.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Note),
        4 => Just(Step::Flush),
        1 => Just(Step::Due),
        1 => Just(Step::Acknowledge),
        2 => Just(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whenever_the_process_is_killed_vfsxd_finds_all_that_was_flushed_and_no_hole(steps in prop::collection::vec(step(), 0..600)) {
        let mut stand = stand(Durability::Noted);
        let (mut noted, mut flushed, mut received) = (0u64, 0u64, 0u64);
        for step in steps {
            match step {
                Step::Note => {
                    noted += 1;
                    stand.client.note(event(noted));
                }
                Step::Flush => {
                    stand.client.flush();
                    flushed = noted;
                }
                Step::Due => {
                    stand.client.tick(Instant::now() + LONG);
                }
                Step::Acknowledge => {
                    stand.connection.send(&ToModule::Ack { sequence: received });
                    stand.client.readable();
                }
                Step::Read => received = received.max(stand.connection.read_all().unwrap_or(0)),
            }
            // What vfsxd would find now, after it has read the socket to its end.
            received = received.max(stand.connection.read_all().unwrap_or(0));
            let outbox = stand.in_outbox();
            prop_assert!(outbox.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            prop_assert!(outbox.first().is_none_or(|first| *first <= received + 1), "a hole");
            let found = received.max(outbox.last().copied().unwrap_or(0));
            prop_assert!(found >= flushed, "{found} of {flushed}");
        }
    }
}
