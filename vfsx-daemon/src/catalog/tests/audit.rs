//! The share against the catalog, content included: what differs is told, what is in change is not.

use super::rig::Rig;
use crate::catalog::{Catalog, Fault, Judgement, Reading, Steady};
use restfs_lib::model::ObjectId;
use rustix::fs::{FallocateFlags, XattrFlags, fallocate, setxattr};
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

fn fill(root: &Path) {
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    for n in 0..40usize {
        fs::write(root.join(format!("dir/f{n}")), vec![n as u8; n * 1531]).unwrap();
    }
    fs::hard_link(root.join("dir/f9"), root.join("dir/sub/linked")).unwrap();
    std::os::unix::fs::symlink("dir", root.join("link")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"in the middle", 40 * 4096).unwrap();
    sparse.set_len(90 * 4096).unwrap();
    fs::write(root.join("zeros"), vec![0; 9 * 4096]).unwrap();
    setxattr(root.join("dir/f1"), "user.a", b"1", XattrFlags::empty()).unwrap();
}

fn reading<T>(work: impl FnOnce(&Reading<'_>) -> T) -> T {
    let stop = AtomicBool::new(false);
    work(&Reading {
        pace: &|_| (),
        stop: &stop,
    })
}

fn suspects(catalog: &Catalog) -> Vec<ObjectId> {
    let groups = catalog.audit_groups(None).unwrap();
    let look = |group| reading(|reading| catalog.audit_group(group, reading)).unwrap();
    groups
        .into_iter()
        .flat_map(|group| look(group).suspects)
        .collect()
}

/// Once its last change is old enough that another one shows.
fn steady(catalog: &Catalog, object: ObjectId) -> Steady {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(steady) = catalog.steady(object).unwrap() {
            return steady;
        }
        assert!(Instant::now() < until, "object {object} is never steady");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn judge(catalog: &Catalog, before: &Steady) -> Judgement {
    reading(|reading| catalog.audit_again(before, reading)).unwrap()
}

fn faults(catalog: &Catalog) -> Vec<(String, Fault)> {
    let mut all = Vec::new();
    for object in suspects(catalog) {
        let path = catalog.path_of(object).unwrap().unwrap_or_default();
        let path = String::from_utf8(path).unwrap();
        match judge(catalog, &steady(catalog, object)) {
            Judgement::Differs(found) => {
                all.extend(found.list.into_iter().map(|fault| (path.clone(), fault)))
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    all.sort_by_key(|(path, fault)| (path.clone(), format!("{fault:?}")));
    all
}

/// One byte becomes another, size and modification time stay.
fn alter(path: &Path, at: u64) {
    let modified = path.metadata().unwrap().modified().unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"!", at).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

#[test]
fn a_share_that_is_as_the_catalog_says_has_no_suspects() {
    let rig = Rig::with(fill);
    rig.settle();
    assert_eq!(suspects(&rig.catalog), []);
}

#[test]
fn every_way_in_which_a_share_can_differ_is_told_and_read_again_on_request() {
    let rig = Rig::with(fill);
    rig.settle();
    alter(&rig.path("dir/f39"), 5 * 4096 + 7);
    alter(&rig.path("sparse"), 80 * 4096);
    fs::set_permissions(rig.path("dir/f2"), Permissions::from_mode(0o600)).unwrap();
    setxattr(rig.path("dir/f1"), "user.a", b"2", XattrFlags::empty()).unwrap();
    fs::remove_file(rig.path("dir/f3")).unwrap();
    fs::write(rig.path("dir/new"), "x").unwrap();
    fs::rename(rig.path("dir/f4"), rig.path("dir/f5")).unwrap();
    let name = |name: &str| name.as_bytes().to_vec();
    let content = |block: u64| Fault::Content {
        first: block * 4096,
        blocks: 1,
    };
    let what = |what| Fault::Metadata { what };
    assert_eq!(
        faults(&rig.catalog),
        [
            ("dir", Fault::Gone { name: name("f3") }),
            ("dir", Fault::Gone { name: name("f4") }),
            ("dir", what("modification time")),
            ("dir", Fault::Other { name: name("f5") }),
            ("dir", Fault::Unknown { name: name("new") }),
            ("dir/f1", Fault::Attribute { name: name("user.a") }),
            ("dir/f2", what("mode")),
            ("dir/f39", content(5)),
            ("sparse", content(80)),
        ]
        .map(|(path, fault)| (path.to_owned(), fault))
    );
    rig.catalog.read_again(suspects(&rig.catalog)).unwrap();
    let number = rig.catalog.request_scan().unwrap();
    rig.wait("the scan behind it has finished", |s| s.scan.finished >= number);
    assert_eq!(suspects(&rig.catalog), []);
    rig.check();
}

#[test]
fn what_a_client_changes_while_it_is_looked_at_is_in_change() {
    let rig = Rig::with(fill);
    rig.settle();
    let (file, dir) = (rig.id("dir/f7").unwrap(), rig.id("dir").unwrap());
    let before = [file, dir].map(|object| steady(&rig.catalog, object));
    fs::write(rig.path("dir/f7"), "by a client whose event is on its way").unwrap();
    fs::write(rig.path("dir/also"), "").unwrap();
    for before in before {
        assert!(matches!(judge(&rig.catalog, &before), Judgement::InChange));
    }
}

#[test]
fn a_hole_in_the_place_of_zeros_is_no_other_content() {
    let rig = Rig::with(fill);
    rig.settle();
    let file = OpenOptions::new().write(true).open(rig.path("zeros")).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 4096, 5 * 4096).unwrap();
    let what = Fault::Metadata {
        what: "modification time",
    };
    assert_eq!(faults(&rig.catalog), [("zeros".to_owned(), what)]);
}

#[test]
fn excluded_names_and_the_times_that_they_move_are_no_difference() {
    let rig = Rig::with(fill);
    rig.exclude("/*.tmp/");
    rig.settle();
    fs::write(rig.path("dir/x.tmp"), "not replicated").unwrap();
    assert_eq!(faults(&rig.catalog), []);
}
