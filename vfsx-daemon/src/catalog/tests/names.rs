use super::rig::{Rig, join};
use crate::journal::{Body, Changed, NodeKind, NodeRef};
use restfs_lib::model::Op;
use std::fs;
use std::time::Duration;

/// A rename as the module tells it: identities taken before the call, hints of the moment.
struct Rename {
    body: Body,
}

impl Rename {
    fn prepare(rig: &Rig, from: (&str, &str), to: (&str, &str)) -> Self {
        let replaced = rig
            .path(&join(to.0, to.1))
            .symlink_metadata()
            .ok()
            .map(|_| rig.node(&join(to.0, to.1)));
        Self {
            body: Body::Rename {
                from: rig.dir(from.0),
                from_name: from.1.into(),
                to: rig.dir(to.0),
                to_name: to.1.into(),
                node: rig.node(&join(from.0, from.1)),
                replaced,
            },
        }
    }
}

pub(super) fn rename(rig: &Rig, from: (&str, &str), to: (&str, &str)) -> Body {
    let event = Rename::prepare(rig, from, to);
    fs::rename(rig.path(&join(from.0, from.1)), rig.path(&join(to.0, to.1))).unwrap();
    event.body
}

pub(super) fn unlink(rig: &Rig, dir: &str, name: &str) -> Body {
    let path = join(dir, name);
    let event = Body::Unlink {
        dir: rig.dir(dir),
        name: name.into(),
        node: rig.node(&path),
    };
    let path = rig.path(&path);
    if path.is_dir() {
        fs::remove_dir(path).unwrap()
    } else {
        fs::remove_file(path).unwrap()
    }
    event
}

#[test]
fn renaming_a_directory_is_one_change_and_reads_nothing() {
    let rig = Rig::new();
    rig.make_dir("", "old");
    rig.make_dir("", "to");
    for i in 0..50 {
        rig.make_file("old", &format!("f{i}"), format!("content {i}").as_bytes());
    }
    rig.check();
    let (before, file) = (rig.catalog.status(), rig.id("old/f7"));
    let event = rename(&rig, ("", "old"), ("to", "new"));
    rig.feed(event);
    rig.check();
    assert_eq!(rig.id("to/new/f7"), file);
    let after = rig.catalog.status();
    assert_eq!(after.bytes_read, before.bytes_read);
    let entries = rig.changes(before.head).into_iter().filter(|c| {
        matches!(
            c.op,
            restfs_lib::model::Op::PutEntry { .. } | restfs_lib::model::Op::DropEntry { .. }
        )
    });
    assert_eq!(entries.count(), 2);
}

#[test]
fn a_create_at_the_old_name_that_arrives_before_the_rename_leaves_both_files() {
    let rig = Rig::new();
    rig.make_file("", "a", b"first");
    rig.check();
    let first = rig.id("a");
    let moved = rename(&rig, ("", "a"), ("", "b"));
    rig.make_file("", "a", b"second, longer");
    rig.feed_as(2, moved);
    rig.check();
    assert_eq!(rig.id("b"), first);
}

#[test]
fn a_chain_of_renames_told_backwards_ends_where_the_disk_is() {
    let rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.make_file("", name, name.as_bytes());
    }
    rig.check();
    let ids = [rig.id("a"), rig.id("b")];
    let first = rename(&rig, ("", "b"), ("", "c"));
    let second = rename(&rig, ("", "a"), ("", "b"));
    let third = rename(&rig, ("", "c"), ("", "d"));
    for (session, event) in [(4, third), (3, second), (2, first)] {
        rig.feed_as(session, event);
    }
    rig.check();
    assert_eq!([rig.id("b"), rig.id("d")], ids);
}

#[test]
fn directories_that_swap_places_through_each_other_are_never_lost() {
    let rig = Rig::new();
    rig.make_dir("", "a");
    rig.make_dir("", "b");
    rig.make_file("a", "x", b"in a");
    rig.make_file("b", "y", b"in b");
    rig.check();
    let (a, b) = (rig.id("a"), rig.id("b"));
    let events = [
        rename(&rig, ("", "b"), ("a", "b")),
        rename(&rig, ("a", "b"), ("", "b")),
        rename(&rig, ("", "a"), ("b", "a")),
    ];
    let [first, second, third] = events;
    rig.feed_as(2, third);
    rig.wait("the first is applied", |s| s.applied == rig.fed());
    rig.feed_as(3, first);
    rig.wait("the cycle was there", |s| s.applied == rig.fed());
    rig.feed_as(4, second);
    rig.check();
    assert_eq!((rig.id("b/a"), rig.id("b")), (a, b));
}

