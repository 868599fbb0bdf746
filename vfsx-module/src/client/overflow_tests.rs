//! A ring that fills while vfsxd is away, a disk that fails or hangs: vfsxd ends with every event once and in order, or with a gap.

use super::absence::KEEPER_LIMIT;
use super::tests::{
    Connection, Daemon, NOTHING, PATIENCE, config, connected, event, hello, host, make_spool, reconnect,
    traces, word,
};
use super::*;
use proptest::prelude::*;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vfsx_proto::{Decoder, NodeRef, PREAMBLE, Stamped};

/// Some dozens of events.
const RING: usize = 8192;

/// What a vfsxd has on its disk.
#[derive(Default)]
struct Journal {
    events: Vec<u64>,
    has_gap: bool,
}

/// A spool file as vfsxd reads it.
struct Spooled {
    events: Vec<Stamped>,
    /// The session is over.
    end: Option<u64>,
}

impl Spooled {
    fn sequences(&self) -> impl Iterator<Item = u64> {
        self.events.iter().map(|event| event.sequence)
    }
}

impl Journal {
    fn newest(&self) -> u64 {
        self.events.last().copied().unwrap_or(0)
    }

    fn take(&mut self, events: &[Stamped]) {
        for stamped in events {
            if stamped.sequence > self.newest() {
                let next = self.newest() + 1;
                assert_eq!(stamped.sequence, next, "a hole that no gap tells of");
                self.has_gap |= matches!(stamped.event, Event::Gap { .. });
                self.events.push(next);
            }
        }
    }

    /// As a vfsxd does it before the welcome.
    fn take_spooled(&mut self, dir: &Path, up_to: u64) {
        if up_to <= self.newest() {
            return;
        }
        let spooled = read(dir).expect("the file that the client speaks of");
        self.take(&spooled.events);
        assert!(self.newest() >= up_to, "{} of {up_to}", self.newest());
    }

    /// What it finds when the process has ended.
    fn take_left(&mut self, dir: &Path) {
        if let Some(spooled) = read(dir) {
            let file = fs::File::open(place(dir)).expect("it is there");
            file.try_lock().expect("the process has ended");
            self.take(&spooled.events);
            self.has_gap |= spooled.end != Some(self.newest());
        }
        let flags = traces(dir)
            .into_iter()
            .filter(|path| !path.starts_with(dir.join("state/spool")));
        self.has_gap |= flags.count() > 0;
    }
}

fn place(dir: &Path) -> PathBuf {
    dir.join("state/spool/data").join("07".repeat(16))
}

/// All whole frames.
fn read(dir: &Path) -> Option<Spooled> {
    let bytes = fs::read(place(dir)).ok()?;
    let (head, frames) = bytes.split_at(PREAMBLE);
    assert_eq!(head, preamble());
    let mut decoder = Decoder::default();
    decoder.push(frames);
    assert_eq!(decoder.next(), Ok(Some(ToDaemon::Hello(hello()))));
    let mut spooled = Spooled {
        events: Vec::new(),
        end: None,
    };
    while let Some(message) = decoder.next().expect("well formed") {
        assert_eq!(spooled.end, None, "nothing comes after the end");
        match message {
            ToDaemon::Events(events) => spooled.events.extend(events),
            ToDaemon::Sent { token } => spooled.end = Some(token),
            other => panic!("{other:?}"),
        }
    }
    Some(spooled)
}

fn alone(dir: &Path) -> Client {
    make_spool(dir);
    Client::new(config(dir, RING), host(), hello())
}

/// Whatever the keeper was asked to do is done, and the client has heard of it.
fn rest(client: &mut Client) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.overflow();
        if client
            .overflow
            .keeper
            .as_ref()
            .is_none_or(|keeper| keeper.under_way() == 0)
        {
            return;
        }
        assert!(Instant::now() < deadline, "the keeper is not done");
        std::thread::yield_now();
        client.look_at_keeper();
    }
}

/// Many times what the ring holds.
fn note(client: &mut Client, events: std::ops::RangeInclusive<u64>) {
    for n in events {
        client.note(event(n));
        client.flush();
        rest(client);
    }
}

