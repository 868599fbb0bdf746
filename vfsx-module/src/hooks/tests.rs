//! Hooks on a real directory, with vfsxd's end of the socket held by the test.

use super::*;
use crate::client::tests::{Connection, Daemon, config, hello, host};
use crate::config::Config;
use crate::memory::tests::Reader;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vfsx_proto::ring::Word;
use vfsx_proto::{Changed, Event, NodeKind, Range, ToDaemon, ToModule};

const STAT: Changed = Changed {
    stat: true,
    xattrs: false,
};
const XATTRS: Changed = Changed {
    stat: false,
    xattrs: true,
};
const DONE: Outcome = Outcome::Done;

pub(super) struct Share {
    pub(super) scratch: tempfile::TempDir,
    open: File,
    pub(super) connection: Connection,
    pub(super) capture: Capture,
}

impl Share {
    fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let scratch = tempfile::tempdir().expect("scratch directory");
        let daemon = Daemon::start(scratch.path());
        let mut config = config(scratch.path(), 1 << 20);
        configure(&mut config);
        let client = Client::new(config, host(), hello());
        let mut connection = daemon.accept();
        connection.welcome(0);
        let mut capture = Capture::new(client);
        capture.readable();
        fs::create_dir(scratch.path().join("share")).expect("share");
        let open = File::open(scratch.path().join("share")).expect("open");
        Self {
            scratch,
            open,
            connection,
            capture,
        }
    }

    pub(super) fn memory(&self) -> &Reader {
        self.connection.memory.as_ref().expect("a descriptor came")
    }

    pub(super) fn word(&self, word: Word) -> u64 {
        self.memory().word(word)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join("share").join(name)
    }

    pub(super) fn place(&self, name: &str) -> Place {
        let root = self.path("");
        let root = root.as_os_str().as_bytes();
        Place::new(self.open.as_raw_fd(), root, name.as_bytes(), root).expect("place")
    }

    /// Runs one call of smbd.
    pub(super) fn call(&mut self, work: impl FnOnce(&mut Capture)) {
        self.capture.enter();
        work(&mut self.capture);
        self.capture.leave();
    }

    pub(super) fn acknowledge(&mut self, sequence: u64) {
        self.connection.send(&ToModule::Ack { sequence });
        self.capture.readable();
    }

    /// All events sent so far: the answer to a request comes after them.
    pub(super) fn sent(&mut self) -> Vec<Event> {
        self.connection.send(&ToModule::SendNow { token: 1 });
        self.capture.readable();
        let mut events = Vec::new();
        loop {
            match self.connection.message() {
                ToDaemon::Events(more) => events.extend(more.into_iter().map(|stamped| stamped.event)),
                _ => return events,
            }
        }
    }
}

pub(super) fn node(path: &Path) -> NodeRef {
    let file = File::open(path).expect("open");
    os::identify(file.as_raw_fd()).expect("identity").node
}

#[test]
fn a_created_file_is_named_by_the_identity_of_its_directory_and_itself() {
    let mut share = Share::new();
    fs::create_dir(share.path("d")).expect("directory");
    let name = Name::of(share.place("d/f"));
    let file = File::create(share.path("d/f")).expect("file");
    share.call(|capture| {
        let _ = capture.opened_creating(name, file.as_raw_fd(), 0);
    });
    let dir = vfsx_proto::DirRef {
        node: node(&share.path("d")),
        path_hint: b"d".to_vec(),
    };
    let expected = Event::Create {
        dir,
        name: b"f".to_vec(),
        node: node(&share.path("d/f")),
        kind: NodeKind::File,
    };
    assert_eq!(share.sent(), [expected]);
}

#[test]
fn an_open_that_is_still_running_makes_the_name_suspect_and_a_refused_one_does_not() {
    let mut share = Share::new();
    let (later, refused) = (Name::of(share.place("later")), Name::of(share.place("refused")));
    share.call(|capture| {
        capture.opened_creating(later, -1, libc::EINPROGRESS);
        capture.opened_creating(refused, -1, libc::EACCES);
    });
    let events = share.sent();
    assert!(
        matches!(&events[..], [Event::Look { name, .. }] if name == b"later"),
        "{events:?}"
    );
}

