//! The client against a listener in the same thread, so that every step is under control.

use super::absence::STANDING_AFTER;
use super::*;
use crate::memory::tests::Reader;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use vfsx_proto::{
    Decoder, Durability, Exclude, NodeRef, PREAMBLE, SessionId, Stamped, Welcome, check_preamble,
};

/// Longer than anything here takes, so that a hang fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn host() -> Host {
    Host {
        as_root: |work| work(),
        log: |_, text| println!("log: {text}"),
    }
}

pub(crate) fn config(dir: &Path, ring: usize) -> Config {
    Config {
        socket: dir.join("sock"),
        state: dir.join("state"),
        spool: true,
        ring,
        // Every step is looked at.
        hold: Duration::ZERO,
        ..Config::default()
    }
}

pub(crate) fn hello() -> Hello {
    Hello {
        session: SessionId([7; 16]),
        share: "data".into(),
        pid: 42,
        samba: "4.17".into(),
        module: "0".into(),
        durability: Durability::Noted,
        exclude: Exclude::default(),
        ring: None,
        spooled: 0,
    }
}

pub(crate) fn event(n: u64) -> Event {
    Event::Flushed {
        handle: n,
        node: NodeRef {
            dev: 1,
            ino: n,
            btime_ns: 0,
        },
    }
}

/// As vfsxd makes it for each of its shares.
pub(crate) fn make_spool(dir: &Path) -> PathBuf {
    let spool = dir.join("state/spool/data");
    std::fs::create_dir_all(&spool).expect("directory");
    spool
}

pub(crate) const NOTHING: [PathBuf; 0] = [];

/// What the client has left on disk and beside the socket.
pub(crate) fn traces(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![dir.join("state"), dir.join("gaps")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

/// A client whose share vfsxd does not have.
pub(crate) fn refused() -> (tempfile::TempDir, Daemon, Client) {
    let dir = tempfile::tempdir().expect("scratch directory");
    let daemon = Daemon::start(dir.path());
    let mut client = Client::new(config(dir.path(), 1 << 20), host(), hello());
    let mut connection = daemon.accept();
    connection.send(&ToModule::Refused(Refusal::UnknownShare { share: "data".into() }));
    client.readable();
    (dir, daemon, client)
}

/// What a session that vfsxd knew leaves when it ends with nothing to tell.
pub(crate) fn word(dir: &Path) -> [PathBuf; 1] {
    [flag::standing_path(&dir.join("sock"), "data", SessionId([7; 16]))]
}

/// vfsxd's end of the socket.
pub(crate) struct Daemon {
    listener: UnixListener,
}

pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    /// What vfsxd may read.
    pub(crate) memory: Option<Reader>,
    /// Up to here the client has said that events are in the spool file.
    pub(crate) spooled: u64,
}

impl Daemon {
    pub(crate) fn start(dir: &Path) -> Self {
        let _ = std::fs::remove_file(dir.join("sock"));
        Self {
            listener: UnixListener::bind(dir.join("sock")).expect("listener"),
        }
    }

    /// The connection that the client has made, its preamble and Hello read.
    pub(crate) fn accept(&self) -> Connection {
        let (stream, _) = self.listener.accept().expect("a connection");
        Self::greet(stream)
    }

    /// The newest connection that the client has made: those before it are closed.
    pub(crate) fn accept_last(&self) -> Connection {
        let (mut last, _) = self.listener.accept().expect("a connection");
        self.listener.set_nonblocking(true).expect("set");
        while let Ok((stream, _)) = self.listener.accept() {
            last = stream;
        }
        self.listener.set_nonblocking(false).expect("set");
        last.set_nonblocking(false).expect("set");
        Self::greet(last)
    }

    fn greet(mut stream: UnixStream) -> Connection {
        stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
        stream.write_all(&preamble()).expect("preamble sent");
        let (first, descriptor) = receive_first(&stream);
        let (theirs, frames) = first.split_first_chunk::<PREAMBLE>().expect("preamble");
        check_preamble(theirs).expect("our version");
        let mut connection = Connection {
            stream,
            decoder: Decoder::default(),
            memory: None,
            spooled: 0,
        };
        connection.decoder.push(frames);
        let ToDaemon::Hello(theirs) = connection.message() else {
            panic!("no hello")
        };
        let (ring, spooled) = (theirs.ring, theirs.spooled);
        let expected = Hello {
            ring,
            spooled,
            ..hello()
        };
        assert_eq!(theirs, expected);
        assert_eq!(descriptor.is_some(), ring.is_some());
        connection.spooled = spooled;
        connection.memory = descriptor.map(|fd| Reader {
            file: fd.into(),
            size: ring.unwrap_or(0),
        });
        connection
    }
}

/// The first bytes, and the descriptor that came with them.
fn receive_first(stream: &UnixStream) -> (Vec<u8>, Option<OwnedFd>) {
    let mut bytes = vec![0u8; 4096];
    let mut control = [0u64; 8];
    let mut data = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeroes is a valid message; what it points to is writable, and outlives the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let n = libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        bytes.truncate(usize::try_from(n).expect("received"));
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let fd = (!header.is_null()).then(|| {
            let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
            std::os::fd::FromRawFd::from_raw_fd(fd)
        });
        (bytes, fd)
    }
}

