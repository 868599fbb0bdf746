use super::*;
use crate::catalog::store::StampRow;
use crate::journal::NodeRef;
use restfs_lib::model::Time;

const NODE: NodeRef = NodeRef {
    dev: 0,
    ino: 7,
    btime_ns: 5,
};
/// 2030-01-01.
const FUTURE: i64 = 1_893_456_000;
const PAST: i64 = 5;

fn stamp(mtime: i64, ctime: i64) -> Stamp {
    let time = |seconds| Time {
        seconds,
        nanoseconds: 3,
    };
    Stamp {
        size: 100,
        mtime: time(mtime),
        ctime: time(ctime),
    }
}

fn seen(stamp: Stamp) -> Seen {
    Seen {
        node: NODE,
        kind: Type::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        links: 1,
        atime: Time::default(),
        btime: Time::default(),
        stamp,
        doubt: Doubt::None,
    }
}

fn row(stamp: Stamp, doubt: Doubt) -> NodeRow {
    NodeRow {
        node: NODE,
        names: 1,
        stamp: StampRow::of(stamp, doubt),
        scan: 0,
    }
}

#[test]
fn any_other_stamp_is_a_difference_whichever_way_the_clock_went() {
    for before in [PAST, 1000, FUTURE] {
        for after in [PAST, 1000, FUTURE] {
            for mtime in [PAST, 1000, FUTURE] {
                let now = seen(stamp(mtime, after));
                let known = row(stamp(1000, before), Doubt::None);
                let same = mtime == 1000 && before == after;
                assert_eq!(differs(&now, &known, None), !same, "{mtime} {before} {after}");
            }
        }
    }
}

#[test]
fn a_rewrite_of_the_same_size_with_the_old_time_is_told_by_the_change_time() {
    let known = row(stamp(1000, 1000), Doubt::None);
    assert!(differs(&seen(stamp(1000, 1001)), &known, None));
}

#[test]
fn a_stamp_of_the_tick_in_which_it_was_seen_proves_nothing() {
    let at = stamp(1000, 1000);
    for doubt in [Doubt::Metadata, Doubt::Content] {
        let known = row(at, doubt);
        assert_eq!((Stamp::from(known.stamp), known.stamp.doubt()), (at, doubt));
        assert!(differs(&seen(at), &known, None));
    }
    assert!(!differs(&seen(at), &row(at, Doubt::None), None));
}

#[test]
fn while_there_is_a_gap_stamps_that_are_not_older_are_in_doubt() {
    let gap = |seconds: i64| GapRow {
        since_ns: seconds * 1_000_000_000,
        reason: String::new(),
        newest: 1,
    };
    let at = stamp(PAST, 10_000);
    let known = row(at, Doubt::None);
    assert!(differs(&seen(at), &known, Some(&gap(10_000))));
    assert!(!differs(&seen(at), &known, Some(&gap(10_100))));
}
