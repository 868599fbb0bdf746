use super::*;
use rustix::fs::{lgetxattr, makedev};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

fn xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 64 * 1024];
    let length = lgetxattr(path, name, value.as_mut_slice()).unwrap_or_else(|e| panic!("{name}: {e}"));
    value.truncate(length);
    value
}

fn assert_times(path: &Path) {
    let found = fs::symlink_metadata(path).unwrap();
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (1_500_000_000, 123_456_789),
        "{}",
        path.display()
    );
    assert_eq!(
        (found.atime(), found.atime_nsec()),
        (1_400_000_000, 987_654_321),
        "{}",
        path.display()
    );
}

#[test]
fn content_comes_back_byte_by_byte_and_holes_stay_holes() {
    let mut tree = Tree::new();
    let full: Vec<Vec<u8>> = (0..9_u8).map(|i| vec![i + 1; BLOCK]).collect();
    let mut blocks: Vec<Option<&[u8]>> = full.iter().map(|b| Some(b.as_slice())).collect();
    blocks.push(Some(b"the end"));
    tree.file(ROOT, "full", 9 * BLOCK as u64 + 7, &blocks);
    tree.file(ROOT, "empty", 0, &[]);
    tree.file(
        ROOT,
        "hole",
        1 << 30,
        &[None, None, None, None, None, Some(&full[0])],
    );
    // A short block in the middle reads as zeros to its end; a block beyond the end is not there.
    tree.file(
        ROOT,
        "short",
        BLOCK as u64 + 10,
        &[Some(b"abc"), Some(&full[0]), Some(&full[1])],
    );
    let (_scratch, dest) = dest();
    let progress = Counter::default();
    let summary = restore(&tree, &dest, &Options::default(), &progress).unwrap();
    assert_eq!(summary.problems, []);
    let mut expected = full.concat();
    expected.extend_from_slice(b"the end");
    assert_eq!(fs::read(dest.join("full")).unwrap(), expected);
    assert_eq!(fs::read(dest.join("empty")).unwrap(), b"");
    let hole = fs::metadata(dest.join("hole")).unwrap();
    assert_eq!(hole.size(), 1 << 30);
    assert!(
        hole.blocks() * 512 <= 64 * 1024,
        "{} bytes allocated",
        hole.blocks() * 512
    );
    let short = fs::read(dest.join("short")).unwrap();
    assert_eq!(short, [&b"abc"[..], &[0; BLOCK - 3], &[1; 10]].concat());
    assert_eq!((summary.files, summary.directories), (4, 1));
    let sizes = 9 * BLOCK as u64 + 7 + (1 << 30) + BLOCK as u64 + 10;
    assert_eq!(summary.bytes, sizes);
    assert_eq!(progress.bytes.load(Ordering::Relaxed), sizes);
    assert_eq!(progress.objects.load(Ordering::Relaxed), 5);
    assert_eq!(
        summary.written_bytes,
        9 * BLOCK as u64 + 7 + BLOCK as u64 + 3 + 10
    );
}

#[test]
fn every_name_of_a_file_is_the_same_file() {
    let mut tree = Tree::new();
    let (first, second) = (tree.dir(ROOT, "first"), tree.dir(ROOT, "second"));
    let file = tree.text(first, "name", "content");
    tree.name(first, b"other", file);
    tree.name(second, b"further", file);
    let fifo = tree.add(first, "fifo", Kind::Fifo, |_| ());
    tree.name(second, b"fifo", fifo);
    let (_scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!(summary.problems, []);
    assert_eq!((summary.files, summary.special, summary.hard_links), (1, 1, 3));
    let inode = |name: &str| fs::metadata(dest.join(name)).unwrap().ino();
    assert_eq!(inode("first/name"), inode("first/other"));
    assert_eq!(inode("first/name"), inode("second/further"));
    assert_eq!(inode("first/fifo"), inode("second/fifo"));
    assert_eq!(fs::read(dest.join("second/further")).unwrap(), b"content");
}

#[test]
fn times_are_right_to_the_nanosecond_also_of_directories_that_were_filled_later() {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "dir");
    let deeper = tree.dir(dir, "deeper");
    tree.text(deeper, "file", "x");
    tree.text(dir, "zzz", "x");
    tree.add(
        dir,
        "symlink",
        Kind::Symlink {
            target: b"../nowhere".to_vec(),
        },
        |_| (),
    );
    tree.add(dir, "fifo", Kind::Fifo, |_| ());
    let (_scratch, dest) = dest();
    assert_eq!(tree.restore(&dest).unwrap().problems, []);
    for name in [
        "",
        "dir",
        "dir/deeper",
        "dir/deeper/file",
        "dir/zzz",
        "dir/symlink",
        "dir/fifo",
    ] {
        assert_times(&dest.join(name));
    }
    assert_eq!(
        fs::read_link(dest.join("dir/symlink")).unwrap(),
        Path::new("../nowhere")
    );
}