impl Connection {
    pub(crate) fn send(&mut self, message: &ToModule) {
        let mut frame = Vec::new();
        encode(message, &mut frame).expect("small");
        self.stream.write_all(&frame).expect("sent");
    }

    pub(crate) fn welcome(&mut self, acknowledged: u64) {
        let memory = self.memory.is_some();
        self.send(&ToModule::Welcome(Welcome { acknowledged, memory }));
    }

    /// The client sees the end of the connection.
    pub(crate) fn close(&self) {
        self.stream.shutdown(std::net::Shutdown::Both).expect("closed");
    }

    /// What was sent is here at once.
    pub(crate) fn has_news(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("set");
        let news = self.stream.read(&mut [0; 1]);
        self.stream.set_nonblocking(false).expect("set");
        news.is_ok()
    }

    pub(crate) fn message(&mut self) -> ToDaemon {
        loop {
            if let Some(message) = self.decoder.next().expect("well formed") {
                return message;
            }
            let mut buffer = [0; 4096];
            let n = self.stream.read(&mut buffer).expect("in time");
            assert_ne!(n, 0, "the client has closed");
            self.decoder.push(&buffer[..n]);
        }
    }

    /// The next `n` events, at the end of a session too.
    pub(crate) fn events(&mut self, n: usize) -> Vec<Stamped> {
        let mut all = Vec::new();
        while all.len() < n {
            match self.message() {
                ToDaemon::Events(events) => all.extend(events),
                ToDaemon::AckNow => {}
                other => panic!("not an event: {other:?}"),
            }
        }
        all
    }

    /// A byte was sent, and stays to be read.
    pub(crate) fn has_first(&self) -> bool {
        let mut byte = 0u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: the byte is writable.
        let n = unsafe { libc::recv(self.stream.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
        n == 1
    }

    /// Takes all events that are here; the newest's sequence.
    pub(crate) fn read_all(&mut self) -> Option<u64> {
        self.events_here().last().map(|event| event.sequence)
    }

    /// Takes all events that are here.
    pub(crate) fn events_here(&mut self) -> Vec<Stamped> {
        let mut all = Vec::new();
        loop {
            while let Some(message) = self.decoder.next().expect("well formed") {
                if let ToDaemon::Events(events) = message {
                    all.extend(events);
                }
            }
            if !self.has_first() {
                return all;
            }
            let mut buffer = [0; 4096];
            let n = self.stream.read(&mut buffer).expect("it is there");
            self.decoder.push(&buffer[..n]);
        }
    }

    pub(crate) fn sequences(&mut self, n: usize) -> Vec<u64> {
        self.events(n).into_iter().map(|event| event.sequence).collect()
    }
}

pub(crate) fn connected(ring: usize) -> (tempfile::TempDir, Daemon, Connection, Client) {
    let dir = tempfile::tempdir().expect("scratch directory");
    let daemon = Daemon::start(dir.path());
    let mut client = Client::new(config(dir.path(), ring), host(), hello());
    let mut connection = daemon.accept();
    connection.welcome(0);
    client.flush();
    assert!(client.is_up());
    (dir, daemon, connection, client)
}

/// Ticks as the event loop would, at the times the client asks for.
pub(crate) fn reconnect(client: &mut Client) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(at) = client.link.retry_at() {
        assert!(Instant::now() < deadline, "no connection");
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        client.tick(Instant::now());
    }
}

#[test]
fn events_noted_before_the_welcome_are_sent_after_it() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let daemon = Daemon::start(dir.path());
    let mut client = Client::new(config(dir.path(), 1 << 20), host(), hello());
    client.note(event(1));
    client.flush();
    let mut connection = daemon.accept();
    connection.welcome(0);
    client.note(event(2));
    client.flush();
    assert_eq!(connection.sequences(2), [1, 2]);
}