/// vfsxd comes back, and takes everything.
fn take_all(client: &mut Client, daemon: &Daemon, dir: &Path, journal: &mut Journal) -> Connection {
    reconnect(client);
    let mut connection = daemon.accept();
    journal.take_spooled(dir, connection.spooled);
    connection.welcome(journal.newest());
    let deadline = Instant::now() + PATIENCE;
    while !client.is_settled() {
        assert!(
            Instant::now() < deadline,
            "{} of {}",
            journal.newest(),
            client.ring.last()
        );
        client.flush();
        client.tick(Instant::now());
        receive(&mut connection, journal);
        connection.send(&ToModule::Ack {
            sequence: journal.newest(),
        });
        client.readable();
    }
    connection
}

fn receive(connection: &mut Connection, journal: &mut Journal) {
    journal.take(&connection.events_here());
}

#[test]
fn what_the_ring_cannot_hold_goes_to_disk_and_is_no_gap() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = alone(dir.path());
    note(&mut client, 1..=5000);
    assert_eq!(client.lost, None);
    let file = fs::File::open(place(dir.path())).expect("the spool file");
    assert!(
        file.try_lock().is_err(),
        "vfsxd would take it for that of a session that is over"
    );

    let daemon = Daemon::start(dir.path());
    let mut journal = Journal::default();
    let connection = take_all(&mut client, &daemon, dir.path(), &mut journal);
    assert!(connection.spooled > 4000);
    assert!(journal.events.iter().copied().eq(1..=5000));
    assert!(!journal.has_gap);
    rest(&mut client);
    assert_eq!(traces(dir.path()), NOTHING, "nothing stays");
    client.finish(PATIENCE, false);
    assert_eq!(traces(dir.path()), word(dir.path()));
}

/// Else it might be full before vfsxd, which has all on disk, says so.
#[test]
fn a_ring_that_is_half_full_is_told_at_once_what_it_need_not_keep() {
    let (_dir, _daemon, mut connection, mut client) = connected(RING);
    while client.ring.has_room() {
        client.note(event(1));
        client.flush();
    }
    client.flush();
    let (mut told, mut asked) = (0, 0);
    while told < client.ring.last() || asked == 0 {
        match connection.message() {
            ToDaemon::Events(events) => told += events.len() as u64,
            other => {
                assert_eq!(other, ToDaemon::AckNow);
                asked += 1;
            }
        }
    }
    client.flush();
    assert_eq!(asked, 1);
    assert!(!connection.has_news(), "once is enough");
}

#[test]
fn an_end_puts_the_rest_behind_what_is_on_disk_already_and_says_that_it_is_all() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = alone(dir.path());
    note(&mut client, 1..=500);
    client.finish(Duration::ZERO, false);
    let spooled = read(dir.path()).expect("the spool file");
    assert!(spooled.sequences().eq(1..=500));
    assert_eq!(spooled.end, Some(500));
    assert_eq!(traces(dir.path()), [place(dir.path())], "no flag");
}

#[test]
fn a_process_that_is_killed_leaves_whole_frames_without_a_lock_and_without_an_end() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = alone(dir.path());
    note(&mut client, 1..=500);
    drop(client);
    let deadline = Instant::now() + PATIENCE;
    let file = fs::File::open(place(dir.path())).expect("the spool file");
    while file.try_lock().is_err() {
        assert!(Instant::now() < deadline, "the lock outlives the session");
        std::thread::yield_now();
    }
    let spooled = read(dir.path()).expect("the spool file");
    assert_eq!(spooled.end, None);
    let count = spooled.events.len() as u64;
    assert!(count > 300 && spooled.sequences().eq(1..=count));
}

#[test]
fn a_file_that_is_full_or_cannot_be_made_is_a_gap_and_what_is_there_counts() {
    for made in [true, false] {
        let dir = tempfile::tempdir().expect("scratch directory");
        let mut config = config(dir.path(), RING);
        config.spool_max = 10_000;
        if made {
            make_spool(dir.path());
        }
        let mut client = Client::new(config, host(), hello());
        let deadline = Instant::now() + PATIENCE;
        let mut noted = 0;
        while client.lost.is_none() {
            assert!(Instant::now() < deadline, "it never ends");
            noted += 1;
            note(&mut client, noted..=noted);
        }
        let length = fs::metadata(place(dir.path())).map_or(0, |metadata| metadata.len());
        assert_eq!(length > 5000, made);
        assert!(length <= 10_000);
        let daemon = Daemon::start(dir.path());
        let mut journal = Journal::default();
        take_all(&mut client, &daemon, dir.path(), &mut journal);
        assert!(journal.has_gap);
        assert_eq!(journal.newest(), noted, "all before the gap, and the gap");
        // It is taken in, so there is room again.
        assert_eq!(client.lost, None);
    }
}

