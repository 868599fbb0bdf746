use super::rig::{BLOCK, Rig, join, past_the_tick};
use crate::catalog::ScanState;
use crate::catalog::applier::Request;
use crate::catalog::share::Doubt;
use crate::journal::{Body, GapReason, NodeKind, Range};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: Duration = Duration::from_secs(3600);

fn fill(root: &Path) {
    for d in 0..5 {
        let dir = root.join(format!("dir{d}/sub"));
        fs::create_dir_all(&dir).unwrap();
        for f in 0..40usize {
            fs::write(dir.join(format!("f{f}")), vec![f as u8; f * 531]).unwrap();
        }
    }
    fs::hard_link(root.join("dir0/sub/f9"), root.join("dir1/linked")).unwrap();
    std::os::unix::fs::symlink("dir0", root.join("link")).unwrap();
}

fn scan(rig: &Rig) {
    let number = rig.catalog.request_scan().unwrap();
    rig.wait("the scan has finished", |s| {
        s.scan.finished >= number && s.scan.state == ScanState::Done
    });
}

#[test]
fn a_share_with_content_is_taken_in_whole() {
    let rig = Rig::with(fill);
    rig.check();
    let status = rig.catalog.status();
    assert_eq!((status.scan.finished, status.scan.state), (1, ScanState::Done));
    assert_eq!(status.scan.files, 5 * 40 + 2);
}

#[test]
fn a_scan_that_is_stopped_goes_on_and_reads_nothing_twice() {
    let mut rig = Rig::with(fill);
    let mut read = 0;
    for _ in 0..6 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        read += rig.catalog.status().bytes_read;
        rig.restart();
    }
    rig.check();
    read += rig.catalog.status().bytes_read;
    let content: u64 = 5 * (0..40u64).map(|f| f * 531).sum::<u64>();
    // A read that a stop cut off is made again; there are few of these.
    assert!(read < content * 2, "{read} of {content}");
    let before = rig.catalog.status().bytes_read;
    scan(&rig);
    assert_eq!(
        rig.catalog.status().bytes_read,
        before,
        "a scan of an unchanged share reads no content"
    );
}

#[test]
fn a_scan_finds_what_no_event_told() {
    let rig = Rig::with(fill);
    rig.check();
    let before = rig.catalog.status().bytes_read;
    let moved = rig.id("dir3/sub/f30");
    fs::write(rig.path("dir0/sub/f1"), b"changed in place, other size").unwrap();
    fs::remove_file(rig.path("dir0/sub/f2")).unwrap();
    fs::remove_dir_all(rig.path("dir2")).unwrap();
    fs::rename(rig.path("dir3"), rig.path("dir1/moved")).unwrap();
    fs::create_dir_all(rig.path("new/deep")).unwrap();
    fs::write(rig.path("new/deep/f"), b"new").unwrap();
    // Same size, modification time put back: only the change time tells.
    let meta = fs::metadata(rig.path("dir4/sub/f20")).unwrap();
    fs::write(rig.path("dir4/sub/f20"), vec![99; meta.len() as usize]).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(rig.path("dir4/sub/f20"))
        .unwrap();
    file.set_modified(meta.modified().unwrap()).unwrap();

    scan(&rig);
    rig.check();
    assert_eq!(rig.id("dir1/moved/sub/f30"), moved);
    let read = rig.catalog.status().bytes_read - before;
    assert_eq!(read, 28 + 3 + meta.len());
}

#[test]
fn a_gap_stays_until_a_scan_that_began_after_it_is_done() {
    let rig = Rig::with(fill);
    rig.check();
    fs::write(rig.path("missed"), b"while nobody looked").unwrap();
    rig.feed(Body::Gap {
        since_ns: 77,
        reason: GapReason::DaemonAbsent,
    });
    let status = rig.settle();
    let gap = status.gap.unwrap();
    assert_eq!(
        (gap.since_ns, gap.reason.as_str()),
        (77, GapReason::DaemonAbsent.text())
    );
    assert!(rig.id("missed").is_none());
    scan(&rig);
    assert_eq!(rig.catalog.status().gap, None);
    assert!(rig.id("missed").is_some());
    rig.check();
}