#[test]
fn a_rename_names_what_it_replaced() {
    let mut share = Share::new();
    fs::write(share.path("a"), "a").expect("file");
    fs::write(share.path("b"), "b").expect("file");
    let (a, b) = (node(&share.path("a")), node(&share.path("b")));
    let (from, to) = (Name::look(share.place("a")), Name::look(share.place("b")));
    fs::rename(share.path("a"), share.path("b")).expect("rename");
    share.call(|capture| capture.renamed(from, to, DONE));
    let events = share.sent();
    assert!(
        matches!(&events[..], [Event::Rename { node, replaced: Some(old), .. }] if *node == a && *old == b)
    );
}

#[test]
fn renaming_one_hard_link_over_another_removes_no_name() {
    let mut share = Share::new();
    fs::write(share.path("a"), "a").expect("file");
    fs::hard_link(share.path("a"), share.path("b")).expect("link");
    let (from, to) = (Name::look(share.place("a")), Name::look(share.place("b")));
    fs::rename(share.path("a"), share.path("b")).expect("rename");
    assert!(share.path("a").exists(), "rename(2) leaves both");
    share.call(|capture| capture.renamed(from, to, DONE));
    let events = share.sent();
    assert!(
        matches!(&events[..], [Event::Look { .. }, Event::Look { .. }]),
        "{events:?}"
    );
}

#[test]
fn an_unlink_names_what_was_there_before() {
    let mut share = Share::new();
    fs::write(share.path("a"), "a").expect("file");
    let gone = node(&share.path("a"));
    let name = Name::look(share.place("a"));
    fs::remove_file(share.path("a")).expect("removed");
    share.call(|capture| capture.unlinked(name, DONE));
    assert!(matches!(&share.sent()[..], [Event::Unlink { node, .. }] if *node == gone));
}