#[test]
fn times_before_the_epoch_come_back() {
    let mut tree = Tree::new();
    tree.add(ROOT, "old", Kind::File, |o| {
        o.mtime = Time {
            seconds: -5,
            nanoseconds: 999_999_999,
        }
    });
    let (_scratch, dest) = dest();
    assert_eq!(tree.restore(&dest).unwrap().problems, []);
    let found = fs::metadata(dest.join("old")).unwrap();
    assert_eq!((found.mtime(), found.mtime_nsec()), (-5, 999_999_999));
}

#[test]
fn owner_and_mode_come_back_setuid_included() {
    if !is_root() {
        eprintln!("skipped: needs root to change owners");
        return;
    }
    let mut tree = Tree::new();
    let foreign = |mode: u32| move |o: &mut Object| (o.mode, o.uid, o.gid) = (mode, 12345, 54321);
    for (name, kind, mode) in [
        ("setuid", Kind::File, 0o6755),
        ("nothing", Kind::File, 0),
        ("dir", Kind::Directory, 0o3770),
        ("closed", Kind::Directory, 0),
        ("fifo", Kind::Fifo, 0o606),
        ("socket", Kind::Socket, 0o755),
        ("char", Kind::CharDevice { major: 1, minor: 3 }, 0o666),
        ("block", Kind::BlockDevice { major: 7, minor: 300 }, 0o660),
        (
            "symlink",
            Kind::Symlink {
                target: b"dir".to_vec(),
            },
            0o777,
        ),
    ] {
        tree.add(ROOT, name, kind, foreign(mode));
    }
    let (_scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!(summary.problems, []);
    assert_eq!(
        (
            summary.files,
            summary.directories,
            summary.symlinks,
            summary.special
        ),
        (2, 3, 1, 4)
    );
    for (id, object) in tree.objects.iter().filter(|(id, _)| **id != ROOT) {
        let name = &tree.entries[&ROOT]
            .iter()
            .find(|(_, child)| child == id)
            .unwrap()
            .0;
        let found = fs::symlink_metadata(dest.join(String::from_utf8_lossy(name).as_ref())).unwrap();
        assert_eq!((found.uid(), found.gid()), (12345, 54321));
        assert_eq!(found.mode() & 0o7777, object.mode, "{}", name.escape_ascii());
    }
    let device = |name: &str| fs::symlink_metadata(dest.join(name)).unwrap();
    assert!(device("char").file_type().is_char_device());
    assert_eq!(device("char").rdev(), makedev(1, 3));
    assert!(device("block").file_type().is_block_device());
    assert_eq!(device("block").rdev(), makedev(7, 300));
    assert!(device("socket").file_type().is_socket());
}

/// user:12345:rw-, the rest as in mode 0660: what `setfacl -m u:12345:rw` stores.
fn posix_acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, permissions, id) in [
        (1_u16, 6_u16, none),
        (2, 6, 12345),
        (4, 6, none),
        (16, 6, none),
        (32, 0, none),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

#[test]
fn attributes_and_acls_come_back_and_none_is_inherited() {
    if !is_root() {
        eprintln!("skipped: needs root for trusted and security attributes");
        return;
    }
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "dir");
    tree.attribute(dir, "system.posix_acl_default", &posix_acl());
    tree.attribute(dir, "user.DOSATTRIB", b"0x10");
    let file = tree.add(dir, "file", Kind::File, |o| o.mode = 0o660);
    tree.attribute(file, "system.posix_acl_access", &posix_acl());
    tree.attribute(file, "security.NTACL", &[0, 1, 2, 255]);
    tree.attribute(file, "trusted.own", b"");
    tree.attribute(file, "user.stream", &[7; 2000]);
    tree.attribute(file, "restfs.note", b"not for file systems");
    tree.text(dir, "plain", "no ACL of its own");
    let link = tree.add(
        dir,
        "symlink",
        Kind::Symlink {
            target: b"file".to_vec(),
        },
        |_| (),
    );
    tree.attribute(link, "trusted.link", b"of the link");
    let fifo = tree.add(dir, "fifo", Kind::Fifo, |o| o.mode = 0o660);
    tree.attribute(fifo, "system.posix_acl_access", &posix_acl());
    let (_scratch, dest) = dest();
    // The destination has a default ACL, which the kernel would hand down.
    fs::create_dir(&dest).unwrap();
    rustix::fs::setxattr(
        &dest,
        "system.posix_acl_default",
        &posix_acl(),
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    assert_eq!(tree.restore(&dest).unwrap().problems, []);
    let at = |name: &str| dest.join("dir").join(name);
    assert_eq!(xattr(&at(""), "system.posix_acl_default"), posix_acl());
    assert_eq!(xattr(&at(""), "user.DOSATTRIB"), b"0x10");
    assert_eq!(xattr(&at("file"), "system.posix_acl_access"), posix_acl());
    assert_eq!(xattr(&at("file"), "security.NTACL"), [0, 1, 2, 255]);
    assert_eq!(xattr(&at("file"), "trusted.own"), b"");
    assert_eq!(xattr(&at("file"), "user.stream"), [7; 2000]);
    assert_eq!(xattr(&at("symlink"), "trusted.link"), b"of the link");
    assert_eq!(xattr(&at("fifo"), "system.posix_acl_access"), posix_acl());
    for name in ["plain", "../"] {
        for acl in ["system.posix_acl_access", "system.posix_acl_default"] {
            let mut value = [0; 100];
            assert!(
                lgetxattr(at(name), acl, value.as_mut_slice()).is_err(),
                "{name} has inherited {acl}"
            );
        }
    }
    assert_eq!(fs::metadata(at("file")).unwrap().mode() & 0o7777, 0o660);
    assert_times(&at("file"));
}

#[test]
fn a_refused_attribute_is_a_problem_and_the_rest_is_restored() {
    let mut tree = Tree::new();
    let file = tree.text(ROOT, "file", "content");
    tree.attribute(file, "nonsense.name", b"1");
    tree.attribute(file, "user.good", b"2");
    let (_scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!(summary.problem_count, 1);
    assert_eq!(summary.problems[0].path, "/file");
    assert!(
        summary.problems[0].what.starts_with("attribute nonsense.name: "),
        "{:?}",
        summary.problems
    );
    assert_eq!(xattr(&dest.join("file"), "user.good"), b"2");
    assert_times(&dest.join("file"));
}

#[test]
fn what_btrfs_said_of_how_it_stored_a_file_is_no_problem_elsewhere() {
    let mut tree = Tree::new();
    let file = tree.text(ROOT, "file", "content");
    tree.attribute(file, "btrfs.compression", b"zlib");
    let (_scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!(summary.problem_count, 0, "{:?}", summary.problems);
}

#[test]
fn directories_deeper_than_there_are_descriptors_for_are_restored() {
    let mut tree = Tree::new();
    let mut dir = ROOT;
    for _ in 0..1200 {
        dir = tree.dir(dir, "d");
        tree.text(dir, "file", "x");
    }
    // After the way back up.
    let top = tree.entries[&ROOT][0].1;
    tree.text(top, "z", "last");
    tree.name(dir, b"link", tree.entries[&top].last().unwrap().1);
    let (scratch, dest) = dest();
    let summary = tree.restore(&dest).unwrap();
    assert_eq!(summary.problems, []);
    assert_eq!(
        (summary.files, summary.directories, summary.hard_links),
        (1201, 1201, 1)
    );
    assert_times(&dest.join("d/d/d"));
    drop(scratch);
}