#[test]
fn what_was_written_in_a_gap_is_found_in_a_file_that_was_read_in_part_since() {
    found_in_a_file_that_was_read_in_part_since(Duration::ZERO);
}

#[test]
fn so_it_is_when_the_clock_was_set_back_in_the_gap() {
    found_in_a_file_that_was_read_in_part_since(Duration::from_secs(3600));
}

fn found_in_a_file_that_was_read_in_part_since(set_back: Duration) {
    let rig = Rig::with(|root| {
        fs::write(root.join("early"), vec![1; 3 * BLOCK as usize]).unwrap();
        fs::write(root.join("late"), vec![1; 3 * BLOCK as usize]).unwrap();
    });
    rig.check();
    let now = SystemTime::now() + set_back;
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let untold = |path: &str| {
        let file = fs::File::options().write(true).open(rig.path(path)).unwrap();
        file.write_all_at(&[2; BLOCK as usize], 0).unwrap();
    };
    let told = |path: &str| {
        rig.write_at(path, BLOCK, &[3; BLOCK as usize]);
        rig.written(path, BLOCK..2 * BLOCK);
    };
    // Read in part before the journal could tell of the gap, and after.
    untold("early");
    told("early");
    rig.settle();
    rig.feed(Body::Gap {
        since_ns: now,
        reason: GapReason::RingFull,
    });
    rig.settle();
    untold("late");
    told("late");
    rig.settle();
    scan(&rig);
    assert_eq!(rig.catalog.status().gap, None);
    rig.check();
}

#[test]
fn clients_that_move_things_about_during_a_scan_hide_nothing_from_it() {
    let rig = Rig::with(fill);
    for round in 0..30 {
        let (from, to) = (format!("dir{}", round % 5), format!("moved{round}"));
        let event = Body::Rename {
            from: rig.dir(""),
            from_name: from.clone().into(),
            to: rig.dir(""),
            to_name: to.clone().into(),
            node: rig.node(&from),
            replaced: None,
        };
        fs::rename(rig.path(&from), rig.path(&to)).unwrap();
        rig.feed(event);
        rig.make_file(&to, &format!("new{round}"), b"new");
        let event = Body::Rename {
            from: rig.dir(""),
            from_name: to.clone().into(),
            to: rig.dir(""),
            to_name: from.clone().into(),
            node: rig.node(&to),
            replaced: None,
        };
        fs::rename(rig.path(&to), rig.path(&from)).unwrap();
        rig.feed(event);
    }
    rig.check();
}

#[test]
fn a_directory_moved_by_a_local_program_under_an_open_file_is_found_by_a_scan() {
    let rig = Rig::with(fill);
    rig.check();
    let id = rig.id("dir0/sub/f9");
    fs::rename(rig.path("dir0"), rig.path("elsewhere")).unwrap();
    let path = join("elsewhere/sub", "f9");
    rig.write_at(&path, 0, b"written under the old name");
    let node = rig.node(&path);
    rig.feed(Body::Touched {
        node,
        path_hint: b"dir0/sub/f9".to_vec(),
        changed: crate::journal::Changed {
            stat: true,
            xattrs: false,
        },
    });
    rig.make_file("", "unrelated", b"x");
    rig.wait("the rest goes on", |s| s.applied == rig.fed());
    scan(&rig);
    rig.check();
    assert_eq!(rig.id(&path), id);
}

