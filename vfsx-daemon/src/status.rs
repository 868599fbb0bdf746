//! What `vfsxctl status` tells, and the one place where it is decided what a site's state is called.

use crate::catalog::{self, ScanState};
use crate::config::Share;
use crate::engine::{Due, VerifyReport, VerifyResult};
use crate::intake::{CaptureMode, DurabilityFacts, PendingGap, PlacesFacts};
use crate::journal;
use crate::trouble::Trouble;
use dr_replicator::{SiteState, SiteStatus};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    pub version: String,
    /// Of `state_dir`; null when its file system does not tell.
    pub space: Option<SpaceReport>,
    /// Connections of smbd, to all shares; null while vfsxd starts.
    pub modules: Option<ModulesReport>,
    pub shares: Vec<ShareReport>,
}

/// Room on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceReport {
    pub path: String,
    /// `ok`, `low` (below `warn`) or `full` (below `reserve`).
    pub level: String,
    pub free_bytes: u64,
    pub warn_bytes: u64,
    pub reserve_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModulesReport {
    pub sessions: usize,
    pub sessions_max: usize,
    /// Times that a session found no place, since the start.
    pub turned_away: u64,
    /// Times that a connection could not be accepted, since the start.
    pub accept_failures: u64,
}

impl ModulesReport {
    pub fn of(facts: PlacesFacts) -> Self {
        Self {
            sessions: facts.sessions,
            sessions_max: facts.sessions_max,
            turned_away: facts.turned_away,
            accept_failures: facts.accept_failures,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareReport {
    pub name: String,
    pub path: String,
    /// How changes are captured now: `copy` or `map`.
    pub mode: String,
    /// Why it is `map` though smbd offers `copy`.
    pub mode_reason: Option<String>,
    pub journal: JournalReport,
    pub gap: Option<GapReport>,
    pub sites: Vec<SiteReport>,
    pub sessions: SessionsReport,
    pub durability: DurabilityReport,
    /// `vfsx:exclude` as it is in force: `/pattern/pattern/`.
    pub exclude: String,
    pub catalog: CatalogReport,
    pub points: PointsReport,
    pub scan: ScanReport,
    pub reconcile: ReconcileReport,
    pub verify: VerifyReport,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalReport {
    /// Newest record.
    pub head: u64,
    /// With the contents that are kept for sites.
    pub bytes: u64,
    pub bytes_max: u64,
    /// Newest record on disk.
    pub synced: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapReport {
    /// RFC 3339; `unknown` when it cannot be told.
    pub since: String,
    pub reason: String,
}

/// smbd's tree connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsReport {
    pub connected: usize,
    /// Known from before a restart, expected back.
    pub awaited: usize,
}

/// What clients wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurabilityReport {
    /// Connected sessions with `vfsx:durability = journal`.
    pub journal: usize,
    /// And with `remote`.
    pub remote: usize,
    /// Calls that were to return when the changes before them are durable.
    pub waits: u64,
    /// Those of them that returned before.
    pub fallbacks: u64,
    pub last_fallback: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogReport {
    pub applied: u64,
    pub covered: u64,
    pub changes: u64,
    pub objects: u64,
    pub dirty_objects: u64,
    pub dirty_bytes: u64,
    pub open_handles: u64,
    /// Read from the share since the start.
    pub bytes_read: u64,
    pub read_errors: u64,
    pub last_error: Option<String>,
}

/// Of mode `copy`, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsReport {
    /// States of the share that were exact, made while clients work.
    pub exact: u64,
    /// Times that sites got one that is not, since none came for too long.
    pub fuzzy: u64,
    /// Why the newest that could not be made exact could not.
    pub last_failure: Option<String>,
    /// Contents that could not be kept for sites that are behind.
    pub dropped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    /// `needed`, `running` or `done`.
    pub state: String,
    pub directories: u64,
    pub files: u64,
    pub bytes: u64,
    pub differences: u64,
    pub unread_bytes: u64,
}

/// Comparisons of the share with the catalog; how far one is says `scan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileReport {
    pub running: Option<RunningReport>,
    /// That vfsxd makes by itself.
    pub next: Option<NextReport>,
    /// The gap that was closed last.
    pub last_gap: Option<LastGapReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningReport {
    pub since: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextReport {
    pub at: String,
    /// `gap` or `schedule`.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGapReport {
    pub since: String,
    /// When it was closed.
    pub until: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    pub name: String,
    pub state: String,
    pub epoch: u64,
    /// Everything from journal records up to here is committed.
    pub cursor: u64,
    /// Age of the oldest change that is not committed, in milliseconds; 0 when all is, null when it cannot be told.
    pub rpo_ms: Option<u64>,
    pub pending_ops: u64,
    pub pending_bytes: u64,
    pub wire_bytes: u64,
    /// Bytes per second.
    pub limit: Option<u64>,
    pub last_error: Option<String>,
    pub last_verified: Option<VerifiedReport>,
    /// Comparisons since the start that found the trees different though all was committed; the difference was shipped.
    pub mismatches: u64,
    pub url: String,
    pub bucket: String,
    /// Newest recovery point.
    pub point: u64,
    /// It was one moment's state of the share.
    pub exact: bool,
    pub shipped_bytes: u64,
    pub commits: u64,
    /// From the note of an event to its commit.
    pub lag_ms_p50: Option<u64>,
    pub lag_ms_p99: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedReport {
    pub at: String,
    /// The change both trees were at.
    pub sequence: u64,
    pub equal: bool,
}

/// What a share's report is made from.
pub struct ShareFacts {
    pub share: Share,
    /// Where journal, catalog and kept contents are.
    pub directory: PathBuf,
    pub mode: CaptureMode,
    pub journal: journal::Status,
    pub journal_trouble: Option<Trouble>,
    /// The disk of `state_dir` when it is below its reserve.
    pub short: Option<SpaceReport>,
    /// One that the catalog does not know of yet.
    pub unapplied_gap: Option<PendingGap>,
    /// Connected, awaited.
    pub sessions: (usize, usize),
    /// Modules that connect again after a start of vfsxd have had the time to.
    pub all_connected: bool,
    pub durability: DurabilityFacts,
    pub exclude: String,
    pub now_ns: i64,
    pub catalog: catalog::Status,
    pub oldest_unapplied_ns: Option<i64>,
    pub sites: Vec<SiteFacts>,
    pub verify: VerifyReport,
    pub next_reconcile: Option<Due>,
}

pub struct SiteFacts {
    pub name: String,
    pub url: String,
    pub bucket: String,
    pub task: Option<SiteStatus>,
    pub place: Option<catalog::SiteStatus>,
}

pub fn report(facts: ShareFacts) -> ShareReport {
    ShareReport {
        name: facts.share.name.clone(),
        path: facts.share.path.display().to_string(),
        mode: facts.mode.as_str().to_owned(),
        mode_reason: facts.mode.reason().map(str::to_owned),
        journal: JournalReport {
            head: facts.journal.head,
            bytes: facts.journal.bytes + facts.catalog.kept_bytes,
            bytes_max: facts.journal.bytes_max,
            synced: facts.journal.synced,
        },
        gap: gap(&facts).map(|(since_ns, reason)| GapReport {
            since: time_text(since_ns),
            reason,
        }),
        sites: facts.sites.iter().map(|site| site_report(&facts, site)).collect(),
        sessions: SessionsReport {
            connected: facts.sessions.0,
            awaited: facts.sessions.1,
        },
        durability: durability_report(facts.durability),
        exclude: facts.exclude.clone(),
        catalog: catalog_report(&facts.catalog),
        points: points_report(&facts.catalog),
        scan: scan_report(&facts.catalog.scan),
        reconcile: reconcile_report(&facts),
        verify: facts.verify.clone(),
    }
}

/// The open gap, as the catalog has it or on its way there: (since, reason).
fn gap(facts: &ShareFacts) -> Option<(i64, String)> {
    let applied = facts
        .catalog
        .gap
        .as_ref()
        .map(|gap| (gap.since_ns, gap.reason.clone()));
    let coming = facts
        .unapplied_gap
        .map(|gap| (gap.since_ns, gap.reason.text().to_owned()));
    applied.into_iter().chain(coming).min_by_key(|(since, _)| *since)
}

/// What a person is told. In sync is said only when all of it is proved: nothing unsynced, unapplied, unread or
/// unseen on this side, all changes committed, and the two trees compared equal at that very change.
fn state(facts: &ShareFacts, site: &str, task: &SiteStatus) -> SiteState {
    let (catalog, here) = (&facts.catalog, trouble_here(facts));
    match task.state {
        SiteState::Stopped => SiteState::Failed,
        state @ (SiteState::Paused | SiteState::Fenced) => state,
        // Before what is wrong with the site, or seems to be: that may come from this.
        _ if here.as_ref().is_some_and(|trouble| trouble.full) => SiteState::Full,
        state @ (SiteState::Unreachable | SiteState::Full | SiteState::Failed) => state,
        _ if here.is_some() || facts.journal.failed => SiteState::Failed,
        _ if gap(facts).is_some() => SiteState::Gap,
        SiteState::InSync if is_still(facts, catalog) && is_equal(catalog, task) => {
            disproved(facts, site).map_or(SiteState::InSync, |(state, _)| state)
        }
        SiteState::InSync => SiteState::CatchingUp,
        state => state,
    }
}

/// What stands still at this end, or cannot be kept for want of space.
fn trouble_here(facts: &ShareFacts) -> Option<Trouble> {
    let directory = facts.directory.display();
    let named = |what: &str, trouble: &Trouble| Trouble {
        full: trouble.full,
        why: match trouble.full {
            true => format!("the disk of the {what} in {directory} is full: {}", trouble.why),
            false => format!("the {what} stands still: {}", trouble.why),
        },
    };
    let journal = facts.journal_trouble.as_ref().map(|t| named("journal", t));
    let catalog = facts.catalog.failed.as_ref().map(|t| named("catalog", t));
    // Anything else than want of space costs points that are exact, and no more.
    let kept = facts.catalog.kept_trouble.as_ref().filter(|t| t.full);
    let kept = kept.map(|t| named("contents kept for sites", t));
    // All goes on but what makes points exact: what else is wrong is told first.
    let short = facts.short.as_ref().map(|space| Trouble {
        full: true,
        why: format!(
            "the disk of state_dir {} is full but for its reserve: {} bytes are free, less than {}; points may be fuzzy",
            space.path, space.free_bytes, space.reserve_bytes
        ),
    });
    let all: Vec<_> = [journal, catalog, kept, short].into_iter().flatten().collect();
    all.iter().find(|t| t.full).or_else(|| all.first()).cloned()
}

/// What a deep verify found, which the comparison of trees does not see.
fn disproved(facts: &ShareFacts, site: &str) -> Option<(SiteState, String)> {
    let found = facts.verify.found.as_ref().filter(|found| found.deep)?;
    let here = (SiteState::Gap, found.share_differences, "the share");
    let of_site = |result: &VerifyResult| {
        let sites = result.sites.iter().filter(|result| result.name == site);
        sites.map(|result| result.differences).sum()
    };
    let there = (SiteState::Failed, of_site(found), "this site");
    let (state, count, place) = [here, there].into_iter().find(|(_, count, _)| *count > 0)?;
    let text = format!(
        "a deep verify at {} found {count} differences of {place}; mend them with `vfsxctl verify {} --deep --repair`",
        found.at, facts.share.name
    );
    Some((state, text))
}

/// A module that has not come back after a start of vfsxd may hold changes that smbd has confirmed to clients.
fn is_still(facts: &ShareFacts, catalog: &catalog::Status) -> bool {
    facts.all_connected
        && facts.sessions.1 == 0
        && facts.journal.synced == facts.journal.head
        && catalog.covered >= facts.journal.head
        && catalog.dirty_objects == 0
        && catalog.pending_looks == 0
        && catalog.scan.state == ScanState::Done
}

fn is_equal(catalog: &catalog::Status, task: &SiteStatus) -> bool {
    task.cursor >= catalog.head
        && task
            .last_verified
            .is_some_and(|v| v.equal && v.sequence >= catalog.head)
}

fn site_report(facts: &ShareFacts, site: &SiteFacts) -> SiteReport {
    let place = site.place.unwrap_or_default();
    let task = site.task.as_ref();
    let state = task.map_or(SiteState::Failed, |task| state(facts, &site.name, task));
    SiteReport {
        name: site.name.clone(),
        state: state.as_str().to_owned(),
        epoch: task.map_or(place.epoch, |t| t.epoch),
        cursor: place.journal,
        rpo_ms: rpo_ms(facts, site, state),
        pending_ops: place.pending_ops,
        pending_bytes: place.pending_bytes,
        wire_bytes: task.map_or(0, |t| t.wire_bytes),
        limit: task.and_then(|t| t.limit),
        last_error: last_error(facts, &site.name, task),
        last_verified: task.and_then(|t| t.last_verified).map(|verified| VerifiedReport {
            at: jiff::Timestamp::try_from(verified.at).map_or_else(|_| UNKNOWN.to_owned(), |t| t.to_string()),
            sequence: verified.sequence,
            equal: verified.equal,
        }),
        mismatches: task.map_or(0, |t| t.mismatches),
        url: site.url.clone(),
        bucket: site.bucket.clone(),
        point: task.map_or(0, |t| t.point),
        exact: task.is_some_and(|t| t.exact),
        shipped_bytes: task.map_or(0, |t| t.shipped_bytes),
        commits: task.map_or(0, |t| t.commits),
        lag_ms_p50: task.and_then(|t| t.lag.p50).map(millis),
        lag_ms_p99: task.and_then(|t| t.lag.p99).map(millis),
    }
}

fn last_error(facts: &ShareFacts, site: &str, task: Option<&SiteStatus>) -> Option<String> {
    let of_site = task.and_then(|t| t.last_error.clone());
    let both = match (trouble_here(facts).map(|trouble| trouble.why), of_site) {
        (Some(here), Some(there)) if !here.contains(&there) => Some(format!("{here}; and the site: {there}")),
        (here, there) => here.or(there),
    };
    both.or_else(|| disproved(facts, site).map(|(_, text)| text))
}

fn rpo_ms(facts: &ShareFacts, site: &SiteFacts, state: SiteState) -> Option<u64> {
    if state == SiteState::InSync {
        return Some(0);
    }
    // Nor what a module has that is still to come back.
    if facts.sessions.1 > 0 || !facts.all_connected {
        return None;
    }
    // How old a difference is that no event tells of, nobody knows.
    if disproved(facts, &site.name).is_some() {
        return None;
    }
    let catalog = &facts.catalog;
    let place = site.place?;
    if place.pending_ops > 0 && place.oldest_unshipped_ns.is_none() {
        return None;
    }
    let gap_since = gap(facts).map(|(since, _)| since);
    // Before the first scan has ended, or since a gap of unknown age, anything may be missing.
    if gap_since == Some(0) || (state == SiteState::InitialSync && catalog.scan.state != ScanState::Done) {
        return None;
    }
    let oldest = [
        gap_since,
        place.oldest_unshipped_ns,
        catalog.oldest_dirty_ns,
        facts.oldest_unapplied_ns,
    ];
    let oldest = oldest.into_iter().flatten().min();
    let age = oldest.map_or(0, |oldest| facts.now_ns.saturating_sub(oldest).max(0));
    Some(age.unsigned_abs() / 1_000_000)
}

fn durability_report(facts: DurabilityFacts) -> DurabilityReport {
    let waits = facts.waits;
    DurabilityReport {
        journal: facts.journal,
        remote: facts.remote,
        waits: waits.calls,
        fallbacks: waits.fallbacks,
        last_fallback: (waits.last_fallback_ns != 0).then(|| time_text(waits.last_fallback_ns)),
    }
}

fn catalog_report(status: &catalog::Status) -> CatalogReport {
    let why = status.failed.as_ref().map(|trouble| trouble.why.clone());
    CatalogReport {
        applied: status.applied,
        covered: status.covered,
        changes: status.head,
        objects: status.objects,
        dirty_objects: status.dirty_objects,
        dirty_bytes: status.dirty_bytes,
        open_handles: status.open_handles,
        bytes_read: status.bytes_read,
        read_errors: status.read_errors,
        last_error: why.or_else(|| status.last_error.clone()),
    }
}

fn points_report(status: &catalog::Status) -> PointsReport {
    PointsReport {
        exact: status.cuts.exact,
        fuzzy: status.cuts.fuzzy,
        last_failure: status.cuts.last_failure.clone(),
        dropped: status.kept_dropped,
    }
}

fn scan_report(scan: &catalog::ScanProgress) -> ScanReport {
    let state = match scan.state {
        ScanState::Needed => "needed",
        ScanState::Running => "running",
        ScanState::Done => "done",
    };
    ScanReport {
        state: state.to_owned(),
        directories: scan.directories,
        files: scan.files,
        bytes: scan.bytes,
        differences: scan.differences,
        unread_bytes: scan.unread_bytes,
    }
}

fn reconcile_report(facts: &ShareFacts) -> ReconcileReport {
    let scan = &facts.catalog.scan;
    let at = |due: &Due| {
        let left = due.at.saturating_duration_since(Instant::now());
        facts
            .now_ns
            .saturating_add(i64::try_from(left.as_nanos()).unwrap_or(i64::MAX))
    };
    ReconcileReport {
        running: (scan.state == ScanState::Running).then(|| RunningReport {
            since: time_text(scan.started_ns),
        }),
        next: facts.next_reconcile.as_ref().map(|due| NextReport {
            at: time_text(at(due)),
            why: due.why.as_str().to_owned(),
        }),
        last_gap: facts.catalog.last_gap.as_ref().map(|gap| LastGapReport {
            since: time_text(gap.since_ns),
            until: time_text(gap.until_ns),
            reason: gap.reason.clone(),
        }),
    }
}

const UNKNOWN: &str = "unknown";

fn time_text(ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) if ns != 0 => time.to_string(),
        _ => UNKNOWN.to_owned(),
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
