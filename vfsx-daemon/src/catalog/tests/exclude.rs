//! Names that are not replicated.

use super::names::{rename, unlink};
use super::rig::{BLOCK, Rig, join, kind_of};
use crate::journal::{Body, DirRef, NodeKind, NodeRef, Range};
use std::fs;
use std::time::Duration;

const PATTERNS: &str = "/~$*/*.tmp/.cache/";

/// Excluded objects are gone at once, so there is no grace that would make it so in the end.
fn rig() -> Rig {
    let rig = Rig::with_options(|_| {}, |options| options.grace = Duration::from_secs(3600));
    rig.settle();
    rig.exclude(PATTERNS);
    rig
}

/// What a client tells of a file that it writes and keeps open, under the name that it had when it was opened.
struct Open {
    node: NodeRef,
    path_hint: Vec<u8>,
}

impl Open {
    fn new(rig: &Rig, path: &str) -> Self {
        let (node, path_hint) = (rig.node(path), path.as_bytes().to_vec());
        rig.feed(Body::Opened {
            handle: 7,
            node,
            path_hint: path_hint.clone(),
        });
        Self { node, path_hint }
    }

    /// Writes at where the file is by now.
    fn write(&self, rig: &Rig, at: &str, offset: u64, content: &[u8]) {
        rig.write_at(at, offset, content);
        let end = offset + content.len() as u64;
        rig.feed(Body::Dirty {
            handle: 7,
            node: self.node,
            path_hint: self.path_hint.clone(),
            ranges: vec![Range { start: offset, end }],
            whole: false,
        });
    }

    fn close(&self, rig: &Rig) {
        rig.feed(Body::Closed {
            handle: 7,
            node: self.node,
        });
    }
}

fn assert_no_gap(rig: &Rig) {
    assert_eq!(rig.catalog.status().gap, None);
}

#[test]
fn what_was_there_before_goes_when_it_is_excluded_and_comes_back_when_it_is_not() {
    let rig = Rig::with(|share| {
        fs::create_dir_all(share.join(".cache/deep/er")).unwrap();
        fs::write(share.join(".cache/deep/er/f"), b"in a cache").unwrap();
        fs::write(share.join("a.tmp"), b"temporary").unwrap();
        fs::write(share.join("a.txt"), b"text").unwrap();
    });
    rig.check();
    assert_eq!(rig.settle().objects, 7);
    rig.exclude(PATTERNS);
    rig.check();
    assert_eq!(rig.settle().objects, 2, "the root and the text");
    rig.exclude("/*.tmp/");
    rig.check();
    assert!(rig.id(".cache/deep/er/f").is_some() && rig.id("a.tmp").is_none());
    rig.exclude("");
    rig.check();
    assert_eq!(rig.settle().objects, 7);
    assert_no_gap(&rig);
}

#[test]
fn excluded_files_and_all_in_excluded_directories_are_never_entered_and_hold_up_nothing() {
    let rig = rig();
    let before = rig.settle().objects;
    rig.make_file("", "~$report.docx", b"owner");
    rig.make_dir("", ".cache");
    rig.make_dir(".cache", "sub");
    rig.make_file(".cache/sub", "f", &[1; 9000]);
    let open = Open::new(&rig, ".cache/sub/f");
    open.write(&rig, ".cache/sub/f", 0, b"again");
    rig.feed(Body::Touched {
        node: rig.node(".cache/sub"),
        path_hint: b".cache/sub".to_vec(),
        changed: Default::default(),
    });
    let moved = rename(&rig, (".cache/sub", "f"), (".cache", "g"));
    rig.feed(moved);
    let event = unlink(&rig, ".cache", "g");
    rig.feed(event);
    rig.check();
    assert_eq!(rig.settle().objects, before);
    assert_eq!(rig.settle().bytes_read, 0);
    assert_no_gap(&rig);
}

/// The way of Office and of many editors. `late`: the rename is another process's, and is told before or after the writes.
fn save_over(late: bool) {
    let rig = rig();
    rig.make_file("", "report.docx", &[1; 3 * BLOCK as usize]);
    rig.check();
    let old = rig.id("report.docx");
    fs::write(rig.path("x.tmp"), [2; 5 * BLOCK as usize]).unwrap();
    if !late {
        rig.created("", "x.tmp", NodeKind::File);
    }
    let open = Open::new(&rig, "x.tmp");
    open.write(&rig, "x.tmp", 0, &[3; 4 * BLOCK as usize]);
    let saved = rename(&rig, ("", "x.tmp"), ("", "report.docx"));
    if late {
        open.write(&rig, "report.docx", BLOCK, &[4; BLOCK as usize]);
        rig.wait("it is applied", |s| s.applied == rig.fed());
        rig.feed_as(2, saved);
        let node = rig.node("report.docx");
        let root = rig.dir("");
        rig.feed(Body::Create {
            dir: root,
            name: b"x.tmp".to_vec(),
            node,
            kind: NodeKind::File,
        });
    } else {
        rig.feed(saved);
        rig.wait("it is applied", |s| s.applied == rig.fed());
    }
    open.write(&rig, "report.docx", 2 * BLOCK, &[5; 100]);
    open.close(&rig);
    rig.check();
    assert_ne!(rig.id("report.docx"), old);
    assert!(rig.id("x.tmp").is_none());
    assert_eq!(rig.settle().objects, 2, "the one that was replaced is gone");
    assert_no_gap(&rig);
}