#[test]
fn a_directory_that_a_local_program_took_away_holds_nothing_up() {
    let rig = Rig::with(fill);
    rig.check();
    let away = tempfile::tempdir_in(rig.path("..")).unwrap();
    let (node, dir) = (rig.node("dir0"), rig.dir(""));
    fs::rename(rig.path("dir0"), away.path().join("dir0")).unwrap();
    rig.feed(Body::Touched {
        node,
        path_hint: b"dir0".to_vec(),
        changed: crate::journal::Changed {
            stat: true,
            xattrs: true,
        },
    });
    rig.feed(Body::Look {
        dir,
        name: b"dir0".to_vec(),
    });
    let fed = rig.fed();
    let status = rig.wait("all is read", |s| s.covered == fed && s.dirty_objects == 0);
    assert_eq!((status.displaced, status.gap), (1, None));
    assert!(rig.id("dir0").is_none());
    scan(&rig);
    rig.check();
    assert_eq!(rig.catalog.status().displaced, 0);
}

/// As when something in it was on its way to be looked at: nobody will ever be able to.
#[test]
fn a_name_in_a_directory_that_a_local_program_removed_is_given_up_by_a_scan() {
    let rig = Rig::with(fill);
    rig.check();
    let (root, sub) = (rig.dir(""), rig.dir("dir0/sub"));
    fs::remove_dir_all(rig.path("dir0")).unwrap();
    for (dir, name) in [(root, "dir0"), (sub, "f9")] {
        let name = name.as_bytes().to_vec();
        rig.feed(Body::Look { dir, name });
    }
    let fed = rig.fed();
    rig.wait("nobody can look", |s| s.applied == fed && s.pending_looks > 0);
    assert!(rig.catalog.status().covered < fed);
    let status = rig.wait("it is given up", |s| s.gap.is_some());
    assert_eq!(
        status.scan.finished, 1,
        "not too often: the last one was a moment ago"
    );
    scan(&rig);
    rig.wait("the directory is dropped", |s| {
        s.displaced == 0 && s.covered == fed
    });
    rig.check();
    assert!(rig.catalog.status().gap.is_none());
}

/// Clients have just made it, and what could not be read for a moment is still under suspicion.
#[test]
fn a_directory_that_a_local_program_removes_right_after_clients_made_it_holds_nothing_up() {
    let rig = Rig::with_options(|_| {}, |options| options.grace = Duration::from_secs(2));
    rig.settle();
    for dir in ["a", "a/b"] {
        let (parent, name) = dir.rsplit_once('/').unwrap_or(("", dir));
        rig.make_dir(parent, name);
    }
    rig.make_file("a/b", "f", b"content");
    rig.settle();
    // It is not where it is believed to be, for a moment.
    fs::rename(rig.path("a/b/f"), rig.path("f")).unwrap();
    let id = rig.id("a/b/f").unwrap();
    rig.catalog.inner.requests.send(Request::Away(id)).unwrap();
    fs::rename(rig.path("f"), rig.path("a/b/f")).unwrap();
    fs::remove_dir_all(rig.path("a")).unwrap();
    rig.make_dir("", "a");
    let fed = rig.fed();
    // Longer than a suspicion waits.
    std::thread::sleep(Duration::from_secs(1));
    let status = rig.wait("all is applied", |s| s.covered == fed && s.displaced == 1);
    assert_eq!((status.pending_looks, status.gap), (0, None));
    scan(&rig);
    rig.check();
}

/// A file that is to be read when it was written for an hour.
fn write_for_long(rig: &Rig, path: &str) {
    rig.write_at(path, 0, b"new");
    let node = rig.node(path);
    rig.feed(Body::Dirty {
        handle: 1,
        node,
        path_hint: path.as_bytes().to_vec(),
        ranges: vec![Range { start: 0, end: 3 }],
        whole: false,
    });
    rig.wait("it is to be read", |s| {
        s.applied == rig.fed() && s.dirty_objects > 0
    });
}

/// What is unread in it cannot be read any more.
#[test]
fn a_directory_that_a_local_program_removed_with_unread_files_does_not_keep_a_scan_from_its_end() {
    let rig = Rig::with_options(fill, |options| options.flush_age = HOUR);
    rig.wait("the first scan is done", |s| s.scan.state == ScanState::Done);
    write_for_long(&rig, "dir0/sub/f9");
    fs::remove_dir_all(rig.path("dir0")).unwrap();
    scan(&rig);
    rig.check();
}

