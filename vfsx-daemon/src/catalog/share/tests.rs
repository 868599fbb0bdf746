use super::*;
use std::os::unix::fs::{MetadataExt, symlink};

fn names(path: &[&str]) -> Components {
    path.iter().map(|n| n.as_bytes().to_vec()).collect()
}

#[test]
fn a_symbolic_link_is_held_but_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("inside")).unwrap();
    std::fs::write(dir.path().join("inside/file"), b"x").unwrap();
    symlink("inside", dir.path().join("link")).unwrap();
    symlink("/etc", dir.path().join("inside/out")).unwrap();
    let share = Share::open(dir.path()).unwrap();

    assert!(share.pin(&names(&["inside", "file"])).unwrap().is_some());
    assert!(share.pin(&names(&["link", "file"])).unwrap().is_none());
    assert!(share.pin(&names(&["inside", "out", "passwd"])).unwrap().is_none());
    let link = share.pin(&names(&["inside", "out"])).unwrap().unwrap();
    let seen = share.see_handle(link.as_fd()).unwrap();
    assert_eq!(seen.kind, Type::Symlink);
    assert_eq!(details(link.as_fd(), true).unwrap().target, b"/etc");
}

#[test]
fn a_path_longer_than_the_kernel_takes_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let share = Share::open(dir.path()).unwrap();
    let name = vec![b'd'; 200];
    let depth = 40;
    let mut at = openat(
        rustix::fs::CWD,
        dir.path(),
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
    )
    .unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, &name[..], Mode::RWXU).unwrap();
        at = openat(&at, &name[..], OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let found = share.pin(&vec![name; depth]).unwrap().unwrap();
    assert_eq!(
        share.see_handle(found.as_fd()).unwrap().node,
        share.see_handle(at.as_fd()).unwrap().node
    );
}

#[test]
fn reading_a_file_leaves_its_access_time_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, b"content").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH;
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_times(std::fs::FileTimes::new().set_accessed(old))
        .unwrap();
    let share = Share::open(dir.path()).unwrap();
    let pin = share.pin(&names(&["f"])).unwrap().unwrap();
    let mut file = open_pinned(pin.as_fd(), false).unwrap();
    assert_eq!(io::read_to_string(&mut file).unwrap(), "content");
    assert_eq!(path.metadata().unwrap().atime(), 0);
}

#[test]
fn attributes_of_a_file_that_is_only_held_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, b"").unwrap();
    rustix::fs::setxattr(&path, "user.b", b"2", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&path, "user.a", b"", rustix::fs::XattrFlags::empty()).unwrap();
    let share = Share::open(dir.path()).unwrap();
    let pin = share.pin(&names(&["f"])).unwrap().unwrap();
    let found = details(pin.as_fd(), false).unwrap().attributes;
    assert_eq!(
        found,
        [
            (b"user.a".to_vec(), b"".to_vec()),
            (b"user.b".to_vec(), b"2".to_vec())
        ]
    );
}

#[test]
fn what_a_file_system_says_of_how_it_stores_a_file_is_no_attribute() {
    assert!(!is_attribute(b"btrfs.compression", b"zlib"));
    assert!(!is_attribute(b"system.nfs4_acl", b""));
    assert!(is_attribute(b"user.btrfs.compression", b"zlib"));
}

#[test]
fn a_hint_that_leaves_the_share_is_no_path() {
    assert_eq!(components(b"a//b/./c"), Some(names(&["a", "b", "c"])));
    assert_eq!(components(b""), Some(vec![]));
    assert_eq!(components(b"/etc"), None);
    assert_eq!(components(b"a/../b"), None);
}

#[test]
fn a_device_number_that_changed_with_a_reboot_is_the_same_device() {
    let dir = tempfile::tempdir().unwrap();
    let mut share = Share::open(dir.path()).unwrap();
    let now = share.see_handle(share.root()).unwrap().node;
    assert_eq!(now.dev, ROOT_DEVICE);
    let told_before = NodeRef { dev: 0x1234, ..now };
    assert_ne!(share.known_node(&told_before), now);
    share.had_devices(&[0x1234, 0x1234]);
    assert_eq!(share.known_node(&told_before), now);
    assert_eq!(share.devices().len(), 2);
    let foreign = NodeRef { dev: 77, ..now };
    assert_eq!(share.known_node(&foreign), foreign);
}

#[test]
fn what_changed_in_the_tick_of_the_look_may_change_again_with_the_same_times() {
    let dir = tempfile::tempdir().unwrap();
    let share = Share::open(dir.path()).unwrap();
    let path = dir.path().join("file");
    // A tick may end between the two.
    let in_doubt = (0..1000).any(|n: u32| {
        std::fs::write(&path, n.to_string()).unwrap();
        share.see(share.root(), b"file").unwrap().unwrap().doubt == Doubt::Content
    });
    assert!(in_doubt);
    while is_of_tick(
        share.see(share.root(), b"file").unwrap().unwrap().stamp.ctime,
        now(),
    ) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(
        share.see(share.root(), b"file").unwrap().unwrap().doubt,
        Doubt::None
    );
}

#[test]
fn a_tick_is_as_long_as_the_file_system_keeps_times_and_a_clock_set_back_makes_none() {
    let at = |ns: i128| restfs_lib::model::Time::from_ns(ns);
    const SECOND: i128 = 1_000_000_000;
    const TICK: i128 = 4_000_000;
    let exact = 1_000_000 * SECOND + 123_456_789;
    assert!(is_of_tick(at(exact), at(exact)));
    // The clock was read before.
    assert!(is_of_tick(at(exact), at(exact - TICK)));
    assert!(!is_of_tick(at(exact), at(exact + TICK)));
    // Kept to a microsecond less.
    assert!(is_of_tick(at(exact - 789), at(exact)));
    // Of whole seconds, or hundredths.
    let second = 1_000_000 * SECOND;
    assert!(is_of_tick(at(second), at(second + SECOND)));
    assert!(!is_of_tick(at(second), at(second + 2 * SECOND)));
    assert!(is_of_tick(at(second + 20_000_000), at(second + 29_000_000)));
    // From before the clock was set back by an hour: what is written now has times of now.
    assert!(!is_of_tick(at(exact), at(exact - 3600 * SECOND)));
    assert!(!is_of_tick(at(exact), at(exact + 3600 * SECOND)));
}