#[test]
fn after_a_kill_of_the_daemon_all_unacknowledged_events_come_again_and_no_others() {
    let (dir, daemon, mut connection, mut client) = connected(1 << 20);
    for n in 1..=5 {
        client.note(event(n));
    }
    client.flush();
    assert_eq!(connection.sequences(5), [1, 2, 3, 4, 5]);
    connection.send(&ToModule::Ack { sequence: 2 });
    client.readable();
    drop((connection, daemon));
    client.readable();
    assert!(!client.is_up());
    client.note(event(6));

    let daemon = Daemon::start(dir.path());
    reconnect(&mut client);
    let mut connection = daemon.accept();
    // The journal had one more than the acknowledgement that arrived.
    connection.welcome(3);
    client.flush();
    assert_eq!(connection.sequences(3), [4, 5, 6]);
    connection.send(&ToModule::Ack { sequence: 6 });
    client.readable();
    assert!(client.is_settled());
}

/// vfsxd may have taken the session, and ended it with the connection: files are not open for it any more.
#[test]
fn after_a_welcome_that_was_lost_open_files_are_named_again() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let daemon = Daemon::start(dir.path());
    let mut client = Client::new(config(dir.path(), 1 << 20), host(), hello());
    client.note(event(1));
    drop(daemon.accept());
    // First the preamble, then the end.
    client.readable();
    client.readable();
    assert!(client.link.socket().is_none());
    reconnect(&mut client);
    let mut connection = daemon.accept();
    connection.welcome(0);
    assert_eq!(client.flush(), [Request::Announce]);
    assert_eq!(connection.sequences(1), [1]);
}

#[test]
fn a_daemon_that_reads_nothing_never_blocks_the_client_and_loses_nothing() {
    let (_dir, _daemon, mut connection, mut client) = connected(64 << 20);
    const EVENTS: u64 = 50_000;
    for n in 1..=EVENTS {
        client.note(event(n));
        client.flush();
    }
    assert!(client.watch().2, "the socket's buffer is full");
    let reader = std::thread::spawn(move || connection.sequences(EVENTS as usize));
    let deadline = Instant::now() + PATIENCE;
    while client.watch().2 {
        assert!(Instant::now() < deadline);
        client.flush();
    }
    assert!(reader.join().expect("reader").into_iter().eq(1..=EVENTS));
}

#[test]
fn an_overflow_is_told_as_a_gap_and_later_events_follow_it() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = Client::new(config(dir.path(), 4096), host(), hello());
    let before = os::wall_clock();
    for n in 1..=1000 {
        client.note(event(n));
    }
    let daemon = Daemon::start(dir.path());
    reconnect(&mut client);
    let mut connection = daemon.accept();
    connection.welcome(0);
    assert_eq!(client.flush(), [], "the ring is still full");
    let kept = client.ring.last();
    assert!(kept > 10 && kept < 1000);
    assert!(connection.sequences(kept as usize).into_iter().eq(1..=kept));

    connection.send(&ToModule::Ack { sequence: kept });
    assert_eq!(client.readable(), [Request::Announce]);
    client.note(event(7));
    client.flush();
    let told = connection.events(2);
    let Event::Gap {
        since_ns,
        reason: GapReason::RingFull,
    } = told[0].event
    else {
        panic!("{told:?}")
    };
    assert!(since_ns >= before && since_ns <= os::wall_clock());
    assert_eq!(
        (told[0].sequence, told[1].sequence),
        (kept + 1, kept + 2),
        "no holes"
    );
    assert_eq!(told[1].event, event(7));
}

#[test]
fn sent_follows_what_was_noted_before_it_and_only_that() {
    let (_dir, _daemon, mut connection, mut client) = connected(1 << 20);
    client.note(event(1));
    connection.send(&ToModule::SendNow { token: 9 });
    assert_eq!(client.readable(), [Request::SendNow { token: 9 }]);
    client.note(event(2));
    client.answer(9);
    client.note(event(3));
    client.flush();
    assert_eq!(connection.sequences(2), [1, 2]);
    assert_eq!(connection.message(), ToDaemon::Sent { token: 9 });
    assert_eq!(connection.sequences(1), [3]);
}

