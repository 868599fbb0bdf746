use super::rig::Rig;
use crate::journal::Body;
use std::fs;

/// Everything that is in no transaction is forgotten; the records behind the applied ones come again.
#[test]
fn stops_at_any_place_and_records_that_come_again_give_the_same_tree() {
    let mut rig = Rig::new();
    for round in 0..12u32 {
        let dir = format!("d{round}");
        rig.make_dir("", &dir);
        for i in 0..20 {
            rig.make_file(&dir, &format!("f{i}"), &vec![i as u8; (i * 997) as usize]);
        }
        let (from, to) = (format!("d{round}"), format!("e{round}"));
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
        std::thread::sleep(std::time::Duration::from_millis(u64::from(round * 3)));
        rig.restart();
    }
    rig.check();
}

#[test]
fn nothing_is_read_again_after_a_restart() {
    let mut rig = Rig::new();
    rig.make_file("", "f", &[3; 100_000]);
    rig.check();
    let head = rig.catalog.status().head;
    rig.restart();
    let status = rig.settle();
    assert_eq!((status.bytes_read, status.head), (0, head));
    rig.check();
}

#[test]
fn a_catalog_refuses_another_directory() {
    let rig = Rig::new();
    rig.catalog.stop();
    let other = tempfile::tempdir().unwrap();
    let error = crate::catalog::Catalog::open(super::rig::options(other.path(), rig.state.path()))
        .err()
        .unwrap();
    assert!(
        matches!(error, crate::catalog::CatalogError::WrongShare(_)),
        "{error}"
    );
}

#[test]
fn records_missing_from_the_journal_are_a_gap() {
    let rig = Rig::new();
    {
        let hole = Body::Look {
            dir: rig.dir(""),
            name: b"x".to_vec(),
        };
        rig.feed(hole);
    }
    rig.settle();
    assert!(rig.catalog.status().gap.is_none());
    rig.skip_records(5);
    rig.make_file("", "f", b"x");
    rig.wait("the gap is noted", |s| s.gap.is_some());
}

#[test]
fn a_store_that_fails_for_a_while_loses_and_doubles_nothing() {
    for happens in [false, true] {
        let rig = Rig::new();
        rig.make_dir("", "d");
        rig.check();
        rig.crash_after(1, happens);
        for i in 0..30 {
            rig.make_file("d", &format!("f{i}"), &vec![i as u8; 5000]);
        }
        rig.wait_for("the failure is shown", |s| s.failed.is_some());
        rig.make_file("", "later", b"while it fails");
        rig.heal();
        rig.wait_for("it goes on", |s| s.failed.is_none());
        rig.check();
    }
}

#[test]
fn a_directory_that_cannot_be_found_is_a_gap_and_holds_nothing_up_for_ever() {
    let rig = Rig::new();
    let nowhere = crate::journal::DirRef {
        node: crate::journal::NodeRef {
            dev: 5,
            ino: 999_999_999,
            btime_ns: 1,
        },
        path_hint: b"no/where".to_vec(),
    };
    rig.feed(Body::Look {
        dir: nowhere,
        name: b"x".to_vec(),
    });
    let status = rig.wait("it is applied", |s| s.applied == 1);
    assert_eq!(status.covered, 0);
    let status = rig.wait("it is given up", |s| s.covered == 1);
    assert!(status.gap.is_some());
}
