//! Status never claims more than is proved, and keeps the names that tools rely on.

use super::*;
use crate::config::{Mode, Reconcile};
use crate::engine::{Outcome, SiteResult, Why};
use dr_replicator::Verified;
use std::time::{Duration, SystemTime};

const NOW: i64 = 1_700_000_000_000_000_000;
const HEAD: u64 = 40;
const CHANGE: u64 = 90;

fn task(state: SiteState) -> SiteStatus {
    SiteStatus {
        state,
        epoch: 2,
        cursor: CHANGE,
        head: CHANGE,
        point: 5,
        exact: true,
        wire_bytes: 1,
        shipped_bytes: 2,
        commits: 3,
        last_error: None,
        last_verified: Some(Verified {
            at: SystemTime::UNIX_EPOCH,
            sequence: CHANGE,
            equal: true,
        }),
        mismatches: 0,
        compared: 0,
        resync: None,
        pending: Default::default(),
        lag: Default::default(),
        limit: Some(9),
    }
}

/// A share that is in sync in every respect.
fn facts() -> ShareFacts {
    let task = task(SiteState::InSync);
    let place = catalog::SiteStatus {
        epoch: 2,
        cursor: CHANGE,
        journal: HEAD,
        ..Default::default()
    };
    ShareFacts {
        share: Share {
            name: "data".into(),
            path: "/srv/data".into(),
            mode: Mode::Copy,
            reconcile: Reconcile {
                after_gap: None,
                every: None,
            },
        },
        directory: "/state/shares/data".into(),
        mode: CaptureMode::Map(None),
        journal: journal::Status {
            head: HEAD,
            synced: HEAD,
            bytes: 7,
            bytes_max: 8,
            failed: false,
        },
        journal_trouble: None,
        short: None,
        unapplied_gap: None,
        sessions: (1, 0),
        all_connected: true,
        durability: Default::default(),
        exclude: String::new(),
        now_ns: NOW,
        catalog: catalog::Status {
            applied: HEAD,
            covered: HEAD,
            head: CHANGE,
            ..Default::default()
        },
        oldest_unapplied_ns: None,
        sites: vec![SiteFacts {
            name: "b".into(),
            url: "wss://b".into(),
            bucket: "data".into(),
            task: Some(task),
            place: Some(place),
        }],
        verify: VerifyReport::default(),
        next_reconcile: None,
    }
}

/// What a verify found: of the share, and of site b.
fn found(deep: bool, share: u64, site: u64) -> VerifyReport {
    let result = VerifyResult {
        at: "2026-11-20T14:00:00Z".into(),
        deep,
        outcome: Outcome::Differences,
        share_differences: share,
        sites: vec![SiteResult {
            name: "b".into(),
            differences: site,
        }],
        found: share + site,
        in_change: 0,
        files: 0,
        bytes: 0,
        blocks: 0,
        duration_ms: 0,
        error: None,
    };
    VerifyReport {
        found: Some(result),
        ..VerifyReport::default()
    }
}

#[test]
fn what_a_deep_verify_has_found_is_not_in_sync_until_it_is_mended() {
    let with = |verify| after(|facts| facts.verify = verify);
    assert_eq!(with(found(true, 1, 0)), ("gap".to_owned(), None));
    assert_eq!(with(found(true, 0, 1)), ("failed".to_owned(), None));
    assert_eq!(with(found(true, 0, 0)), ("in-sync".to_owned(), Some(0)));
    // The comparison that goes on all the time sees what a plain one sees.
    assert_eq!(with(found(false, 0, 1)), ("in-sync".to_owned(), Some(0)));
    let mut facts = facts();
    facts.verify = found(true, 0, 1);
    let error = report(facts).sites.remove(0).last_error.unwrap_or_default();
    assert!(error.contains("vfsxctl verify data --deep --repair"), "{error}");
}

type Place = fn(&mut ShareFacts);
type Change = Box<dyn FnOnce(&mut ShareFacts)>;

/// State and RPO after a change of the facts.
fn after(change: impl FnOnce(&mut ShareFacts)) -> (String, Option<u64>) {
    let mut facts = facts();
    change(&mut facts);
    let site = report(facts).sites.remove(0);
    (site.state, site.rpo_ms)
}

fn of_task(change: impl FnOnce(&mut SiteStatus)) -> String {
    after(|facts| change(facts.sites[0].task.as_mut().expect("has one"))).0
}