#[test]
fn so_it_is_when_it_is_removed_after_the_scan_was_there() {
    let rig = Rig::with_options(fill, |options| options.flush_age = HOUR);
    rig.wait("the first scan is done", |s| s.scan.state == ScanState::Done);
    write_for_long(&rig, "dir0/sub/f9");
    let first = rig.catalog.request_scan().unwrap();
    rig.wait("all is walked", |s| s.scan.directories == 11);
    assert!(
        rig.catalog.status().scan.finished < first,
        "it waits for the file"
    );
    let dir = rig.dir("");
    fs::remove_dir_all(rig.path("dir0")).unwrap();
    rig.feed(Body::Look {
        dir,
        name: b"dir0".to_vec(),
    });
    rig.wait("the removal is seen", |s| s.displaced > 0);
    scan(&rig);
    rig.check();
}

/// By its second name it is found while it is read, and again to be read, since the read has not told yet how it is.
#[test]
fn a_file_with_two_names_does_not_keep_the_first_scan_from_its_end() {
    let rig = Rig::with_options(
        |root| {
            for dir in ["a", "b/c/d/e"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            // It is read for longer than it takes to list a directory.
            fs::write(root.join("a/file"), vec![1; 64 << 20]).unwrap();
            fs::hard_link(root.join("a/file"), root.join("b/c/d/e/link")).unwrap();
        },
        |options| options.flush_age = HOUR,
    );
    rig.check();
}

#[test]
fn what_a_scan_finds_does_not_wait_in_line_with_what_clients_change() {
    // None of the readers that work for scans, too.
    let rig = Rig::with_options(fill, |options| options.readers = 0);
    rig.wait("the scan has found all", |s| s.scan.files == 5 * 40 + 2);
    fs::write(rig.path("dir0/sub/f7"), b"changed").unwrap();
    rig.written("dir0/sub/f7", 0..7);
    rig.make_file("dir1", "new", b"new");
    let status = rig.wait("what clients changed is read", |s| {
        s.applied == rig.fed() && s.bytes_read >= 10
    });
    // Once more, if they were seen to change. The smallest of the others that has content has 531.
    assert!(status.bytes_read <= 30, "{} bytes", status.bytes_read);
    assert_eq!(status.scan.state, ScanState::Running);
    assert!(status.dirty_objects >= 5 * 39 - 2, "{}", status.dirty_objects);
}

#[test]
fn a_file_created_while_a_scan_lists_its_directory_is_one_object() {
    let rig = Rig::with(|root| {
        for f in 0..3000 {
            fs::write(root.join(format!("f{f}")), b"x").unwrap();
        }
    });
    for i in 0..200 {
        fs::write(rig.path(&format!("c{i}")), format!("client {i}")).unwrap();
        rig.created("", &format!("c{i}"), NodeKind::File);
        rig.written(&format!("c{i}"), 0..10);
    }
    rig.check();
}

#[test]
fn what_was_changed_while_the_clock_was_wrong_is_found() {
    let rig = Rig::with(fill);
    rig.check();
    let before = rig.catalog.status().bytes_read;
    let set = |path: &str, seconds: i64| {
        let file = fs::File::options().write(true).open(rig.path(path)).unwrap();
        let time = match u64::try_from(seconds) {
            Ok(ahead) => SystemTime::now() + Duration::from_secs(ahead),
            Err(_) => UNIX_EPOCH + Duration::from_secs(1),
        };
        file.set_modified(time).unwrap();
    };
    let year = 365 * 24 * 3600;
    for (path, seconds) in [("dir0/sub/f1", year), ("dir1/sub/f2", -1)] {
        rig.write_at(path, 0, b"while the clock was wrong");
        set(path, seconds);
    }
    // Content of the same size, and the time that the catalog knows.
    let known = fs::metadata(rig.path("dir2/sub/f3")).unwrap().modified().unwrap();
    rig.write_at("dir2/sub/f3", 5, b"rewritten");
    let file = fs::File::options()
        .write(true)
        .open(rig.path("dir2/sub/f3"))
        .unwrap();
    file.set_modified(known).unwrap();
    scan(&rig);
    rig.check();
    let read = rig.catalog.status().bytes_read - before;
    assert_eq!(read, (1 + 2 + 3) * 531, "these three and nothing else");
    // Times ahead of the clock do not have it read again and again.
    past_the_tick();
    scan(&rig);
    assert_eq!(rig.catalog.status().bytes_read - before, read);
}

#[test]
fn a_local_write_in_the_clock_tick_of_the_read_is_found_by_the_next_scan() {
    let rig = Rig::with(fill);
    rig.check();
    let content = fs::read(rig.path("dir0/sub/f5")).unwrap();
    for doubt in [Doubt::None, Doubt::Content] {
        let new: Vec<u8> = content.iter().map(|byte| byte + 1 + doubt as u8).collect();
        rig.write_at("dir0/sub/f5", 0, &new);
        past_the_tick();
        // As when it was read in the tick of the write, before that.
        rig.believe("dir0/sub/f5", doubt);
        let before = rig.catalog.status().bytes_read;
        scan(&rig);
        let read = rig.catalog.status().bytes_read - before;
        assert_eq!(read > 0, doubt == Doubt::Content, "{doubt:?}");
    }
    rig.check();
    assert_eq!(rig.node_row("dir0/sub/f5").stamp.doubt(), Doubt::None);
    let before = rig.catalog.status().bytes_read;
    scan(&rig);
    assert_eq!(rig.catalog.status().bytes_read, before, "once is enough");
}

#[test]
fn attributes_set_in_the_clock_tick_of_the_look_are_found_by_the_next_scan() {
    let rig = Rig::with(fill);
    rig.check();
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(rig.path("dir0/sub/f5"), permissions).unwrap();
        past_the_tick();
    };
    mode(0o600);
    rig.believe("dir0/sub/f5", Doubt::Metadata);
    let before = rig.catalog.status().bytes_read;
    scan(&rig);
    rig.check();
    assert_eq!(rig.catalog.status().bytes_read, before, "no content");
}