#[test]
fn a_file_renamed_over_another_replaces_it() {
    let rig = Rig::new();
    rig.make_file("", "old", b"old");
    rig.make_file("", "new", b"new content");
    rig.check();
    let new = rig.id("new");
    let event = rename(&rig, ("", "new"), ("", "old"));
    rig.feed(event);
    rig.check();
    assert_eq!(rig.id("old"), new);
}

#[test]
fn renaming_one_hard_link_over_the_other_leaves_both_as_the_kernel_does() {
    let rig = Rig::new();
    rig.make_file("", "one", b"linked");
    fs::hard_link(rig.path("one"), rig.path("two")).unwrap();
    rig.feed(Body::Link {
        dir: rig.dir(""),
        name: b"two".to_vec(),
        node: rig.node("one"),
    });
    rig.check();
    let event = rename(&rig, ("", "one"), ("", "two"));
    rig.feed(event);
    rig.check();
    assert!(rig.path("one").exists());
}

#[test]
fn a_hard_link_keeps_the_file_when_its_first_name_goes_even_if_told_late() {
    let rig = Rig::new();
    rig.make_file("", "one", &[7; 10_000]);
    rig.check();
    let id = rig.id("one");
    fs::hard_link(rig.path("one"), rig.path("two")).unwrap();
    let link = Body::Link {
        dir: rig.dir(""),
        name: b"two".to_vec(),
        node: rig.node("one"),
    };
    let unlinked = unlink(&rig, "", "one");
    rig.feed_as(2, link);
    rig.feed(unlinked);
    rig.check();
    assert_eq!(rig.id("two"), id);
    let unlinked = unlink(&rig, "", "two");
    rig.feed(unlinked);
    rig.check();
}

#[test]
fn an_inode_number_used_again_is_another_file() {
    let rig = Rig::new();
    rig.make_file("", "a", b"the first");
    rig.check();
    let first = rig.id("a");
    let ino = rig.node("a").ino;
    let gone = unlink(&rig, "", "a");
    // ext4 hands the number out again at once.
    fs::write(rig.path("b"), b"the second one").unwrap();
    let reused = rig.node("b").ino == ino;
    rig.feed(gone);
    rig.created("", "b", NodeKind::File);
    rig.written("b", 0..14);
    rig.check();
    assert_ne!(rig.id("b"), first, "reused: {reused}");
}

#[test]
fn a_directory_that_no_event_named_is_taken_in_with_all_that_is_in_it() {
    let rig = Rig::new();
    fs::create_dir_all(rig.path("local/deep")).unwrap();
    fs::write(rig.path("local/deep/other"), b"made by a program on this host").unwrap();
    rig.make_file("local/deep", "f", b"made by a client");
    rig.check();
}

#[test]
fn an_event_in_a_directory_that_was_moved_before_it_was_known_is_not_lost() {
    let rig = Rig::new();
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("d/f"), b"content").unwrap();
    let created_f = Body::Create {
        dir: rig.dir("d"),
        name: b"f".to_vec(),
        node: rig.node("d/f"),
        kind: NodeKind::File,
    };
    let created_d = Body::Create {
        dir: rig.dir(""),
        name: b"d".to_vec(),
        node: rig.node("d"),
        kind: NodeKind::Directory,
    };
    let moved = rename(&rig, ("", "d"), ("", "e"));
    rig.feed_as(2, created_f);
    rig.wait("it is applied", |s| s.applied == 1);
    rig.feed_as(1, created_d);
    rig.feed_as(1, moved);
    rig.check();
    assert!(rig.id("e/f").is_some());
}

#[test]
fn a_tree_removed_by_clients_is_gone_at_once() {
    let rig = Rig::new();
    rig.make_dir("", "d");
    rig.make_file("d", "f", b"x");
    rig.make_file("d", "g", b"y");
    rig.check();
    for name in ["f", "g"] {
        let event = unlink(&rig, "d", name);
        rig.feed(event);
    }
    let event = unlink(&rig, "", "d");
    rig.feed(event);
    rig.check();
    assert_eq!(rig.settle().objects, 1);
}