#[test]
fn in_sync_takes_every_proof() {
    assert_eq!(after(|_| ()), ("in-sync".to_owned(), Some(0)));
    let lesser: [(&str, Change); 10] = [
        ("unsynced", Box::new(|f| f.journal.head += 1)),
        ("unsynced only", Box::new(|f| f.journal.synced -= 1)),
        ("not covered", Box::new(|f| f.catalog.covered -= 1)),
        ("dirty", Box::new(|f| f.catalog.dirty_objects = 1)),
        ("a name to look at", Box::new(|f| f.catalog.pending_looks = 1)),
        (
            "a scan due",
            Box::new(|f| f.catalog.scan.state = ScanState::Needed),
        ),
        (
            "a scan running",
            Box::new(|f| f.catalog.scan.state = ScanState::Running),
        ),
        ("a change after the comparison", Box::new(|f| f.catalog.head += 1)),
        ("a session not back", Box::new(|f| f.sessions.1 = 1)),
        ("just started", Box::new(|f| f.all_connected = false)),
    ];
    for (what, change) in lesser {
        assert_eq!(after(change).0, "catching-up", "{what}");
    }
    assert_eq!(of_task(|t| t.cursor -= 1), "catching-up");
    assert_eq!(of_task(|t| t.last_verified = None), "catching-up");
    let stale = |t: &mut SiteStatus| t.last_verified.as_mut().expect("is set").sequence -= 1;
    assert_eq!(of_task(stale), "catching-up");
    let different = |t: &mut SiteStatus| t.last_verified.as_mut().expect("is set").equal = false;
    assert_eq!(of_task(different), "catching-up");
}

#[test]
fn a_gap_is_shown_wherever_it_is_and_with_its_earliest_time() {
    let coming = PendingGap {
        since_ns: NOW - 5_000_000_000,
        reason: journal::GapReason::RingFull,
    };
    assert_eq!(
        after(|f| f.unapplied_gap = Some(coming)),
        ("gap".to_owned(), Some(5_000))
    );
    let applied = |since_ns| {
        Some(catalog::Gap {
            since_ns,
            reason: "why".into(),
        })
    };
    assert_eq!(
        after(|f| f.catalog.gap = applied(NOW - 9_000_000_000)),
        ("gap".to_owned(), Some(9_000))
    );
    assert_eq!(
        after(|f| f.catalog.gap = applied(0)),
        ("gap".to_owned(), None),
        "of unknown age"
    );
    let mut both = facts();
    both.unapplied_gap = Some(coming);
    both.catalog.gap = applied(NOW - 9_000_000_000);
    assert_eq!(report(both).gap.map(|gap| gap.reason), Some("why".to_owned()));
}

#[test]
fn what_keeps_a_site_from_going_on_comes_before_a_gap() {
    for state in [
        SiteState::Paused,
        SiteState::Unreachable,
        SiteState::Full,
        SiteState::Fenced,
        SiteState::Failed,
    ] {
        let told = after(|f| {
            f.catalog.gap = Some(catalog::Gap {
                since_ns: NOW,
                reason: "why".into(),
            });
            f.sites[0].task.as_mut().expect("has one").state = state;
        });
        assert_eq!(told.0, state.as_str());
    }
    assert_eq!(of_task(|t| t.state = SiteState::Stopped), "failed");
    assert_eq!(after(|f| f.journal.failed = true).0, "failed");
    let mut still = facts();
    still.catalog.failed = trouble(false);
    let site = report(still).sites.remove(0);
    assert_eq!(site.state, "failed");
    assert!(site.last_error.expect("is told").contains("/d/file"));
}

fn trouble(full: bool) -> Option<Trouble> {
    let why = "cannot write /d/file".into();
    Some(Trouble { full, why })
}

/// State and error.
fn told(change: impl FnOnce(&mut ShareFacts)) -> (String, String) {
    let mut facts = facts();
    change(&mut facts);
    let site = report(facts).sites.remove(0);
    (site.state, site.last_error.unwrap_or_default())
}

#[test]
fn a_full_disk_here_is_full_and_named_whatever_else_it_brings_about() {
    let places: [(&str, Place); 3] = [
        ("disk of the journal in /state/shares/data is full", |f| {
            f.journal_trouble = trouble(true)
        }),
        ("disk of the catalog in /state", |f| {
            f.catalog.failed = trouble(true)
        }),
        ("disk of the contents kept for sites in /state", |f| {
            f.catalog.kept_trouble = trouble(true);
        }),
    ];
    for (text, place) in places {
        for state in [
            SiteState::InSync,
            SiteState::Gap,
            SiteState::Unreachable,
            SiteState::Failed,
        ] {
            let (said, error) = told(|f| {
                place(f);
                // As a full disk has it, too.
                f.journal.failed = true;
                let task = f.sites[0].task.as_mut().expect("has one");
                (task.state, task.last_error) = (state, Some("of the site".into()));
            });
            assert_eq!(said, "full", "{text}, {state:?}");
            assert!(error.contains(text) && error.contains("/d/file"), "{error}");
            assert!(error.contains("of the site"), "{error}");
        }
        for state in [SiteState::Paused, SiteState::Fenced] {
            let (said, _) = told(|f| {
                place(f);
                f.sites[0].task.as_mut().expect("has one").state = state;
            });
            assert_eq!(said, state.as_str(), "only a person ends that");
        }
    }
}

