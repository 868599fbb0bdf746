//! Mode `copy`: what vfsxd is told of a session, by events and by words in memory, and when.

use super::tests::{Share, node};
use super::*;
use crate::client::tests::{Daemon, config, hello, host, make_spool};
use crate::config::{Config, MIN_DATA_RING, Mode};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;
use vfsx_proto::ring::Word;
use vfsx_proto::{
    Changed, Decoder, Event, MAX_WRITE, Metadata, NodeKind, PREAMBLE, Range, Stamped, ToDaemon, ToModule,
};

const STAT: Changed = Changed {
    stat: true,
    xattrs: false,
};

fn copy(config: &mut Config) {
    config.mode = Mode::Copy;
    config.data_ring = MIN_DATA_RING;
}

/// A session that has been told that data is wanted.
fn copying() -> Share {
    let mut share = Share::with(copy);
    share.say(true);
    assert_eq!(share.word(Word::Copying), 1);
    share
}

impl Share {
    fn say(&mut self, on: bool) {
        self.connection.send(&ToModule::Copy { on });
        self.call(Capture::readable);
    }

    fn data(&self, event: &Event) -> Option<Vec<u8>> {
        match event {
            Event::Write { length, data, .. } => self.memory().data((*data)?, *length),
            other => panic!("{other:?}"),
        }
    }

    fn file(&self, name: &str) -> File {
        File::create(self.path(name)).expect("file")
    }

    /// A write in the client's own call begins.
    fn begin(&mut self, file: &File, known: Option<Going>, offset: i64, data: &[u8]) -> Going {
        let planned = Planned {
            span: Span::at(offset, data.len() as u64),
            data: Some(data),
        };
        let known = known.map(|going| going.handle);
        self.capture
            .begin_write(
                known,
                Descriptor::unknown(file.as_raw_fd()),
                || b"f".to_vec(),
                planned,
            )
            .expect("a file")
    }

    /// One that a thread goes on with when the call is over.
    fn send_write(&mut self, file: &File, known: Option<Going>, offset: i64, data: &[u8]) -> Going {
        self.capture.enter();
        let going = self.begin(file, known, offset, data);
        self.capture.started(going);
        self.capture.leave();
        going
    }

    fn end_write(&mut self, going: Going, span: Span, complete: bool) {
        self.call(|capture| capture.ended(going, span, complete));
    }
}

fn is_write(event: &Event, at: u64, of: usize) -> bool {
    matches!(event, Event::Write { start, length, .. } if *start == at && *length == of as u64)
}