#[test]
fn a_token_of_an_old_connection_is_not_answered_on_a_new_one() {
    let (dir, daemon, mut connection, mut client) = connected(1 << 20);
    connection.send(&ToModule::SendNow { token: 9 });
    client.readable();
    drop((connection, daemon));
    client.readable();
    client.answer(9);
    // The answer was given while no daemon was there to take it.
    client.drop_link(false);
    let daemon = Daemon::start(dir.path());
    reconnect(&mut client);
    let mut connection = daemon.accept();
    connection.welcome(0);
    client.note(event(1));
    client.flush();
    assert_eq!(connection.sequences(1), [1]);
}

#[test]
fn a_refusal_is_followed_by_rare_attempts_only() {
    let (_dir, _daemon, client) = refused();
    let retry = client.deadline().expect("down");
    assert!(retry > Instant::now() + Duration::from_secs(5));
}

#[test]
fn an_end_waits_for_the_acknowledgement_and_then_leaves_only_its_word() {
    let (dir, _daemon, mut connection, mut client) = connected(1 << 20);
    client.note(event(1));
    let daemon = std::thread::spawn(move || {
        assert_eq!(connection.sequences(1), [1]);
        connection.send(&ToModule::Ack { sequence: 1 });
        connection
    });
    client.finish(PATIENCE, false);
    drop(daemon.join().expect("daemon"));
    assert!(client.is_settled());
    assert_eq!(traces(dir.path()), word(dir.path()));
}

#[test]
fn changes_held_in_memory_are_on_record_until_a_daemon_has_them() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = Client::new(config(dir.path(), 1 << 20), host(), hello());
    let live = dir.path().join("gaps/data/live").join("07".repeat(16));
    client.tick(Instant::now() + STANDING_AFTER);
    assert!(!live.exists(), "nothing is at stake");
    client.note(event(1));
    client.tick(Instant::now() + STANDING_AFTER);
    assert!(live.exists());

    let daemon = Daemon::start(dir.path());
    reconnect(&mut client);
    let mut connection = daemon.accept();
    connection.welcome(0);
    client.flush();
    assert!(live.exists(), "sent is not taken");
    assert_eq!(connection.sequences(1), [1]);
    connection.send(&ToModule::Ack { sequence: 1 });
    client.readable();
    assert!(!live.exists());
}

#[test]
fn an_absence_leaves_a_trace_only_when_changes_are_at_stake() {
    for taken in [true, false] {
        let (dir, daemon, mut connection, mut client) = connected(1 << 20);
        client.note(event(1));
        client.flush();
        assert_eq!(connection.sequences(1), [1]);
        if taken {
            connection.send(&ToModule::Ack { sequence: 1 });
            client.readable();
        }
        drop((connection, daemon));
        client.readable();
        client.tick(Instant::now());
        let live = dir.path().join("gaps/data/live").join("07".repeat(16));
        let expected = if taken { NOTHING.to_vec() } else { vec![live] };
        assert_eq!(traces(dir.path()), expected, "taken: {taken}");
    }
}

#[test]
fn nothing_is_kept_after_an_event_that_did_not_fit_until_the_gap_is_told() {
    let (_dir, _daemon, mut connection, mut client) = connected(4096);
    while client.ring.has_room() {
        client.note(event(1));
    }
    let kept = client.ring.last();
    let large = Event::Opened {
        handle: 1,
        node: NodeRef {
            dev: 1,
            ino: 1,
            btime_ns: 0,
        },
        path_hint: vec![b'x'; 4096],
    };
    client.note(large);
    client.note(event(2));
    client.gap(GapReason::Panic);
    assert_eq!(client.ring.last(), kept, "they would fit, but the order is lost");
    client.flush();
    connection.send(&ToModule::Ack { sequence: kept });
    assert_eq!(client.readable(), [Request::Announce]);
    client.flush();
    connection.events(kept as usize);
    let told = &connection.events(1)[0];
    assert!(
        matches!(
            told.event,
            Event::Gap {
                reason: GapReason::RingFull,
                ..
            }
        ),
        "{told:?}"
    );
}