#[test]
fn an_excluded_file_renamed_over_an_included_one_arrives_whole_though_it_is_still_written() {
    save_over(false);
}

#[test]
fn the_same_when_the_rename_is_told_by_another_process_before_the_file_was() {
    save_over(true);
}

#[test]
fn an_included_file_renamed_to_an_excluded_name_is_gone_and_writes_to_it_hold_up_nothing() {
    let rig = rig();
    rig.make_file("", "report.docx", b"content");
    rig.make_file("", "other", b"other");
    rig.make_dir("", ".cache");
    rig.check();
    let open = Open::new(&rig, "report.docx");
    open.write(&rig, "report.docx", 0, b"changed");
    let moved = rename(&rig, ("", "report.docx"), ("", "~$report.tmp"));
    rig.feed(moved);
    open.write(&rig, "~$report.tmp", 3, b"more");
    let moved = rename(&rig, ("", "other"), (".cache", "other"));
    rig.feed(moved);
    rig.check();
    assert_eq!(rig.settle().objects, 1);
    // Back again, still open.
    let moved = rename(&rig, ("", "~$report.tmp"), ("", "report.docx"));
    rig.feed(moved);
    open.write(&rig, "report.docx", 20, b"and more");
    open.close(&rig);
    rig.check();
    assert!(rig.id("report.docx").is_some());
    assert_no_gap(&rig);
}

#[test]
fn a_tree_renamed_to_an_excluded_name_is_gone_with_what_is_unread_in_it_and_comes_back_whole() {
    let rig = rig();
    rig.make_dir("", "keep");
    rig.make_dir("keep", "deep");
    rig.make_dir("keep/deep", "er");
    for n in 0..5 {
        rig.make_file(
            "keep/deep/er",
            &format!("f{n}"),
            format!("content {n}").as_bytes(),
        );
    }
    rig.check();
    let open = Open::new(&rig, "keep/deep/er/f1");
    let moved = rename(&rig, ("", "keep"), ("", ".cache"));
    rig.feed(moved);
    open.write(&rig, ".cache/deep/er/f1", 0, b"CHANGED");
    rig.make_file(".cache/deep/er", "new", b"made meanwhile");
    rig.check();
    assert_eq!(rig.settle().objects, 1);
    // One who does not know of the rename.
    fs::create_dir(rig.path(".cache/deep/stale")).unwrap();
    rig.feed(Body::Create {
        dir: DirRef {
            node: rig.node(".cache/deep"),
            path_hint: b"keep/deep".to_vec(),
        },
        name: b"stale".to_vec(),
        node: rig.node(".cache/deep/stale"),
        kind: NodeKind::Directory,
    });
    rig.check();
    let moved = rename(&rig, ("", ".cache"), ("", "kept"));
    rig.feed(moved);
    rig.check();
    assert_eq!(rig.settle().objects, 1 + 3 + 5 + 1 + 1);
    assert_no_gap(&rig);
}

#[test]
fn a_directory_that_was_excluded_before_it_was_known_is_no_riddle_and_no_empty_one_when_it_is_back() {
    let rig = rig();
    fs::create_dir(rig.path("d")).unwrap();
    let created = Body::Create {
        dir: rig.dir(""),
        name: b"d".to_vec(),
        node: rig.node("d"),
        kind: NodeKind::Directory,
    };
    let out = rename(&rig, ("", "d"), ("", ".cache"));
    rig.make_file(".cache", "f", b"made in the excluded one");
    let back = rename(&rig, ("", ".cache"), ("", "d"));
    rig.wait("it is applied", |s| s.applied == rig.fed());
    // The other processes are late.
    rig.feed_as(2, out);
    rig.feed_as(3, created);
    rig.check();
    assert!(rig.id("d/f").is_some());
    rig.feed_as(2, back);
    rig.check();
    assert_no_gap(&rig);
}