#[test]
fn a_doubt_of_the_content_outlives_what_clients_do_to_the_name_and_the_metadata() {
    let rig = Rig::with(fill);
    rig.check();
    rig.believe("dir0/sub/f5", Doubt::Content);
    fs::rename(rig.path("dir0/sub/f5"), rig.path("dir0/sub/renamed")).unwrap();
    past_the_tick();
    rig.feed(Body::Rename {
        from: rig.dir("dir0/sub"),
        from_name: b"f5".to_vec(),
        to: rig.dir("dir0/sub"),
        to_name: b"renamed".to_vec(),
        node: rig.node("dir0/sub/renamed"),
        replaced: None,
    });
    rig.feed(Body::Touched {
        node: rig.node("dir0/sub/renamed"),
        path_hint: b"dir0/sub/renamed".to_vec(),
        changed: crate::journal::Changed {
            stat: true,
            xattrs: true,
        },
    });
    rig.settle();
    assert_eq!(rig.node_row("dir0/sub/renamed").stamp.doubt(), Doubt::Content);
}

#[test]
fn many_objects_that_wait_to_be_dropped_are_dropped_all_the_same() {
    let rig = Rig::with(|root| {
        for dir in ["a", "b"] {
            fs::create_dir(root.join(dir)).unwrap();
            for file in 0..1500 {
                fs::write(root.join(format!("{dir}/f{file}")), b"").unwrap();
            }
        }
    });
    rig.check();
    fs::remove_dir_all(rig.path("a")).unwrap();
    for file in 0..1500 {
        fs::remove_file(rig.path(&format!("b/f{file}"))).unwrap();
    }
    scan(&rig);
    rig.wait("all are dropped", |status| status.displaced == 0);
    rig.check();
}
