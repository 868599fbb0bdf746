//! Whatever one end says, the other hears, in one line.

use super::{Done, Progress, Reply, Request};
use crate::draw::{Draw, draw};
use crate::engine::*;
use crate::status::*;
use proptest::prelude::*;

fn request(draw: &mut Draw) -> Request {
    let (share, site) = (draw.maybe(Draw::text), draw.maybe(Draw::text));
    match draw.below(6) {
        0 => Request::Status {},
        1 => Request::Settle {
            share,
            site,
            timeout_ms: draw.u64(),
        },
        2 => Request::Sync { share },
        3 => Request::Verify {
            share,
            site,
            deep: draw.bool(),
            repair: draw.bool(),
            rate: draw.maybe(Draw::u64),
        },
        4 => Request::Pause { share, site },
        _ => Request::Resume { share, site },
    }
}

fn reply(draw: &mut Draw) -> Reply {
    let share = draw.text();
    match draw.below(9) {
        0 => Reply::Progress(Progress::Settle {
            share,
            stage: match draw.below(3) {
                0 => SettleStage::Modules,
                1 => SettleStage::Catalog,
                _ => SettleStage::Site { site: draw.text() },
            },
        }),
        1 => Reply::Progress(Progress::Sync {
            share,
            progress: sync_progress(draw),
        }),
        2 => Reply::Progress(Progress::Verify {
            share,
            progress: VerifyProgress {
                stage: draw.text(),
                done: draw.u64(),
                total: draw.u64(),
                bytes: draw.u64(),
            },
        }),
        3 => Reply::Done(Done::Status(StatusReport {
            version: draw.text(),
            space: draw.maybe(|draw| SpaceReport {
                path: draw.text(),
                level: draw.text(),
                free_bytes: draw.u64(),
                warn_bytes: draw.u64(),
                reserve_bytes: draw.u64(),
            }),
            modules: draw.maybe(|draw| ModulesReport {
                sessions: draw.below(9) as usize,
                sessions_max: draw.below(9) as usize,
                turned_away: draw.u64(),
                accept_failures: draw.u64(),
            }),
            shares: draw.some(share_report),
        })),
        4 => Reply::Done(Done::Settled(draw.some(|draw| Settled {
            share: draw.text(),
            journal: draw.u64(),
            change: draw.u64(),
            sites: draw.some(Draw::text),
            gap: draw.bool(),
        }))),
        5 => Reply::Done(Done::Synced(draw.some(|draw| Synced {
            share: draw.text(),
            progress: sync_progress(draw),
            gap: draw.bool(),
        }))),
        6 => Reply::Done(Done::Verified(draw.some(verified))),
        7 => Reply::Done(Done::Changed(draw.some(|draw| (draw.text(), draw.text())))),
        _ => Reply::Error {
            text: draw.text(),
            usage: draw.bool(),
        },
    }
}

fn sync_progress(draw: &mut Draw) -> SyncProgress {
    SyncProgress {
        directories: draw.u64(),
        files: draw.u64(),
        known: draw.u64(),
        bytes: draw.u64(),
        differences: draw.u64(),
        unread_bytes: draw.u64(),
        reading: draw.bool(),
    }
}

fn outcome(draw: &mut Draw) -> Outcome {
    draw.one_of(&[
        Outcome::Clean,
        Outcome::Differences,
        Outcome::Mended,
        Outcome::Failed,
    ])
}

fn verified(draw: &mut Draw) -> Verified {
    Verified {
        share: draw.text(),
        at: draw.text(),
        deep: draw.bool(),
        outcome: outcome(draw),
        sites: draw.some(Draw::text),
        found: findings(draw),
        after_repair: draw.maybe(findings),
        files: draw.u64(),
        bytes: draw.u64(),
        blocks: draw.u64(),
        block_bytes: draw.u64(),
        duration_ms: draw.u64(),
        error: draw.maybe(Draw::text),
    }
}

fn findings(draw: &mut Draw) -> Findings {
    let difference = |draw: &mut Draw| Difference {
        site: draw.maybe(Draw::text),
        path: draw.text(),
        kind: draw.one_of(&[
            DifferenceKind::Missing,
            DifferenceKind::Metadata,
            DifferenceKind::BlockDamaged,
            DifferenceKind::Digest,
        ]),
        detail: draw.maybe(Draw::text),
    };
    Findings {
        differences: draw.some(difference),
        unlisted: draw.u64(),
        in_change: draw.u64(),
    }
}

fn result(draw: &mut Draw) -> VerifyResult {
    VerifyResult {
        at: draw.text(),
        deep: draw.bool(),
        outcome: outcome(draw),
        share_differences: draw.u64(),
        sites: draw.some(|draw| SiteResult {
            name: draw.text(),
            differences: draw.u64(),
        }),
        found: draw.u64(),
        in_change: draw.u64(),
        files: draw.u64(),
        bytes: draw.u64(),
        blocks: draw.u64(),
        duration_ms: draw.u64(),
        error: draw.maybe(Draw::text),
    }
}