#[test]
fn what_was_made_in_a_directory_before_it_was_excluded_and_is_told_after_that_is_no_riddle() {
    let rig = rig();
    fs::create_dir_all(rig.path("d/sub")).unwrap();
    let created = |dir: &str, name: &str| Body::Create {
        dir: rig.dir(dir),
        name: name.into(),
        node: rig.node(&join(dir, name)),
        kind: kind_of(&rig.path(&join(dir, name))),
    };
    fs::write(rig.path("d/sub/f"), b"content").unwrap();
    let late = [created("", "d"), created("d", "sub"), created("d/sub", "f")];
    let out = rename(&rig, ("", "d"), ("", ".cache"));
    rig.feed_as(2, out);
    for event in late {
        rig.feed(event);
    }
    rig.check();
    assert_eq!(rig.settle().objects, 1);
    assert_no_gap(&rig);
}

/// All is at the excluded name when the first event is taken in. `late`: another process says last that the directory was made.
fn come_and_go(late: bool) {
    let rig = rig();
    let made = |dir: &str, name: &str| {
        let path = join(dir, name);
        fs::create_dir(rig.path(&path)).unwrap();
        Body::Create {
            dir: rig.dir(dir),
            name: name.into(),
            node: rig.node(&path),
            kind: NodeKind::Directory,
        }
    };
    let top = made("", "d");
    let mut events = vec![made("d", "sub"), made("d/sub", "deep"), made("d/sub/deep", "er")];
    events.extend([
        made("", "x"),
        rename(&rig, ("", "x"), ("d/sub", "x")),
        made("d/sub/x", "y"),
    ]);
    events.push(rename(&rig, ("", "d"), ("", ".cache")));
    events.insert(if late { events.len() } else { 0 }, top);
    for event in events {
        rig.feed(event);
    }
    rig.check();
    assert_eq!(rig.settle().objects, 1);
    assert_no_gap(&rig);
}

#[test]
fn directories_that_left_with_one_that_was_excluded_before_they_were_seen_are_no_riddle() {
    come_and_go(false);
}

#[test]
fn the_same_when_the_one_that_was_excluded_was_not_known_either() {
    come_and_go(true);
}

#[test]
fn a_tree_moved_into_a_directory_that_was_excluded_before_it_was_seen_is_gone() {
    let rig = rig();
    rig.make_dir("", "x");
    rig.make_dir("x", "y");
    rig.make_file("x/y", "f", b"content");
    rig.check();
    fs::create_dir(rig.path("d")).unwrap();
    let node = rig.node("d");
    let moved = rename(&rig, ("", "x"), ("d", "x"));
    let out = rename(&rig, ("", "d"), ("", ".cache"));
    rig.feed(Body::Create {
        dir: rig.dir(""),
        name: b"d".to_vec(),
        node,
        kind: NodeKind::Directory,
    });
    rig.feed(moved);
    rig.feed(out);
    rig.check();
    assert_eq!(rig.settle().objects, 1);
    assert_no_gap(&rig);
}

#[test]
fn an_excluded_hard_link_is_no_name_and_the_other_stays_one() {
    let rig = rig();
    rig.make_file("", "a", &[7; 5000]);
    for (new, is_excluded) in [("b", false), ("c.tmp", true)] {
        fs::hard_link(rig.path("a"), rig.path(new)).unwrap();
        rig.feed(Body::Link {
            dir: rig.dir(""),
            name: new.into(),
            node: rig.node("a"),
        });
        rig.check();
        assert_eq!(rig.id(new).is_none(), is_excluded);
    }
    let moved = rename(&rig, ("", "a"), ("", "a.tmp"));
    rig.feed(moved);
    rig.write_at("b", 100, b"through the other name");
    rig.written("b", 100..122);
    rig.check();
    assert!(rig.id("b").is_some());
}

#[test]
fn what_an_older_tree_connect_says_does_not_count() {
    let rig = rig();
    let newest = rig.catalog.excluded().unwrap();
    rig.catalog.set_exclude(b"/*/".to_vec(), false, 1).unwrap();
    assert_eq!(rig.catalog.excluded().unwrap(), newest);
    rig.make_file("", "f", b"still taken in");
    rig.check();
    assert!(rig.id("f").is_some());
}

#[test]
fn patterns_survive_a_restart_and_a_scan_in_the_middle() {
    let mut rig = Rig::with(|share| {
        for n in 0..200 {
            fs::write(share.join(format!("{n}.tmp")), b"temporary").unwrap();
            fs::write(share.join(format!("{n}.txt")), b"text").unwrap();
        }
    });
    rig.settle();
    let since_ns = i64::MAX / 2;
    rig.crash_after(2, true);
    let _ = rig.catalog.set_exclude(PATTERNS.into(), false, since_ns);
    rig.restart();
    let now_ns = 1_700_000_000_000_000_000;
    // Once more, as modules do that come back: a clock that was ahead then is right by now.
    rig.catalog.set_exclude(PATTERNS.into(), false, now_ns).unwrap();
    rig.check();
    assert_eq!(rig.settle().objects, 201);
    rig.make_file("", "new.tmp", b"temporary");
    rig.check();
}