#[test]
fn opened_is_in_the_socket_before_the_first_write_and_ranges_come_before_closed() {
    let mut share = Share::new();
    let file = File::create(share.path("f")).expect("file");
    share.capture.enter();
    let handle = share
        .capture
        .writing(None, Descriptor::unknown(file.as_raw_fd()), || b"f".to_vec())
        .expect("a file");
    // Still inside the call, so nothing but `writing` has sent.
    let [announced] = &share.connection.events(1)[..] else {
        panic!("one event")
    };
    assert!(matches!(&announced.event, Event::Opened { path_hint, .. } if path_hint == b"f"));
    share.capture.changed(handle, Span::at(0, 10));
    share.capture.leave();
    share.call(|capture| {
        assert_eq!(
            capture.writing(Some(handle), Descriptor::unknown(file.as_raw_fd()), Vec::new),
            Some(handle)
        );
        capture.changed(handle, Span::at(10, 10));
    });
    share.call(|capture| capture.closed(handle));
    let events = share.sent();
    let [
        Event::Dirty {
            ranges, whole: false, ..
        },
        Event::Closed { .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(ranges[..], [Range { start: 0, end: 20 }]);
}

#[test]
fn a_directory_or_pipe_has_no_content_to_report() {
    let mut share = Share::new();
    let directory = share.open.as_raw_fd();
    assert_eq!(
        share
            .capture
            .writing(None, Descriptor::unknown(directory), Vec::new),
        None
    );
    assert_eq!(
        share.capture.writing(None, Descriptor::unknown(-1), Vec::new),
        None
    );
    assert_eq!(share.sent(), []);
}

#[test]
fn a_file_closed_while_a_thread_may_still_write_is_never_reported_closed() {
    let mut share = Share::new();
    let file = File::create(share.path("f")).expect("file");
    let handle = share
        .capture
        .writing(None, Descriptor::unknown(file.as_raw_fd()), Vec::new)
        .expect("a file");
    share.call(|capture| {
        capture.started(Going::untracked(handle));
        capture.started(Going::untracked(handle));
    });
    share.call(|capture| capture.ended(Going::untracked(handle), Span::at(0, 5), true));
    share.call(|capture| capture.closed(handle));
    share.call(|capture| capture.lost(Going::untracked(handle), Span::at(5, 5)));
    share.call(|capture| capture.closed(handle));
    let events = share.sent();
    assert!(
        !events.iter().any(|event| matches!(event, Event::Closed { .. })),
        "{events:?}"
    );
    let dirty: Vec<_> = events
        .iter()
        .filter(|event| matches!(event, Event::Dirty { .. }))
        .collect();
    assert_eq!(dirty.len(), 2, "both writes are reported: {events:?}");
    assert!(
        share.capture.has_abandoned(),
        "so the socket stays open until the process ends"
    );
}

#[test]
fn a_range_is_not_held_back_longer_than_its_age() {
    let mut share = Share::new();
    let file = File::create(share.path("f")).expect("file");
    let handle = share
        .capture
        .writing(None, Descriptor::unknown(file.as_raw_fd()), Vec::new)
        .expect("a file");
    share.acknowledge(1);
    assert_eq!(share.capture.deadline(), None);
    let start = Instant::now();
    share.call(|capture| capture.changed(handle, Span::at(0, 5)));
    let deadline = share.capture.deadline().expect("a deadline");
    assert!(deadline <= Instant::now() + AGE && deadline >= start + AGE);
    share.capture.tick(deadline - Duration::from_millis(1));
    assert_eq!(share.capture.deadline(), Some(deadline), "too early");
    share.capture.tick(deadline);
    assert!(share.capture.deadline().is_some(), "vfsxd may hang");
    share.acknowledge(2);
    assert_eq!(share.capture.deadline(), None);
    let [_, dirty] = &share.connection.events(2)[..] else {
        panic!("two events")
    };
    assert!(matches!(dirty.event, Event::Dirty { .. }));
}

#[test]
fn too_many_ranges_go_out_at_once() {
    let mut share = Share::new();
    let file = File::create(share.path("f")).expect("file");
    let handle = share
        .capture
        .writing(None, Descriptor::unknown(file.as_raw_fd()), Vec::new)
        .expect("a file");
    for n in 0..MAX_RANGES as i64 {
        share.call(|capture| capture.changed(handle, Span::at(n * 10, 5)));
    }
    let [_, dirty] = &share.connection.events(2)[..] else {
        panic!("two events")
    };
    assert!(matches!(&dirty.event, Event::Dirty { ranges, .. } if ranges.len() == MAX_RANGES));
}

#[test]
fn nested_calls_report_an_object_once_and_only_at_the_end() {
    let mut share = Share::new();
    fs::write(share.path("f"), "").expect("file");
    let file = File::open(share.path("f")).expect("open");
    share.call(|capture| {
        for changed in [XATTRS, STAT, XATTRS] {
            capture.enter();
            capture.touched(file.as_raw_fd(), None, || b"f".to_vec(), changed);
            capture.leave();
        }
    });
    let changed = Changed {
        stat: true,
        xattrs: true,
    };
    let expected = Event::Touched {
        node: node(&share.path("f")),
        path_hint: b"f".to_vec(),
        changed,
    };
    assert_eq!(share.sent(), [expected]);
}

/// Else a process that is killed there has changed what nobody knows of.
#[test]
fn a_change_is_under_way_for_vfsxd_until_it_is_noted() {
    let mut share = Share::new();
    fs::write(share.path("f"), "").expect("file");
    let file = File::open(share.path("f")).expect("open");
    let under_way = |share: &Share| share.word(Word::Begun) - share.word(Word::Ended);

    // A name is noted at once, also within another call.
    share.capture.enter();
    share.capture.enter();
    assert_eq!(under_way(&share), 0, "reading changes nothing");
    share.capture.about_to_change(Change::Tree);
    assert_eq!(under_way(&share), 1);
    fs::create_dir(share.path("d")).expect("directory");
    let name = Name::of(share.place("d"));
    assert_eq!(under_way(&share), 1);
    share.capture.created(name, DONE);
    share.capture.leave();
    assert_eq!(under_way(&share), 0);

    // Metadata is when the outermost call ends, and so is all before it.
    share.capture.enter();
    share.capture.about_to_change(Change::Tree);
    share
        .capture
        .touched(file.as_raw_fd(), None, || b"f".to_vec(), STAT);
    share.capture.leave();
    share.capture.enter();
    share.capture.about_to_change(Change::Tree);
    share.capture.leave();
    assert_eq!(under_way(&share), 1);
    share.capture.leave();
    assert_eq!(under_way(&share), 0);
    assert_eq!(share.word(Word::Begun), 2);

    // A call within another change does not end it.
    share.capture.enter();
    share.capture.about_to_change(Change::Tree);
    share.capture.enter();
    share.capture.about_to_change(Change::Tree);
    share.capture.leave();
    assert_eq!(under_way(&share), 1);
    share.capture.leave();
    assert_eq!(under_way(&share), 0);

    // vfsxd compares files that a killed process had written.
    share.capture.enter();
    share.capture.about_to_change(Change::Content);
    assert_eq!(under_way(&share), 0);
    share.capture.leave();
    assert_eq!(share.word(Word::Begun), 3);
}

#[test]
fn a_flush_reports_ranges_before_itself_and_a_failed_one_only_the_ranges() {
    let mut share = Share::new();
    let file = File::create(share.path("f")).expect("file");
    let handle = share
        .capture
        .writing(None, Descriptor::unknown(file.as_raw_fd()), Vec::new)
        .expect("a file");
    share.call(|capture| {
        capture.changed(handle, Span::Whole);
        capture.flushed(handle, true);
        capture.changed(handle, Span::at(3, 4));
        capture.flushed(handle, false);
    });
    let events = share.sent();
    assert!(
        matches!(
            &events[..],
            [
                Event::Opened { .. },
                Event::Dirty { whole: true, .. },
                Event::Flushed { .. },
                Event::Dirty { whole: false, .. }
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn a_panic_is_a_gap() {
    let mut share = Share::new();
    share.call(Capture::panicked);
    assert!(matches!(
        &share.sent()[..],
        [Event::Gap {
            reason: GapReason::Panic,
            ..
        }]
    ));
}

#[test]
fn what_is_held_back_at_the_end_is_sent_then() {
    let mut share = Share::new();
    let file = File::create(share.path("f")).expect("file");
    let handle = share
        .capture
        .writing(None, Descriptor::unknown(file.as_raw_fd()), Vec::new)
        .expect("a file");
    share.call(|capture| capture.changed(handle, Span::at(0, 5)));
    let mut connection = share.connection;
    let daemon = std::thread::spawn(move || {
        let events = connection.events(2);
        connection.send(&ToModule::Ack { sequence: 2 });
        events
    });
    share.capture.finish();
    let events = daemon.join().expect("daemon");
    assert!(matches!(events[1].event, Event::Dirty { .. }));
    assert!(share.capture.client().is_settled());
}

#[test]
fn files_open_for_writing_are_named_again_to_a_new_daemon() {
    let mut share = Share::new();
    fs::write(share.path("f"), "").expect("file");
    let file = File::options().write(true).open(share.path("f")).expect("open");
    let mut handle = None;
    share.call(|capture| {
        handle = capture.writing(None, Descriptor::unknown(file.as_raw_fd()), || b"f".to_vec())
    });
    let opened = share.sent();
    assert!(matches!(&opened[..], [Event::Opened { .. }]), "{opened:?}");
    share.acknowledge(1);
    assert!(share.capture.client().is_settled());

    let daemon = Daemon::start(share.scratch.path());
    share.connection.close();
    share.capture.readable();
    while share.capture.client().watch().1.is_none() {
        let at = share.capture.deadline().expect("an attempt is due");
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        share.capture.tick(Instant::now());
    }
    share.connection = daemon.accept();
    share.connection.welcome(1);
    share.capture.readable();
    assert_eq!(share.sent(), opened);
}