/// The oldest are with vfsxd, which stands still; so a new connection says what is on disk.
#[test]
fn a_vfsxd_that_stands_still_is_as_good_as_none() {
    let dir = tempfile::tempdir().expect("scratch directory");
    make_spool(dir.path());
    let daemon = Daemon::start(dir.path());
    let mut client = Client::new(config(dir.path(), RING), host(), hello());
    let mut still = daemon.accept();
    still.welcome(0);
    let deadline = Instant::now() + PATIENCE;
    let mut noted = 0;
    while client.ring.left() == 0 {
        assert!(Instant::now() < deadline, "nothing goes to disk");
        if client.ring.has_room() {
            noted += 1;
            client.note(event(noted));
        } else {
            // Until it has not been heard of for long enough.
            std::thread::sleep(Duration::from_millis(5));
        }
        client.flush();
        client.tick(Instant::now());
        rest(&mut client);
    }
    let mut journal = Journal::default();
    // What it was given before counts, too.
    receive(&mut still, &mut journal);
    drop(still);
    reconnect(&mut client);
    let mut connection = daemon.accept_last();
    while connection.spooled < client.ring.left() {
        drop(connection);
        client.readable();
        reconnect(&mut client);
        connection = daemon.accept_last();
    }
    journal.take_spooled(dir.path(), connection.spooled);
    connection.welcome(journal.newest());
    let deadline = Instant::now() + PATIENCE;
    while !client.is_settled() {
        assert!(Instant::now() < deadline);
        client.flush();
        receive(&mut connection, &mut journal);
        connection.send(&ToModule::Ack {
            sequence: journal.newest(),
        });
        client.readable();
    }
    assert!(journal.events.iter().copied().eq(1..=noted));
    assert!(!journal.has_gap);
}

#[test]
fn a_welcome_that_lacks_what_is_on_disk_ends_the_connection() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = alone(dir.path());
    note(&mut client, 1..=500);
    let left = client.ring.left();
    assert!(left > 0);
    let daemon = Daemon::start(dir.path());
    reconnect(&mut client);
    let mut connection = daemon.accept();
    connection.welcome(left - 1);
    client.readable();
    assert!(!client.is_up());
    assert_eq!(client.ring.left(), left, "nothing is given up");
}

/// Opening it waits until somebody reads: like a disk that hangs.
fn hang(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: `path` ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn a_disk_that_hangs_holds_up_nothing_but_the_end_and_that_not_for_long() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = alone(dir.path());
    let new = place(dir.path()).with_extension("new");
    hang(&new);
    // Who waits here waits for good.
    for n in 1..=5000 {
        client.note(event(n));
        client.flush();
        client.tick(Instant::now());
    }
    assert!(client.lost.is_some(), "the ring is full");
    let last = client.ring.last();
    let start = Instant::now();
    client.finish(Duration::ZERO, false);
    assert!(start.elapsed() >= KEEPER_LIMIT && start.elapsed() < PATIENCE);
    let standing = flag::standing_path(&dir.path().join("sock"), "data", hello().session);
    let text = fs::read_to_string(&standing).expect("the flag stays");
    assert!(text.contains("DaemonAbsent") && !text.contains("last"), "{text}");
    let locked = fs::File::open(&standing).expect("opens");
    assert!(
        locked.try_lock().is_err(),
        "it is the process's as long as that may finish"
    );

    // The disk goes on, and the process lives: it is all done after all.
    let reader = fs::File::open(&new).expect("opens");
    let deadline = Instant::now() + PATIENCE;
    while standing.exists() {
        assert!(Instant::now() < deadline, "the flag is not lowered");
        std::thread::yield_now();
    }
    drop(reader);
    let flag = flag::path(&dir.path().join("state"), "data", hello().session);
    assert!(flag.exists(), "events were dropped after {last}");
}

/// vfsxd may find that it has them all.
#[test]
fn the_flag_of_a_session_that_could_not_write_its_rest_names_its_last_event() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = alone(dir.path());
    hang(&place(dir.path()).with_extension("new"));
    client.note(event(1));
    client.note(event(2));
    client.finish(Duration::ZERO, false);
    let standing = flag::standing_path(&dir.path().join("sock"), "data", hello().session);
    let text = fs::read_to_string(&standing).expect("the flag stays");
    assert!(text.contains("\"last\":2}"), "{text}");
}

