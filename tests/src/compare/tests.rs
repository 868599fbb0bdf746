use super::{Aspect, Options, Report, compare};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Two equal trees.
struct Pair(tempfile::TempDir);

impl Pair {
    fn new() -> Self {
        let pair = Self(tempfile::tempdir().unwrap());
        for root in [pair.a(), pair.b()] {
            fs::create_dir_all(root.join("dir/deeper")).unwrap();
            fs::write(root.join("dir/file"), vec![7; 3 << 20]).unwrap();
            fs::write(root.join("empty"), "").unwrap();
            fs::hard_link(root.join("dir/file"), root.join("dir/deeper/link")).unwrap();
            symlink("file", root.join("dir/symlink")).unwrap();
            mknodat(
                CWD,
                root.join("fifo"),
                FileType::Fifo,
                Mode::from_raw_mode(0o644),
                0,
            )
            .unwrap();
            let same = [
                "dir/symlink",
                "dir/file",
                "empty",
                "fifo",
                "dir/deeper",
                "dir",
                "",
            ];
            same.iter()
                .for_each(|name| set_time(&root.join(name), 1_000_000_000, 123_456_789));
        }
        pair
    }

    fn a(&self) -> std::path::PathBuf {
        self.0.path().join("a")
    }

    fn b(&self) -> std::path::PathBuf {
        self.0.path().join("b")
    }

    fn compare(&self) -> Report {
        compare(&self.a(), &self.b(), &Options::default()).unwrap()
    }

    /// What differs after `change` of the second tree, times of changed directories aside.
    fn after(change: impl FnOnce(&Path)) -> Vec<(String, Aspect)> {
        let pair = Self::new();
        change(&pair.b());
        for directory in ["dir/deeper", "dir", ""] {
            set_time(&pair.b().join(directory), 1_000_000_000, 123_456_789);
        }
        let report = pair.compare();
        assert_eq!(report.identical, report.differences.is_empty());
        report
            .differences
            .into_iter()
            .map(|d| (d.path, d.aspect))
            .collect()
    }
}

