//! A site that answers what it likes must not get a byte outside of the destination.

use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

/// What is in the scratch directory beside the destination.
fn outside(scratch: &Path) -> Vec<String> {
    let names = fs::read_dir(scratch)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "dest").collect()
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let long = "x".repeat(256);
    for name in ["..", ".", "", "a/b", "/tmp/planted", "../planted", "a\0b", &long] {
        for kind in [
            Kind::File,
            Kind::Directory,
            Kind::Fifo,
            Kind::Symlink {
                target: b"x".to_vec(),
            },
        ] {
            let mut tree = Tree::new();
            let dir = tree.dir(ROOT, "dir");
            tree.add(dir, name, kind.clone(), |_| ());
            tree.text(dir, "good", "content");
            let (scratch, dest) = dest();
            let summary = tree.restore(&dest).unwrap();
            assert_eq!(summary.problem_count, 1, "{name:?} {kind:?}: {summary:?}");
            assert!(
                summary.problems[0].what.contains("is not restored"),
                "{:?}",
                summary.problems
            );
            assert_eq!(outside(scratch.path()), [""; 0]);
            let found: Vec<_> = fs::read_dir(dest.join("dir"))
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert_eq!(found, ["good"]);
        }
    }
}

#[test]
fn a_second_name_that_leads_elsewhere_is_refused() {
    let mut tree = Tree::new();
    let file = tree.text(ROOT, "!first", "content");
    tree.name(ROOT, b"../planted", file);
    let (scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!((summary.problem_count, summary.hard_links), (1, 0));
    assert_eq!(outside(scratch.path()), [""; 0]);
}

#[test]
fn cycles_and_directories_with_two_names_end() {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "dir");
    let deeper = tree.dir(dir, "deeper");
    tree.name(deeper, b"up", dir);
    tree.name(deeper, b"top", ROOT);
    tree.name(deeper, b"self", deeper);
    let (_scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!((summary.problem_count, summary.directories), (3, 3));
}

#[test]
fn one_name_twice_in_a_list_does_not_go_round_for_ever() {
    struct Repeating(Tree);
    impl ContentSource for Repeating {
        fn resolve(&self, path: &[u8]) -> Result<ObjectId, SourceError> {
            self.0.resolve(path)
        }
        fn object(&self, id: ObjectId) -> Result<Object, SourceError> {
            self.0.object(id)
        }
        fn entries(&self, dir: ObjectId, _: Option<&[u8]>, limit: usize) -> Result<Page<Entry>, SourceError> {
            self.0
                .entries(dir, None, limit)
                .map(|page| Page { more: true, ..page })
        }
        fn attributes(&self, id: ObjectId) -> Result<Vec<Attribute>, SourceError> {
            self.0.attributes(id)
        }
        fn segments(&self, id: ObjectId, _: u64, limit: usize) -> Result<Page<(u64, Segment)>, SourceError> {
            self.0
                .segments(id, 0, limit)
                .map(|page| Page { more: true, ..page })
        }
        fn block(&self, key: BlockKey) -> Result<Bytes, SourceError> {
            self.0.block(key)
        }
    }
    let mut tree = Tree::new();
    tree.text(ROOT, "file", "content");
    let (_scratch, dest) = dest();
    let summary = Repeating(tree).restore(&dest);
    assert_eq!((summary.files, summary.problem_count), (1, 2), "{summary:?}");

    impl Repeating {
        fn restore(&self, dest: &Path) -> Summary {
            restore(self, dest, &Options::default(), &()).unwrap()
        }
    }
}

#[test]
fn a_symlink_as_destination_is_refused() {
    let mut tree = Tree::new();
    tree.text(ROOT, "file", "content");
    let (scratch, dest) = dest();
    let elsewhere = scratch.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &dest).unwrap();
    let mut with_slash = dest.clone().into_os_string();
    with_slash.push("/");
    for dest in [dest.clone(), with_slash.into()] {
        for into_existing in [false, true] {
            let options = Options {
                into_existing,
                ..Options::default()
            };
            let result = restore(&tree, &dest, &options, &());
            assert!(
                matches!(result, Err(RestoreError::Destination { .. })),
                "{result:?}"
            );
        }
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn symlinks_in_the_destination_are_replaced_not_followed() {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "dir");
    tree.text(dir, "file", "content");
    tree.text(ROOT, "file", "content");
    let (scratch, dest) = dest();
    let elsewhere = scratch.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir(&dest).unwrap();
    symlink(&elsewhere, dest.join("dir")).unwrap();
    symlink(elsewhere.join("file"), dest.join("file")).unwrap();
    let options = Options {
        into_existing: true,
        ..Options::default()
    };
    let summary = restore(&tree, &dest, &options, &()).unwrap();
    assert_eq!(summary.problems, []);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert_eq!(fs::read(dest.join("dir/file")).unwrap(), b"content");
    assert!(dest.join("file").symlink_metadata().unwrap().is_file());
}

#[test]
fn a_symlink_of_the_tree_is_not_walked_through() {
    // The directory "dir" as a symlink to the outside, and the same name again as a directory with a file.
    let mut tree = Tree::new();
    let (scratch, dest) = dest();
    let elsewhere = scratch.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let target = elsewhere.as_os_str().as_encoded_bytes().to_vec();
    tree.add(ROOT, "dir", Kind::Symlink { target }, |_| ());
    let dir = tree.dir(ROOT, "dir");
    tree.text(dir, "planted", "content");
    let summary = tree.restore(&dest).unwrap();
    assert!(summary.problem_count > 0);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn content_that_is_not_what_was_stored_is_never_written() {
    let mut tree = Tree::new();
    tree.text(ROOT, "file", &"x".repeat(3 * BLOCK));
    tree.text(ROOT, "other", &"y".repeat(BLOCK));
    let key = hash_block(&[b'x'; BLOCK], HashAlgorithm::Blake3).key;
    for wrong in [vec![b'z'; BLOCK], vec![b'x'; BLOCK - 1], Vec::new()] {
        tree.blocks.insert(key, wrong.into());
        let (_scratch, dest) = dest();
        let summary = tree.restore(&dest).unwrap();
        assert_eq!(summary.problem_count, 3);
        assert!(
            summary.problems[0]
                .what
                .starts_with("content: 4096 bytes from 0 on: "),
            "{:?}",
            summary.problems
        );
        assert_eq!(fs::read(dest.join("file")).unwrap(), vec![0; 3 * BLOCK]);
        assert_eq!(fs::read(dest.join("other")).unwrap(), vec![b'y'; BLOCK]);
    }
}

#[test]
fn impossible_properties_are_problems_not_panics() {
    type Change = fn(&mut Object);
    let changes: [Change; 8] = [
        |o| o.size = u64::MAX,
        |o| o.layout.block_size = 0,
        |o| o.layout.segment_blocks = 0,
        |o| o.uid = u32::MAX,
        |o| o.gid = u32::MAX,
        |o| o.mtime.nanoseconds = 1_000_000_000,
        |o| o.atime.nanoseconds = (1 << 30) - 1,
        |o| o.atime.nanoseconds = (1 << 30) - 2,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut tree = Tree::new();
        tree.add(ROOT, "file", Kind::File, change);
        tree.text(ROOT, "good", "content");
        let (_scratch, dest) = dest();
        let summary = tree.restore(&dest).unwrap();
        assert_eq!(summary.problem_count, 1, "change {i}: {summary:?}");
        assert_eq!(fs::read(dest.join("good")).unwrap(), b"content");
    }
    let mut tree = Tree::new();
    let file = tree.text(ROOT, "file", "content");
    let (_, segment) = tree.segments[&file][0].clone();
    let impossible = |position| Segment {
        blocks: vec![(position, segment.blocks[0].1, 1)],
    };
    tree.segments
        .insert(file, vec![(0, impossible(4)), (u64::MAX, impossible(3))]);
    let (_scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!(summary.problem_count, 1, "{summary:?}");
    assert_eq!(fs::metadata(dest.join("file")).unwrap().size(), 7);
}

#[test]
fn control_characters_of_names_do_not_reach_the_terminal() {
    let mut tree = Tree::new();
    tree.add(ROOT, "\u{1b}[31mred", Kind::File, |o| o.size = u64::MAX);
    let (_scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!(summary.problems[0].path, "/\u{FFFD}[31mred");
}

/// The walk has the paths of all directories on the way in memory: thousands of them, each longer than the one before.
#[test]
fn paths_without_end_are_a_problem_and_take_no_memory_without_end() {
    let mut tree = Tree::new();
    let name = "x".repeat(255);
    let mut dir = ROOT;
    for _ in 0..140 {
        dir = tree.dir(dir, &name);
    }
    let options = Options {
        dry_run: true,
        ..Options::default()
    };
    let (_scratch, dest) = dest();
    let summary = restore(&tree, &dest, &options, &()).unwrap();
    // 128 of 256 bytes each are at the limit.
    assert_eq!((summary.directories, summary.problem_count), (129, 1));
    assert!(
        summary.problems[0].what.contains("more than 32768 bytes"),
        "{:?}",
        summary.problems
    );
}