#[derive(Debug, Clone)]
enum Step {
    Note(u64),
    /// The keeper is done with what it was asked for.
    Rest,
    Start,
    Stop,
    /// vfsxd takes what is there, and acknowledges it.
    Take,
    /// The same, and the acknowledgement is lost.
    Miss,
    /// A connection that gets no answer.
    Hang,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..120).prop_map(Step::Note),
        2 => Just(Step::Rest),
        2 => Just(Step::Start),
        1 => Just(Step::Stop),
        2 => Just(Step::Take),
        1 => Just(Step::Miss),
        1 => Just(Step::Hang),
    ]
}

#[derive(Debug, Clone, Copy)]
enum End {
    Clean,
    /// vfsxd is there, and takes all.
    Taken,
    Killed,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn every_event_is_taken_once_and_in_order_or_there_is_a_gap(
        steps in prop::collection::vec(step(), 0..40),
        end in prop_oneof![Just(End::Clean), Just(End::Taken), Just(End::Killed)],
        spool_max in prop_oneof![1 => Just(6_000u64), 3 => Just(1 << 20)],
        has_directory in prop::bool::weighted(0.9),
    ) {
        let dir = tempfile::tempdir().expect("scratch directory");
        let config = Config { spool_max, ..config(dir.path(), RING) };
        if has_directory {
            make_spool(dir.path());
        }
        let mut client = Client::new(config, host(), hello());
        let (mut journal, mut noted) = (Journal::default(), 0);
        let mut daemon: Option<Daemon> = None;
        let mut connection: Option<Connection> = None;
        for step in steps {
            match step {
                Step::Note(count) => {
                    for _ in 0..count {
                        noted += 1;
                        client.note(event(noted));
                        client.flush();
                    }
                }
                Step::Rest => rest(&mut client),
                Step::Stop => {
                    daemon = None;
                    connection = None;
                    client.readable();
                }
                Step::Start | Step::Hang => {
                    connection = None;
                    client.readable();
                    // As if the pause were over.
                    daemon = Some(Daemon::start(dir.path()));
                    client.drop_link(false);
                    client.connect();
                    let hangs = matches!(step, Step::Hang);
                    if let Some(daemon) = daemon.as_ref().filter(|_| !hangs) {
                        let mut taken = daemon.accept();
                        journal.take_spooled(dir.path(), taken.spooled);
                        taken.welcome(journal.newest());
                        client.flush();
                        connection = Some(taken);
                    }
                }
                Step::Take | Step::Miss => {
                    client.flush();
                    if let Some(taken) = &mut connection {
                        receive(taken, &mut journal);
                        if matches!(step, Step::Take) && client.is_up() {
                            taken.send(&ToModule::Ack { sequence: journal.newest() });
                        }
                        client.readable();
                    }
                }
            }
        }
        drop((connection, daemon));
        match end {
            End::Clean => {
                client.drop_link(false);
                client.finish(Duration::ZERO, false);
            }
            End::Taken => {
                client.drop_link(false);
                let daemon = Daemon::start(dir.path());
                let connection = take_all(&mut client, &daemon, dir.path(), &mut journal);
                client.finish(PATIENCE, false);
                drop(connection);
                prop_assert_eq!(traces(dir.path()), word(dir.path()));
            }
            End::Killed => {
                // What a process has in memory goes with it: a flag would say so, after a second.
                journal.has_gap |= !client.is_settled();
                rest(&mut client);
                let keeper = client.overflow.keeper.take();
                drop(client);
                if let Some(keeper) = keeper {
                    keeper.end();
                }
            }
        }
        journal.take_left(dir.path());
        if !journal.has_gap {
            prop_assert_eq!(journal.newest(), noted);
        }
    }
}

/// An event that is as long as several others.
#[test]
fn a_long_event_goes_to_disk_like_others() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = alone(dir.path());
    for n in 1..=200 {
        client.note(Event::Opened {
            handle: n,
            node: NodeRef {
                dev: 1,
                ino: n,
                btime_ns: 0,
            },
            path_hint: vec![b'x'; 1 + 30 * (n % 100) as usize],
        });
        client.flush();
        rest(&mut client);
    }
    client.finish(Duration::ZERO, false);
    let spooled = read(dir.path()).expect("the spool file");
    assert!(spooled.sequences().eq(1..=200));
    assert_eq!(spooled.end, Some(200));
}