#[test]
fn a_disk_that_fails_for_another_reason_is_failed() {
    assert_eq!(told(|f| f.journal_trouble = trouble(false)).0, "failed");
    assert_eq!(told(|f| f.catalog.failed = trouble(false)).0, "failed");
    // Want of space is shown first: it is what a person can mend.
    let both = |f: &mut ShareFacts| {
        f.journal_trouble = trouble(false);
        f.catalog.failed = trouble(true);
    };
    assert_eq!(told(both).0, "full");
    let short = |f: &mut ShareFacts| {
        f.short = Some(SpaceReport {
            path: "/state".into(),
            level: "full".into(),
            free_bytes: 5,
            warn_bytes: 20,
            reserve_bytes: 10,
        });
    };
    let (state, error) = told(short);
    assert_eq!(state, "full");
    assert!(
        error.contains("/state") && error.contains("5 bytes are free, less than 10"),
        "{error}"
    );
    // Contents that cannot be kept cost exact points, and hold up nothing.
    assert_eq!(told(|f| f.catalog.kept_trouble = trouble(false)).0, "in-sync");
}

#[test]
fn the_age_of_the_oldest_change_counts_wherever_the_change_is() {
    let ago = |seconds: i64| Some(NOW - seconds * 1_000_000_000);
    let behind =
        |f: &mut ShareFacts| f.sites[0].task.as_mut().expect("has one").state = SiteState::CatchingUp;
    let rpo = |change: &dyn Fn(&mut ShareFacts)| {
        after(|f| {
            behind(f);
            change(f);
        })
        .1
    };
    assert_eq!(
        rpo(&|f| f.sites[0].place.as_mut().expect("is set").oldest_unshipped_ns = ago(3)),
        Some(3_000)
    );
    assert_eq!(rpo(&|f| f.catalog.oldest_dirty_ns = ago(4)), Some(4_000));
    assert_eq!(rpo(&|f| f.oldest_unapplied_ns = ago(5)), Some(5_000));
    assert_eq!(rpo(&|f| f.sites[0].place = None), None, "never met");
    let unknown = |f: &mut ShareFacts| {
        let place = f.sites[0].place.as_mut().expect("is set");
        (place.pending_ops, place.oldest_unshipped_ns) = (1, None);
    };
    assert_eq!(rpo(&unknown), None, "not kept any more");
    let first = |f: &mut ShareFacts| {
        f.sites[0].task.as_mut().expect("has one").state = SiteState::InitialSync;
        f.catalog.scan.state = ScanState::Running;
    };
    assert_eq!(rpo(&first), None, "what is not seen yet has no age");
    assert_eq!(rpo(&|f| f.sessions.1 = 1), None, "nor what a module still has");
    assert_eq!(rpo(&|f| f.all_connected = false), None);
}

#[test]
fn what_is_compared_when_and_what_the_last_gap_was_is_told() {
    let mut facts = facts();
    facts.next_reconcile = Some(Due {
        at: Instant::now(),
        why: Why::Schedule,
    });
    facts.catalog.last_gap = Some(catalog::ClosedGap {
        since_ns: 0,
        until_ns: NOW,
        reason: "why".into(),
    });
    facts.catalog.scan.state = ScanState::Running;
    facts.catalog.scan.started_ns = NOW;
    let now = time_text(NOW);
    let expected = serde_json::json!({
        "running": { "since": now },
        "next": { "at": now, "why": "schedule" },
        "last_gap": { "since": "unknown", "until": now, "reason": "why" },
    });
    let told = serde_json::to_value(report(facts).reconcile).expect("encodes");
    assert_eq!(told, expected);
}

#[test]
fn the_names_of_status_stay_as_they_are() {
    let value = serde_json::to_value(report(facts())).expect("encodes");
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    for key in [
        "name",
        "path",
        "mode",
        "mode_reason",
        "journal",
        "gap",
        "sites",
        "points",
    ] {
        assert!(keys(&value).contains(&key.to_owned()), "{key}");
    }
    assert_eq!(keys(&value["journal"]), ["bytes", "bytes_max", "head", "synced"]);
    let contract = [
        "name",
        "state",
        "epoch",
        "cursor",
        "rpo_ms",
        "pending_ops",
        "pending_bytes",
        "wire_bytes",
        "limit",
        "last_error",
        "last_verified",
    ];
    for key in contract {
        assert!(keys(&value["sites"][0]).contains(&key.to_owned()), "{key}");
    }
    assert_eq!(
        keys(&value["sites"][0]["last_verified"]),
        ["at", "equal", "sequence"]
    );
    assert_eq!(value["sites"][0]["last_verified"]["at"], "1970-01-01T00:00:00Z");
    assert_eq!(value["sites"][0]["cursor"], HEAD);
    assert!(value["gap"].is_null());
    assert_eq!(millis(Duration::from_secs(2)), 2_000);
}