#[test]
fn sent_is_not_told_before_the_gap_of_dropped_events() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = Client::new(config(dir.path(), 4096), host(), hello());
    while client.lost.is_none() {
        client.note(event(1));
    }
    let kept = client.ring.last();
    let daemon = Daemon::start(dir.path());
    reconnect(&mut client);
    let mut connection = daemon.accept();
    connection.welcome(0);
    connection.send(&ToModule::SendNow { token: 9 });
    assert!(client.flush().contains(&Request::SendNow { token: 9 }));
    client.answer(9);
    client.flush();
    connection.events(kept as usize);
    connection.send(&ToModule::Ack { sequence: kept });
    client.readable();
    client.note(event(2));
    client.flush();
    let told = connection.events(1);
    assert!(matches!(told[0].event, Event::Gap { .. }), "{told:?}");
    assert_eq!(connection.message(), ToDaemon::Sent { token: 9 });
    assert_eq!(connection.sequences(1), [kept + 2]);
}

#[test]
fn an_end_sends_at_once_what_the_last_acknowledgement_made_room_for() {
    let (dir, _daemon, mut connection, mut client) = connected(4096);
    while client.lost.is_none() {
        client.note(event(1));
    }
    let kept = client.ring.last();
    let daemon = std::thread::spawn(move || {
        connection.events(kept as usize);
        connection.send(&ToModule::Ack { sequence: kept });
        let told = connection.events(1);
        assert!(matches!(told[0].event, Event::Gap { .. }), "{told:?}");
        connection.send(&ToModule::Ack { sequence: kept + 1 });
        connection
    });
    client.finish(PATIENCE / 4, false);
    assert!(client.is_settled());
    drop(daemon.join().expect("daemon"));
    assert_eq!(traces(dir.path()), word(dir.path()));
}

/// The event loop's part: nothing happens before the deadline, so it must be there.
fn tick_at_deadline(client: &mut Client) {
    let at = client.deadline().expect("a deadline");
    assert!(at <= Instant::now() + STANDING_AFTER);
    client.tick(at);
}

#[test]
fn a_daemon_that_accepts_and_says_nothing_is_as_good_as_none() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let _daemon = Daemon::start(dir.path());
    let mut client = Client::new(config(dir.path(), 1 << 20), host(), hello());
    let live = dir.path().join("gaps/data/live").join("07".repeat(16));
    assert_eq!(client.deadline(), None, "nothing to do without a change");
    client.note(event(1));
    client.flush();
    tick_at_deadline(&mut client);
    assert!(live.exists());
    assert_eq!(client.deadline(), None, "once is enough");
}

#[test]
fn a_daemon_that_stops_taking_changes_is_as_good_as_none() {
    let (dir, _daemon, mut connection, mut client) = connected(1 << 20);
    let live = dir.path().join("gaps/data/live").join("07".repeat(16));
    client.note(event(1));
    client.flush();
    let before = client.deadline().expect("a deadline") - Duration::from_millis(1);
    client.tick(before);
    assert!(!live.exists(), "an acknowledgement may take a moment");
    tick_at_deadline(&mut client);
    assert!(live.exists());
    connection.send(&ToModule::Ack { sequence: 1 });
    client.readable();
    assert!(!live.exists());
}

#[test]
fn an_acknowledgement_that_nobody_has_read_yet_counts() {
    let (dir, _daemon, mut connection, mut client) = connected(1 << 20);
    client.note(event(1));
    client.flush();
    connection.send(&ToModule::Ack { sequence: 1 });
    connection.send(&ToModule::SendNow { token: 9 });
    let at = client.deadline().expect("a deadline");
    assert_eq!(client.tick(at), [Request::SendNow { token: 9 }]);
    assert!(client.is_settled());
    assert_eq!(traces(dir.path()), NOTHING);
}

#[test]
fn a_flag_that_cannot_be_raised_is_tried_again_after_a_pause() {
    let (dir, _daemon, _connection, mut client) = connected(1 << 20);
    std::fs::write(dir.path().join("gaps"), "in the way").expect("obstacle");
    client.note(event(1));
    let at = client.deadline().expect("a deadline");
    client.tick(at);
    assert_eq!(client.deadline(), Some(at + STANDING_AFTER));
    std::fs::remove_file(dir.path().join("gaps")).expect("obstacle");
    client.tick(at + STANDING_AFTER);
    assert!(dir.path().join("gaps/data/live").exists());
}
