use super::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn sample() -> Tree {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "dir");
    let deeper = tree.add(dir, "deeper", Kind::Directory, |o| o.mode = 0o711);
    let file = tree.text(deeper, "file", "content");
    tree.name(ROOT, b"link", file);
    tree.text(dir, "other", "other content");
    tree
}

#[test]
fn a_dry_run_counts_the_same_and_touches_nothing() {
    let tree = sample();
    let (scratch, dest) = dest();
    let dry = Options {
        dry_run: true,
        ..Options::default()
    };
    let counted = restore(&tree, &dest, &dry, &()).unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    let done = tree.restore(&dest).unwrap();
    assert_eq!(done.written_bytes, 20);
    assert_eq!(
        counted,
        Summary {
            written_bytes: 0,
            ..done
        }
    );
}

#[test]
fn a_directory_of_the_tree_becomes_the_destination() {
    for path in ["dir/deeper", "/dir/deeper", "/dir/deeper//"] {
        let (_scratch, dest) = dest();
        let options = Options {
            path: path.into(),
            ..Options::default()
        };
        let summary = restore(&sample(), &dest, &options, &()).unwrap();
        assert_eq!(
            (summary.files, summary.directories, summary.problem_count),
            (1, 1, 0)
        );
        assert_eq!(fs::read(dest.join("file")).unwrap(), b"content");
        assert_eq!(fs::metadata(&dest).unwrap().mode() & 0o7777, 0o711);
    }
}

#[test]
fn a_file_of_the_tree_is_put_into_the_destination() {
    let (_scratch, dest) = dest();
    let options = Options {
        path: b"/dir/deeper/file".to_vec(),
        ..Options::default()
    };
    let summary = restore(&sample(), &dest, &options, &()).unwrap();
    assert_eq!(
        (summary.files, summary.directories, summary.problem_count),
        (1, 0, 0)
    );
    assert_eq!(fs::read(dest.join("file")).unwrap(), b"content");
}

#[test]
fn a_path_that_is_not_there_is_an_error_and_creates_nothing() {
    let (scratch, dest) = dest();
    let options = Options {
        path: b"/dir/nowhere".to_vec(),
        ..Options::default()
    };
    let result = restore(&sample(), &dest, &options, &());
    assert!(
        matches!(result, Err(RestoreError::Source(SourceError::Missing(_)))),
        "{result:?}"
    );
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_destination_with_something_in_it_is_refused_unless_wanted() {
    let tree = sample();
    let (_scratch, dest) = dest();
    fs::create_dir_all(dest.join("dir/deeper/file")).unwrap();
    fs::write(dest.join("dir/other"), "old").unwrap();
    fs::hard_link(dest.join("dir/other"), dest.join("kept")).unwrap();
    assert!(matches!(tree.restore(&dest), Err(RestoreError::NotEmpty(_))));
    let options = Options {
        into_existing: true,
        ..Options::default()
    };
    let summary = restore(&tree, &dest, &options, &()).unwrap();
    // A directory is never removed for a file. Its second name is the only one then.
    let places: Vec<&str> = summary.problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(places, ["/dir/deeper/file"]);
    assert_eq!(fs::read(dest.join("link")).unwrap(), b"content");
    assert_eq!(fs::read(dest.join("dir/other")).unwrap(), b"other content");
    assert_eq!(
        fs::read(dest.join("kept")).unwrap(),
        b"old",
        "written through a link to something else"
    );
    fs::remove_dir(dest.join("dir/deeper/file")).unwrap();
    for _ in 0..2 {
        assert_eq!(restore(&tree, &dest, &options, &()).unwrap().problems, []);
    }
}

#[test]
fn a_destination_that_cannot_be_made_says_why() {
    let (scratch, dest) = dest();
    let result = sample().restore(&dest.join("deeper"));
    assert!(
        result
            .unwrap_err()
            .to_string()
            .contains("the directory above it does not exist")
    );
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(
        sample().restore(&file),
        Err(RestoreError::Destination { .. })
    ));
}

#[test]
fn a_source_that_fails_stops_the_restore() {
    struct Failing(Tree);
    impl ContentSource for Failing {
        fn resolve(&self, path: &[u8]) -> Result<ObjectId, SourceError> {
            self.0.resolve(path)
        }
        fn object(&self, id: ObjectId) -> Result<Object, SourceError> {
            self.0.object(id)
        }
        fn entries(&self, dir: ObjectId, after: Option<&[u8]>, n: usize) -> Result<Page<Entry>, SourceError> {
            self.0.entries(dir, after, n)
        }
        fn attributes(&self, id: ObjectId) -> Result<Vec<Attribute>, SourceError> {
            self.0.attributes(id)
        }
        fn segments(&self, id: ObjectId, from: u64, n: usize) -> Result<Page<(u64, Segment)>, SourceError> {
            self.0.segments(id, from, n)
        }
        fn block(&self, _: BlockKey) -> Result<Bytes, SourceError> {
            Err(SourceError::Failed("connection lost".to_owned()))
        }
    }
    let mut tree = sample();
    for i in 0..500 {
        tree.text(ROOT, &format!("more{i:03}"), "content");
    }
    let (_scratch, dest) = dest();
    let result = restore(&Failing(tree), &dest, &Options::default(), &());
    assert!(
        matches!(result, Err(RestoreError::Source(SourceError::Failed(_)))),
        "{result:?}"
    );
}

#[test]
fn a_full_disk_stops_the_restore_and_says_so() {
    if !is_root() {
        eprintln!("skipped: needs root for a small file system");
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=512k", "tmpfs"];
    assert!(
        Command::new("mount")
            .args(mount)
            .arg(disk.path())
            .status()
            .unwrap()
            .success()
    );
    let mut tree = Tree::new();
    for i in 0..100 {
        tree.text(ROOT, &format!("file{i}"), &"x".repeat(4 * BLOCK));
    }
    let result = tree.restore(&disk.path().join("dest"));
    let _ = Command::new("umount").arg("-l").arg(disk.path()).status();
    assert!(matches!(result, Err(RestoreError::Full(_))), "{result:?}");
}

/// Runs itself once more as `nobody`.
#[test]
fn without_root_content_is_restored_and_owners_are_reported() {
    const DEST: &str = "RESTFS_TEST_RESTORE_DEST";
    let mut tree = sample();
    let root = tree.objects.get_mut(&ROOT).unwrap();
    (root.uid, root.gid, root.mode) = (0, 0, 0o755);
    tree.add(ROOT, "device", Kind::CharDevice { major: 1, minor: 3 }, |_| ());
    if let Some(dest) = std::env::var_os(DEST) {
        let dest = PathBuf::from(dest).join("dest");
        let summary = tree.restore(&dest).unwrap();
        let problems: Vec<_> = summary
            .problems
            .iter()
            .map(|p| (p.path.as_str(), &p.what[..5]))
            .collect();
        assert_eq!(problems, [("/device", "creat"), ("/", "owner")]);
        // The directories are closed to us now, as they were; the file in them is seen by its other name.
        assert_eq!(fs::metadata(dest.join("link")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(dest.join("dir")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read(dest.join("link")).unwrap(), b"content");
        return;
    }
    if !is_root() {
        eprintln!("skipped: needs root to become nobody");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(scratch.path(), Some(65534), Some(65534)).unwrap();
    // A copy: the build's directory may be closed to others.
    let program = scratch.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let name = "restore::tests::options::without_root_content_is_restored_and_owners_are_reported";
    let output = Command::new(&program)
        .args(["--exact", name])
        .env(DEST, scratch.path())
        .uid(65534)
        .gid(65534)
        .current_dir(scratch.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