fn set_time(path: &Path, tv_sec: i64, tv_nsec: i64) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn keep_time(path: &Path) {
    set_time(path, 1_000_000_000, 123_456_789);
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn equal_trees_are_identical_and_their_access_times_untouched() {
    let pair = Pair::new();
    let access = |root: &Path| fs::symlink_metadata(root.join("dir/file")).unwrap().atime_nsec();
    let before = access(&pair.a());
    let report = pair.compare();
    assert!(report.identical, "{report}");
    assert_eq!(
        (report.files, report.directories, report.others, report.bytes),
        (3, 3, 2, 6 << 20)
    );
    assert_eq!(access(&pair.a()), before);
}

#[test]
fn one_changed_byte_is_found_though_size_and_time_are_the_same() {
    let found = Pair::after(|b| {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(b.join("dir/file"))
            .unwrap();
        file.write_all_at(&[8], (2 << 20) + 5).unwrap();
        keep_time(&b.join("dir/file"));
    });
    let file = |name: &str| (name.to_owned(), Aspect::Content);
    assert_eq!(found, [file("dir/file"), file("dir/deeper/link")]);
}

#[test]
fn names_in_one_tree_only_are_found() {
    let found = Pair::after(|b| {
        fs::remove_file(b.join("empty")).unwrap();
        fs::create_dir(b.join("new")).unwrap();
    });
    assert_eq!(
        found,
        [("empty".into(), Aspect::OnlyA), ("new".into(), Aspect::OnlyB)]
    );
}

#[test]
fn another_type_is_found() {
    let found = Pair::after(|b| {
        fs::remove_file(b.join("empty")).unwrap();
        symlink("", b.join("empty")).unwrap_or_else(|_| symlink("x", b.join("empty")).unwrap());
    });
    assert_eq!(found, [("empty".into(), Aspect::Type)]);
}

#[test]
fn another_size_is_found() {
    let found = Pair::after(|b| {
        fs::write(b.join("empty"), "1").unwrap();
        keep_time(&b.join("empty"));
    });
    assert_eq!(found, [("empty".into(), Aspect::Size)]);
}

#[test]
fn another_mode_is_found_also_the_sticky_bits() {
    for (name, mode) in [("empty", 0o4644), ("dir/deeper", 0o1755), ("fifo", 0o600)] {
        let found =
            Pair::after(|b| fs::set_permissions(b.join(name), fs::Permissions::from_mode(mode)).unwrap());
        assert_eq!(found, [(name.to_owned(), Aspect::Mode)]);
    }
}

#[test]
fn another_owner_or_group_is_found_also_of_a_symlink() {
    if !is_root() {
        eprintln!("skipped: needs root to change owners");
        return;
    }
    use std::os::unix::fs::lchown;
    assert_eq!(
        Pair::after(|b| lchown(b.join("dir/symlink"), Some(7), None).unwrap()),
        [("dir/symlink".into(), Aspect::Uid)]
    );
    assert_eq!(
        Pair::after(|b| lchown(b.join("empty"), None, Some(7)).unwrap()),
        [("empty".into(), Aspect::Gid)]
    );
}

#[test]
fn one_nanosecond_is_found_also_of_symlinks_and_directories() {
    for name in ["empty", "dir/symlink", "fifo"] {
        let found = Pair::after(|b| set_time(&b.join(name), 1_000_000_000, 123_456_788));
        assert_eq!(found, [(name.to_owned(), Aspect::Mtime)]);
    }
    let pair = Pair::new();
    set_time(&pair.b().join("dir"), 1_000_000_000, 123_456_788);
    set_time(&pair.b(), 1_000_000_000, 123_456_788);
    let report = pair.compare();
    assert_eq!(report.counts.get(&Aspect::Mtime), Some(&2), "{report}");
}

#[test]
fn attributes_are_compared_by_name_and_value() {
    let pair = Pair::new();
    let set = |path: &Path, name: &str, value: &str| {
        setxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
    };
    set(&pair.a().join("empty"), "user.same", "1");
    set(&pair.b().join("empty"), "user.same", "1");
    assert!(pair.compare().identical);
    set(&pair.a().join("empty"), "user.only_a", "");
    set(&pair.b().join("dir"), "user.only_b", "1");
    set(&pair.a().join("dir/deeper"), "user.value", "1");
    set(&pair.b().join("dir/deeper"), "user.value", "2");
    let mut expected = 3;
    if is_root() {
        set(&pair.a().join("empty"), "security.NTACL", "acl");
        expected += 1;
    }
    let report = pair.compare();
    assert_eq!(report.counts.get(&Aspect::Xattr), Some(&expected), "{report}");
    assert_eq!(report.total(), expected);
}

#[test]
fn another_target_is_found() {
    let found = Pair::after(|b| {
        fs::remove_file(b.join("dir/symlink")).unwrap();
        symlink("elif", b.join("dir/symlink")).unwrap();
        keep_time(&b.join("dir/symlink"));
    });
    assert_eq!(found, [("dir/symlink".into(), Aspect::Target)]);
}

#[test]
fn another_device_number_is_found() {
    if !is_root() {
        eprintln!("skipped: needs root to make devices");
        return;
    }
    let pair = Pair::new();
    for (root, minor) in [(pair.a(), 3), (pair.b(), 5)] {
        let device = rustix::fs::makedev(1, minor);
        mknodat(
            CWD,
            root.join("device"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o600),
            device,
        )
        .unwrap();
        keep_time(&root.join("device"));
        keep_time(&root);
    }
    let report = pair.compare();
    assert_eq!(report.counts.get(&Aspect::Device), Some(&1), "{report}");
    assert_eq!(report.total(), 1);
}

#[test]
fn a_copy_in_place_of_a_link_is_found_and_a_link_in_place_of_a_copy() {
    let unlink = |b: &Path| {
        fs::remove_file(b.join("dir/deeper/link")).unwrap();
        fs::copy(b.join("dir/file"), b.join("dir/deeper/link")).unwrap();
        keep_time(&b.join("dir/deeper/link"));
    };
    let links =
        |names: &[&str]| -> Vec<_> { names.iter().map(|n| ((*n).to_owned(), Aspect::Links)).collect() };
    assert_eq!(Pair::after(unlink), links(&["dir/deeper/link", "dir/file"]));
    let pair = Pair::new();
    for (root, first) in [(pair.a(), "one"), (pair.b(), "two")] {
        for name in ["one", "two"] {
            fs::write(root.join(name), "").unwrap();
            keep_time(&root.join(name));
        }
        // As many links on each side, but not of the same names.
        fs::hard_link(root.join(first), root.join("three")).unwrap();
        keep_time(&root);
    }
    let report = pair.compare();
    assert_eq!(report.counts.get(&Aspect::Links), Some(&3), "{report}");
}

#[test]
fn a_hole_that_was_filled_is_found_only_when_asked_for() {
    let pair = Pair::new();
    for root in [pair.a(), pair.b()] {
        fs::File::create(root.join("sparse"))
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
    }
    fs::write(pair.b().join("sparse"), vec![0; 8 << 20]).unwrap();
    fs::File::open(pair.b().join("sparse"))
        .unwrap()
        .sync_all()
        .unwrap();
    for root in [pair.a(), pair.b()] {
        keep_time(&root.join("sparse"));
        keep_time(&root);
    }
    let report = pair.compare();
    assert_eq!(report.counts.get(&Aspect::Sparseness), Some(&1), "{report}");
    assert_eq!(report.total(), 1, "{report}");
    let lenient = Options {
        sparseness: false,
        ..Options::default()
    };
    assert!(compare(&pair.a(), &pair.b(), &lenient).unwrap().identical);
}

#[test]
fn the_list_is_bounded_and_the_counts_are_not() {
    let pair = Pair::new();
    for i in 0..50 {
        fs::write(pair.b().join(format!("new{i}")), "").unwrap();
    }
    keep_time(&pair.b());
    let options = Options {
        list_limit: 10,
        ..Options::default()
    };
    let report = compare(&pair.a(), &pair.b(), &options).unwrap();
    assert_eq!((report.differences.len(), report.total()), (10, 50));
    assert!(report.to_string().contains("and 40 more"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["counts"]["only_b"], 50);
    assert_eq!(json["identical"], false);
}

#[test]
fn a_root_that_is_not_there_is_an_error() {
    let pair = Pair::new();
    assert!(compare(&pair.a(), Path::new("/nowhere"), &Options::default()).is_err());
    assert!(compare(&pair.a().join("empty"), &pair.b(), &Options::default()).is_err());
}