pub(crate) fn share_report(draw: &mut Draw) -> ShareReport {
    ShareReport {
        name: draw.text(),
        path: draw.text(),
        mode: draw.text(),
        mode_reason: draw.maybe(Draw::text),
        journal: JournalReport {
            head: draw.u64(),
            bytes: draw.u64(),
            bytes_max: draw.u64(),
            synced: draw.u64(),
        },
        gap: draw.maybe(|draw| GapReport {
            since: draw.text(),
            reason: draw.text(),
        }),
        sites: draw.some(site_report),
        sessions: SessionsReport {
            connected: draw.usize(),
            awaited: draw.usize(),
        },
        durability: DurabilityReport {
            journal: draw.usize(),
            remote: draw.usize(),
            waits: draw.u64(),
            fallbacks: draw.u64(),
            last_fallback: draw.maybe(Draw::text),
        },
        exclude: draw.text(),
        catalog: CatalogReport {
            applied: draw.u64(),
            covered: draw.u64(),
            changes: draw.u64(),
            objects: draw.u64(),
            dirty_objects: draw.u64(),
            dirty_bytes: draw.u64(),
            open_handles: draw.u64(),
            bytes_read: draw.u64(),
            read_errors: draw.u64(),
            last_error: draw.maybe(Draw::text),
        },
        points: PointsReport {
            exact: draw.u64(),
            fuzzy: draw.u64(),
            last_failure: draw.maybe(Draw::text),
            dropped: draw.u64(),
        },
        scan: ScanReport {
            state: draw.text(),
            directories: draw.u64(),
            files: draw.u64(),
            bytes: draw.u64(),
            differences: draw.u64(),
            unread_bytes: draw.u64(),
        },
        reconcile: ReconcileReport {
            running: draw.maybe(|draw| RunningReport { since: draw.text() }),
            next: draw.maybe(|draw| NextReport {
                at: draw.text(),
                why: draw.text(),
            }),
            last_gap: draw.maybe(|draw| LastGapReport {
                since: draw.text(),
                until: draw.text(),
                reason: draw.text(),
            }),
        },
        verify: VerifyReport {
            running: draw.maybe(|draw| Running {
                deep: draw.bool(),
                since: draw.text(),
            }),
            last: draw.maybe(result),
            found: draw.maybe(result),
        },
    }
}

fn site_report(draw: &mut Draw) -> SiteReport {
    SiteReport {
        name: draw.text(),
        state: draw.text(),
        epoch: draw.u64(),
        cursor: draw.u64(),
        rpo_ms: draw.maybe(Draw::u64),
        pending_ops: draw.u64(),
        pending_bytes: draw.u64(),
        wire_bytes: draw.u64(),
        limit: draw.maybe(Draw::u64),
        last_error: draw.maybe(Draw::text),
        last_verified: draw.maybe(|draw| VerifiedReport {
            at: draw.text(),
            sequence: draw.u64(),
            equal: draw.bool(),
        }),
        mismatches: draw.u64(),
        url: draw.text(),
        bucket: draw.text(),
        point: draw.u64(),
        exact: draw.bool(),
        shipped_bytes: draw.u64(),
        commits: draw.u64(),
        lag_ms_p50: draw.maybe(Draw::u64),
        lag_ms_p99: draw.maybe(Draw::u64),
    }
}

proptest! {
    #[test]
    fn a_request_is_one_line_and_comes_back(mut draw in draw()) {
        let said = request(&mut draw);
        let line = serde_json::to_string(&said).expect("can be written");
        prop_assert!(!line.contains('\n'), "{line}");
        prop_assert_eq!(serde_json::from_str::<Request>(&line).expect(&line), said);
    }

    #[test]
    fn a_reply_is_one_line_and_comes_back(mut draw in draw()) {
        let said = reply(&mut draw);
        let line = serde_json::to_string(&said).expect("can be written");
        prop_assert!(!line.contains('\n'), "{line}");
        prop_assert_eq!(serde_json::from_str::<Reply>(&line).expect(&line), said);
    }

    /// A line that is cut says nothing: not to verify less, and not to wait for less than was asked.
    #[test]
    fn a_line_that_is_cut_is_none(mut draw in draw(), at: prop::sample::Index) {
        let line = serde_json::to_string(&request(&mut draw)).expect("can be written");
        let cut = &line.as_bytes()[..at.index(line.len())];
        prop_assert!(serde_json::from_slice::<Request>(cut).is_err());
        let line = serde_json::to_string(&reply(&mut draw)).expect("can be written");
        let cut = &line.as_bytes()[..at.index(line.len())];
        prop_assert!(serde_json::from_slice::<Reply>(cut).is_err());
    }

    #[test]
    fn a_request_with_a_word_that_nobody_knows_is_none(mut draw in draw(), word in "[a-z]{1,12}") {
        let said = request(&mut draw);
        let mut value = serde_json::to_value(&said).expect("can be written");
        let fields = value.as_object_mut().expect("an object");
        let known = fields.contains_key(&word);
        fields.entry(word).or_insert(true.into());
        prop_assert_eq!(serde_json::from_value::<Request>(value).is_ok(), known);
    }

    #[test]
    fn any_line_is_a_request_or_an_error(line in ".{0,200}") {
        let _ = serde_json::from_str::<Request>(&line);
        let _ = serde_json::from_str::<Reply>(&line);
    }
}