fn dirty(event: &Event) -> &[Range] {
    match event {
        Event::Dirty { ranges, .. } => ranges,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_the_option_no_ring_is_shared() {
    let mut share = Share::with(|_| {});
    let ring = share.connection.memory.as_ref().map(|memory| memory.size);
    assert_eq!(ring, Some(0), "nor is it announced");
    share.say(true);
    let file = share.file("f");
    share.capture.enter();
    let going = share.begin(&file, None, 0, b"data");
    share.capture.wrote(going, Span::at(0, 4), true);
    share.capture.leave();
    let events = share.sent();
    assert!(
        matches!(&events[..], [Event::Opened { .. }, Event::Dirty { .. }]),
        "{events:?}"
    );
}

#[test]
fn a_write_and_its_data_are_in_the_socket_before_it_starts_and_nothing_comes_after_it() {
    let mut share = copying();
    let file = share.file("f");
    share.capture.enter();
    let going = share.begin(&file, None, 7, b"what is written");
    // Still inside the call.
    let told: Vec<Stamped> = share.connection.events(2);
    assert!(matches!(told[0].event, Event::Opened { .. }));
    assert!(is_write(&told[1].event, 7, 15));
    assert_eq!(
        share.data(&told[1].event).as_deref(),
        Some(&b"what is written"[..])
    );
    assert_eq!(share.word(Word::Running), told[1].sequence);
    share.capture.wrote(going, Span::at(7, 15), true);
    share.capture.leave();
    assert_eq!(share.word(Word::Running), u64::MAX);
    assert_eq!(share.sent(), [], "all is known");

    share.capture.enter();
    let again = share.begin(&file, Some(going), 0, b"again");
    assert!(
        is_write(&share.connection.events(1)[0].event, 0, 5),
        "not the first of the file"
    );
    share.capture.wrote(again, Span::at(0, 5), true);
    share.capture.leave();
}

#[test]
fn a_long_write_is_told_in_pieces_that_vfsxd_takes() {
    let mut share = copying();
    let file = share.file("f");
    let data: Vec<u8> = (0..2 * MAX_WRITE + 5).map(|n| (n % 253) as u8).collect();
    let going = share.send_write(&file, None, 100, &data);
    let told = share.connection.events(4);
    let mut found = Vec::new();
    for (stamped, length) in told[1..].iter().zip([MAX_WRITE, MAX_WRITE, 5]) {
        assert!(
            is_write(&stamped.event, 100 + found.len() as u64, length),
            "{stamped:?}"
        );
        found.extend(share.data(&stamped.event).expect("data"));
    }
    assert_eq!(found, data);
    assert_eq!(share.word(Word::Running), told[1].sequence, "the first of them");
    share.end_write(going, Span::at(100, data.len() as u64), true);
    assert_eq!(share.sent(), []);
}

#[test]
fn a_write_that_fails_or_falls_short_or_meets_another_is_told_again_as_a_range() {
    let mut share = copying();
    let file = share.file("f");
    let short = share.send_write(&file, None, 0, b"0123456789");
    share.end_write(short, Span::at(0, 10), false);
    let events = share.sent();
    assert_eq!(dirty(&events[2]), [Range { start: 0, end: 10 }]);

    let one = share.send_write(&file, Some(short), 0, b"0123456789");
    let other = share.send_write(&file, Some(short), 5, b"0123456789");
    let apart = share.send_write(&file, Some(short), 50, b"0123456789");
    for (going, start) in [(other, 5), (apart, 50), (one, 0)] {
        share.end_write(going, Span::at(start, 10), true);
    }
    let events = share.sent();
    assert_eq!(events.len(), 5, "three writes, and two ranges: {events:?}");
    assert_eq!(dirty(&events[3]), [Range { start: 5, end: 15 }]);
    assert_eq!(dirty(&events[4]), [Range { start: 0, end: 10 }]);
}

#[test]
fn a_write_whose_data_smbd_does_not_have_is_announced_and_then_told_as_a_range() {
    let mut share = copying();
    let file = share.file("f");
    let span = Span::at(3, 4);
    share.capture.enter();
    let planned = Planned { span, data: None };
    let going = share
        .capture
        .begin_write(None, Descriptor::unknown(file.as_raw_fd()), Vec::new, planned);
    let going = going.expect("a file");
    let told = share.connection.events(2);
    assert!(is_write(&told[1].event, 3, 4) && share.data(&told[1].event).is_none());
    share.capture.wrote(going, span, true);
    share.capture.leave();
    assert_eq!(dirty(&share.sent()[0]), [Range { start: 3, end: 7 }]);
}

#[test]
fn a_handle_that_appends_changes_only_what_is_behind_the_end() {
    let mut share = copying();
    fs::write(share.path("f"), "123").expect("file");
    let file = File::options().append(true).open(share.path("f")).expect("open");
    let going = share.send_write(&file, None, 0, b"45");
    share.end_write(going, Span::at(0, 2), true);
    let events = share.sent();
    assert!(
        matches!(
            events[1],
            Event::Write {
                start: 3,
                data: None,
                ..
            }
        ),
        "{events:?}"
    );
    let behind = Range {
        start: 3,
        end: u64::MAX,
    };
    assert_eq!(dirty(&events[2]), [behind]);
}

#[test]
fn data_that_is_not_acknowledged_stays_and_a_write_without_room_is_told_without() {
    let mut share = copying();
    let file = share.file("f");
    let piece = |n: u8| vec![n; MAX_WRITE];
    let mut known = None;
    for n in 0..5 {
        let going = share.send_write(&file, known, 0, &piece(n));
        share.end_write(going, Span::at(0, MAX_WRITE as u64), true);
        known = Some(going);
    }
    let told = share.connection.events(7);
    for n in 0..4 {
        assert_eq!(share.data(&told[usize::from(n) + 1].event), Some(piece(n)));
    }
    assert!(matches!(told[5].event, Event::Write { data: None, .. }));
    assert!(matches!(told[6].event, Event::Dirty { .. }));
    // The first piece.
    share.acknowledge(2);
    let going = share.send_write(&file, known, 0, &piece(9));
    share.end_write(going, Span::at(0, MAX_WRITE as u64), true);
    let newest = &share.connection.events(1)[0];
    assert_eq!(
        share.data(&newest.event),
        Some(piece(9)),
        "in the place of the first"
    );
    assert_eq!(share.data(&told[1].event), None);
    for n in 1..4 {
        assert_eq!(share.data(&told[usize::from(n) + 1].event), Some(piece(n)));
    }
}

#[test]
fn calls_are_counted_before_the_clock_is_read_and_events_carry_when_their_call_began() {
    let mut share = copying();
    let (begun, ended) = (share.word(Word::Begun), share.word(Word::Ended));
    assert_eq!(begun, ended);
    let file = share.file("f");
    let before = os::monotonic_ns();
    share.capture.enter();
    let after = os::monotonic_ns();
    share.capture.enter();
    assert_eq!(share.word(Word::Begun), begun + 1, "nested ones are not counted");
    share.capture.touched(file.as_raw_fd(), None, Vec::new, STAT);
    share.capture.leave();
    let going = share.begin(&file, None, 0, b"data");
    share.capture.wrote(going, Span::at(0, 4), false);
    assert_eq!(share.word(Word::Ended), ended);
    share.capture.leave();
    assert_eq!(share.word(Word::Ended), begun + 1);
    let told = share.connection.events(4);
    for stamped in &told {
        assert!((before..=after).contains(&stamped.began_ns), "{stamped:?}");
    }
    assert_eq!(share.word(Word::Noted), told[3].sequence);
}

#[test]
fn running_is_the_oldest_announced_write_that_has_not_ended() {
    let mut share = copying();
    let file = share.file("f");
    let first = share.send_write(&file, None, 0, b"1");
    let second = share.send_write(&file, Some(first), 10, b"2");
    assert_eq!(share.word(Word::Running), 2);
    share.end_write(first, Span::at(0, 1), true);
    assert_eq!(share.word(Word::Running), 3);
    let third = share.send_write(&file, Some(first), 20, b"3");
    share.end_write(second, Span::at(10, 1), true);
    assert_eq!(share.word(Word::Running), 4);
    share.call(|capture| capture.lost(third, Span::at(20, 1)));
    assert_eq!(share.word(Word::Running), 4, "a thread may still be at it");
}

#[test]
fn before_data_is_told_all_that_was_held_back_is_and_writes_under_way_are_announced() {
    let mut share = Share::with(copy);
    let (held, going) = (share.file("held"), share.file("going"));
    let done = share.send_write(&held, None, 0, b"done");
    share.end_write(done, Span::at(0, 4), true);
    let running = share.send_write(&going, None, 5, b"running");
    assert_eq!(share.connection.events(2).len(), 2, "opened, no more");
    assert_eq!(share.word(Word::Copying), 0);
    share.say(true);
    assert_eq!(share.word(Word::Copying), 1);
    let told = share.connection.events(2);
    assert_eq!(dirty(&told[0].event), [Range { start: 0, end: 4 }]);
    assert!(is_write(&told[1].event, 5, 7) && share.data(&told[1].event).is_none());
    assert_eq!(share.word(Word::Running), told[1].sequence);
    assert_eq!(share.word(Word::Noted), told[1].sequence);
    share.end_write(running, Span::at(5, 7), true);
    assert_eq!(dirty(&share.sent()[0]), [Range { start: 5, end: 12 }]);
}

#[test]
fn when_data_is_not_wanted_any_more_ranges_are_held_back_and_the_word_says_so() {
    let mut share = copying();
    let file = share.file("f");
    let announced = share.send_write(&file, None, 0, b"announced");
    share.say(false);
    assert_eq!(share.word(Word::Copying), 0);
    share.end_write(announced, Span::at(0, 9), true);
    let held = share.send_write(&file, Some(announced), 20, b"held");
    share.end_write(held, Span::at(20, 4), true);
    let deadline = share.capture.deadline().expect("its age");
    assert!(deadline <= Instant::now() + AGE);
    let events = share.sent();
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(dirty(&events[2]), [Range { start: 20, end: 24 }]);
}

#[test]
fn a_vfsxd_that_falls_behind_gets_ranges_until_it_has_caught_up() {
    let mut share = copying();
    let file = share.file("f");
    let mut known = None;
    let mut calls = 0;
    while share.word(Word::Copying) == 1 {
        let going = share.send_write(&file, known, 0, b"x");
        share.end_write(going, Span::at(0, 1), true);
        known = Some(going);
        calls += 1;
        assert!(calls < 100_000);
    }
    let noted = share.word(Word::Noted);
    assert!(share.capture.client().next_sequence() == noted + 1);
    let half = noted / 2 + 1;
    share.connection.send(&ToModule::Ack {
        sequence: noted - half,
    });
    share.call(Capture::readable);
    assert_eq!(share.word(Word::Copying), 0, "more than a quarter is left");
    share.connection.send(&ToModule::Ack { sequence: noted });
    share.call(Capture::readable);
    assert_eq!(share.word(Word::Copying), 1);
}

#[test]
fn a_cut_is_told_by_the_new_size_and_a_write_that_it_meets_as_a_range_afterwards() {
    let mut share = copying();
    let file = share.file("f");
    let met = share.send_write(&file, None, 2, b"0123456789");
    let below = share.send_write(&file, Some(met), 0, b"01");
    share.call(|capture| capture.resized(met.handle, 4, Span::between(12, 4)));
    share.end_write(below, Span::at(0, 2), true);
    share.end_write(met, Span::at(2, 10), true);
    let events = share.sent();
    let node = node(&share.path("f"));
    let resized = Event::Resized {
        handle: met.handle,
        node,
        size: 4,
    };
    assert!(events.contains(&resized), "{events:?}");
    let last = events.last().expect("a range");
    assert_eq!(dirty(last), [Range { start: 2, end: 12 }]);
    assert_eq!(events.len(), 5, "{events:?}");
    // Without data, ranges.
    share.say(false);
    share.call(|capture| capture.resized(met.handle, 20, Span::between(4, 20)));
    assert_eq!(dirty(&share.sent()[0]), [Range { start: 4, end: 20 }]);
}

#[test]
fn new_metadata_are_told_as_they_are_at_the_end_of_the_outermost_call() {
    let mut share = copying();
    let file = share.file("f");
    let gone = share.file("gone");
    let gone_node = node(&share.path("gone"));
    share.capture.enter();
    share
        .capture
        .touched(file.as_raw_fd(), None, || b"f".to_vec(), STAT);
    share.capture.touch(
        gone_node,
        At::Descriptor(file.as_raw_fd()),
        || b"gone".to_vec(),
        STAT,
    );
    drop(gone);
    fs::set_permissions(share.path("f"), fs::Permissions::from_mode(0o4751)).expect("mode");
    share.capture.leave();
    let events = share.sent();
    let stat = file.metadata().expect("stat");
    let Event::Metadata {
        node: found,
        path_hint,
        metadata,
    } = &events[0]
    else {
        panic!("{events:?}")
    };
    assert_eq!((found, &path_hint[..]), (&node(&share.path("f")), &b"f"[..]));
    let Metadata { mode, uid, mtime, .. } = metadata;
    assert_eq!((*mode, *uid), (0o4751, stat.uid()));
    assert_eq!(*mtime, (stat.mtime(), stat.mtime_nsec() as u32));
    assert!(
        matches!(&events[1], Event::Touched { node, .. } if *node == gone_node),
        "its descriptor is another file's: {events:?}"
    );
}

#[test]
fn new_files_and_directories_are_described_in_the_call_that_makes_them() {
    let mut share = copying();
    fs::create_dir(share.path("d")).expect("directory");
    let (file_name, dir_name) = (Name::of(share.place("f")), Name::of(share.place("d")));
    let file = share.file("f");
    share.capture.enter();
    share.capture.opened_creating(file_name, file.as_raw_fd(), 0);
    share.capture.created(dir_name, Outcome::Done);
    assert!(
        !share.connection.has_news(),
        "one message wakes vfsxd as much as four"
    );
    share.capture.leave();
    let events = share.sent();
    for (name, kind) in [("f", NodeKind::File), ("d", NodeKind::Directory)] {
        let of = node(&share.path(name));
        let mode = fs::metadata(share.path(name)).expect("stat").mode() & 0o7777;
        assert!(
            events
                .iter()
                .any(|e| matches!(e, Event::Create { node, kind: k, .. } if *node == of && *k == kind))
        );
        assert!(
            events.iter().any(|e| matches!(e, Event::Metadata { node, metadata, .. } if *node == of && metadata.mode == mode)),
            "{events:?}"
        );
    }
    assert_eq!(events.len(), 4);
}

#[test]
fn a_new_file_that_is_closed_by_the_end_of_the_call_is_only_named() {
    let mut share = copying();
    let name = Name::of(share.place("f"));
    let file = share.file("f");
    share.call(|capture| {
        capture.opened_creating(name, file.as_raw_fd(), 0);
        drop(file);
    });
    let events = share.sent();
    assert!(matches!(&events[..], [Event::Create { .. }]), "{events:?}");
}

#[test]
fn opens_in_threads_end_the_telling_of_data_since_they_change_what_no_call_tells() {
    let mut share = copying();
    let name = Name::of(share.place("later"));
    share.call(|capture| {
        let _ = capture.opened_creating(name, -1, libc::EINPROGRESS);
    });
    assert_eq!(share.word(Word::Copying), 0);
    share.say(true);
    assert_eq!(share.word(Word::Copying), 0);
}

fn reconnect(share: &mut Share, daemon: &Daemon, acknowledged: u64) {
    while share.capture.client().watch().1.is_none() {
        let at = share.capture.deadline().expect("an attempt is due");
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        share.call(|capture| capture.tick(Instant::now()));
    }
    share.connection = daemon.accept();
    share.connection.welcome(acknowledged);
}

#[test]
fn after_a_restart_of_vfsxd_events_come_again_and_their_data_are_still_there() {
    let mut share = copying();
    let file = share.file("f");
    let first = share.send_write(&file, None, 0, b"first");
    let running = share.send_write(&file, Some(first), 10, b"second");
    share.end_write(first, Span::at(0, 5), true);
    let before = share.connection.events(3);
    share.acknowledge(2);
    let daemon = Daemon::start(share.scratch.path());
    share.connection.close();
    share.call(Capture::readable);
    assert_eq!(share.word(Word::Copying), 0, "from now on ranges are held back");

    reconnect(&mut share, &daemon, 2);
    share.call(Capture::readable);
    let again = share.connection.events(2);
    assert_eq!(again[0], before[2]);
    assert_eq!(share.data(&again[0].event).as_deref(), Some(&b"second"[..]));
    assert!(matches!(again[1].event, Event::Opened { .. }));
    assert_eq!(share.word(Word::Running), 3);
    assert_eq!(share.word(Word::Copying), 0, "this vfsxd has not asked for data");
    share.say(true);
    assert_eq!(share.word(Word::Copying), 1);
    // This one may have read it before it ended.
    share.end_write(running, Span::at(10, 6), true);
    assert_eq!(dirty(&share.sent()[0]), [Range { start: 10, end: 16 }]);
}

/// Else points of a share could be called exact that lack what a session does that vfsxd does not know of.
#[test]
fn a_session_that_vfsxd_does_not_know_leaves_a_flag_before_it_changes_anything() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let live = scratch.path().join("gaps/data/live").join("07".repeat(16));
    let mut config = config(scratch.path(), 1 << 20);
    copy(&mut config);
    let mut capture = Capture::new(Client::new(config.clone(), host(), hello()));
    capture.enter();
    assert!(!live.exists(), "reading changes nothing");
    let entered = capture.client().began_ns();
    capture.about_to_change(Change::Tree);
    assert!(live.exists());
    assert!(
        capture.client().began_ns() > entered,
        "who counts the call has seen the flag"
    );
    capture.panicked();
    capture.leave();

    let daemon = Daemon::start(scratch.path());
    while capture.client().watch().1.is_none() {
        let at = capture.deadline().expect("an attempt is due");
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        capture.tick(Instant::now());
    }
    let mut connection = daemon.accept();
    connection.welcome(0);
    capture.enter();
    capture.readable();
    capture.leave();
    assert!(live.exists(), "vfsxd does not have the change yet");
    connection.events(1);
    connection.send(&ToModule::Ack { sequence: 1 });
    capture.readable();
    assert!(!live.exists());
    capture.enter();
    capture.about_to_change(Change::Tree);
    capture.leave();
    assert!(!live.exists(), "vfsxd knows of this session");

    let map = Config {
        mode: Mode::Map,
        socket: scratch.path().join("none"),
        ..config
    };
    let mut capture = Capture::new(Client::new(map, host(), hello()));
    capture.enter();
    assert!(!live.exists());
    capture.about_to_change(Change::Content);
    assert!(
        live.exists(),
        "nor would anybody know of a session that tells no data"
    );
    capture.leave();
}

#[test]
fn a_connection_that_ends_with_changes_under_way_leaves_a_flag_before_it_is_closed() {
    let mut share = copying();
    let live = share.scratch.path().join("gaps/data/live").join("07".repeat(16));
    let file = share.file("f");
    share.send_write(&file, None, 0, b"data");
    assert!(!live.exists());
    share.connection.close();
    share.call(Capture::readable);
    assert!(live.exists());
}

#[test]
fn memory_of_an_idle_session_is_given_back_and_taken_again() {
    let mut share = copying();
    let file = share.file("f");
    let going = share.send_write(&file, None, 0, &[1; 4096]);
    share.end_write(going, Span::at(0, 4096), true);
    let used = |share: &Share| share.memory().file.metadata().expect("stat").blocks() * 512;
    assert!(used(&share) >= MAX_WRITE as u64);
    share.call(|capture| capture.tick(Instant::now() + Duration::from_secs(60)));
    assert!(used(&share) >= MAX_WRITE as u64, "it is not acknowledged");
    share.acknowledge(2);
    let deadline = share.capture.deadline().expect("idle some time");
    share.call(|capture| capture.tick(deadline));
    assert!(used(&share) < MAX_WRITE as u64);
    assert_eq!(share.capture.deadline(), None);
    share.connection.events(2);
    share.send_write(&file, Some(going), 0, b"again");
    let told = share.connection.events(1);
    assert_eq!(share.data(&told[0].event).as_deref(), Some(&b"again"[..]));
}

#[test]
fn what_goes_to_the_spool_announces_no_data_that_would_end_with_the_process() {
    let mut share = copying();
    let file = share.file("f");
    let going = share.send_write(&file, None, 0, b"data");
    share.end_write(going, Span::at(0, 4), true);
    let path = make_spool(share.scratch.path()).join("07".repeat(16));
    share.capture.finish();
    let spooled = fs::read(path).expect("the spool file");
    let mut decoder = Decoder::default();
    decoder.push(&spooled[PREAMBLE..]);
    assert_eq!(decoder.next(), Ok(Some(ToDaemon::Hello(hello()))));
    assert_eq!(
        share.word(Word::Begun),
        share.word(Word::Ended),
        "it was not cut short"
    );
}