#[test]
fn symbolic_links_and_attributes_are_taken_in_and_changed() {
    let rig = Rig::new();
    std::os::unix::fs::symlink("/no/where", rig.path("link")).unwrap();
    rig.created("", "link", NodeKind::Symlink);
    rig.make_file("", "f", b"x");
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(rig.path("f"), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    let touched = |changed| Body::Touched {
        node: rig.node("f"),
        path_hint: b"f".to_vec(),
        changed,
    };
    let changed = Changed {
        stat: false,
        xattrs: true,
    };
    set("user.one", b"1");
    set("user.two", b"2");
    rig.feed(touched(changed));
    rig.check();
    rustix::fs::removexattr(rig.path("f"), "user.one").unwrap();
    set("user.two", b"two");
    rig.feed(touched(changed));
    rig.check();
}

/// Whoever reads a file moves its access time.
#[test]
fn an_access_time_is_a_change_when_a_client_has_set_it_and_else_none() {
    let rig = Rig::new();
    rig.make_file("", "f", b"x");
    rig.check();
    let told = |stat| {
        rig.feed(Body::Touched {
            node: rig.node("f"),
            path_hint: b"f".to_vec(),
            changed: Changed { stat, xattrs: !stat },
        });
        // The check of the disk reads the file, too.
        rig.settle();
    };
    let accessed = |seconds| {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = fs::File::open(rig.path("f")).unwrap();
        file.set_times(fs::FileTimes::new().set_accessed(time)).unwrap();
    };
    let before = rig.changes(0).len();
    accessed(1_000_000_000);
    told(false);
    assert_eq!(rig.changes(0).len(), before);
    told(true);
    let atimes = || -> Vec<_> {
        let objects = rig
            .changes(0)
            .into_iter()
            .skip(before)
            .map(|change| match change.op {
                Op::PutObject { object, .. } => object.atime.seconds,
                other => panic!("{other:?}"),
            });
        objects.collect()
    };
    assert_eq!(atimes(), [1_000_000_000]);
    told(true);
    assert_eq!(atimes(), [1_000_000_000]);

    // Its content is to be read, too.
    accessed(1_100_000_000);
    rig.written("f", 0..1);
    told(true);
    assert_eq!(atimes(), [1_000_000_000, 1_100_000_000]);
    rig.check();
}

#[test]
fn an_impossible_name_is_a_gap_and_no_standstill() {
    let rig = Rig::new();
    rig.feed(Body::Look {
        dir: rig.dir(""),
        name: b"a/b".to_vec(),
    });
    rig.make_file("", "f", b"x");
    rig.check();
    assert!(rig.catalog.status().gap.is_some());
}

/// Told in another order than it happened: a link in the directory after its unlink, and the directory was looked for before its
/// removal was told. The name that nothing leads to must not keep the directory.
#[test]
fn a_removed_directory_does_not_stay_for_a_name_that_was_told_too_late() {
    let rig = Rig::new();
    rig.make_dir("", "d");
    rig.make_file("", "f", b"linked");
    rig.check();
    let link = Body::Link {
        dir: rig.dir("d"),
        name: b"g".to_vec(),
        node: rig.node("f"),
    };
    fs::hard_link(rig.path("f"), rig.path("d/g")).unwrap();
    let unlink_link = unlink(&rig, "d", "g");
    let remove = unlink(&rig, "", "d");
    rig.feed(unlink_link);
    rig.feed(link);
    rig.wait("the directory is missed", |s| s.displaced == 1);
    rig.feed(remove);
    rig.check();
}

#[test]
fn events_of_inodes_that_are_gone_do_no_harm() {
    let rig = Rig::new();
    let gone = NodeRef {
        dev: 1,
        ino: 999_999_999,
        btime_ns: 7,
    };
    rig.feed(Body::Dirty {
        handle: 9,
        node: gone,
        path_hint: b"../../x".to_vec(),
        ranges: vec![],
        whole: true,
    });
    rig.feed(Body::Closed {
        handle: 9,
        node: gone,
    });
    rig.feed(Body::Unlink {
        dir: rig.dir(""),
        name: b"nothing".to_vec(),
        node: gone,
    });
    rig.check();
}
