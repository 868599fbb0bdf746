//! What `vfsxctl status` says all along, and whether it is true.
//!
//! In sync is a claim about what smbd has confirmed to clients. smbd's own time for telling of it is granted. A claim
//! made while clients work is checked at once by their marks, at the very recovery point that the status names; one made
//! while they stand still is kept, and the whole tree at its point is compared with the share.

use super::client::{Confirmed, directory};
use super::model::MARK;
use crate::rpc::Rpc;
use crate::testlab::TestLab;
use anyhow::Result;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two questions, each of which is a process.
const STEP: Duration = Duration::from_millis(150);
/// From smbd's answer until vfsxd knows of a file that was closed: milliseconds; the rest is for a machine that has other things to
/// do.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// From the last answer until vfsxd knows of all: the module keeps writes into a file that stays open for a second at most, and
/// smbd sets the time of such a file two seconds after the write. The rest as above.
const STILL_WITHIN: Duration = Duration::from_secs(4);
const IN_SYNC: &str = "in-sync";

/// A site at a recovery point, said to be in sync.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) site: String,
    pub(super) point: u64,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Clients stand still since then.
    quiet: Mutex<Option<Instant>>,
    seen: Mutex<Seen>,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) answers: u64,
    /// Answers in which a site was in sync.
    pub(super) in_sync: u64,
    /// Of those, how many were checked by marks.
    pub(super) checked: u64,
    /// The oldest confirmed mark that a site lacked which was said to be in sync.
    pub(super) stale: Duration,
    /// States of sites, and how often.
    pub(super) states: BTreeMap<String, u64>,
    /// Modes of the share, and how often.
    pub(super) modes: BTreeMap<String, u64>,
    /// Comparisons that found the trees different though everything was committed.
    pub(super) mismatches: u64,
    /// What was not true.
    pub(super) wrong: Vec<String>,
    /// Since when and why, open or closed again.
    pub(super) gaps: BTreeSet<(String, String)>,
    /// To be compared whole.
    claims: BTreeSet<Claim>,
}

impl Watch {
    /// Asks until it is `over`. vfsxd and the sites may be gone at any moment.
    pub(super) fn run(&self, lab: &TestLab, confirmed: &[Confirmed], over: &AtomicBool) {
        let mut sites = BTreeMap::new();
        while !over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            if let Ok(status) = lab.status() {
                self.look(lab, confirmed, &mut sites, asked, &status);
            }
            std::thread::sleep(STEP);
        }
    }

    /// From now on clients do nothing, or something again.
    pub(super) fn set_quiet(&self, quiet: bool) {
        let since = quiet.then(Instant::now);
        *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Claims of the time in which clients stood still.
    pub(super) fn take_claims(&self) -> BTreeSet<Claim> {
        std::mem::take(&mut self.seen().claims)
    }

    pub(super) fn result(&self) -> Seen {
        self.seen().clone()
    }

    fn look(
        &self,
        lab: &TestLab,
        confirmed: &[Confirmed],
        sites: &mut BTreeMap<String, Rpc>,
        asked: Instant,
        status: &Value,
    ) {
        self.seen().answers += 1;
        self.seen().gaps.extend(gaps(status));
        if let Some(mode) = status.get("mode").and_then(Value::as_str) {
            *self.seen().modes.entry(mode.to_owned()).or_default() += 1;
        }
        let none = Vec::new();
        for site in status.get("sites").and_then(Value::as_array).unwrap_or(&none) {
            let text = |name: &str| site.get(name).and_then(Value::as_str).unwrap_or_default();
            let number = |name: &str| site.get(name).and_then(Value::as_u64).unwrap_or_default();
            let state = text("state");
            let mut seen = self.seen();
            *seen.states.entry(state.to_owned()).or_default() += 1;
            seen.mismatches = seen.mismatches.max(number("mismatches"));
            if state != IN_SYNC {
                continue;
            }
            seen.in_sync += 1;
            if status.get("gap") != Some(&Value::Null) {
                seen.wrong.push(format!("in sync with a gap: {status}"));
            }
            let claim = Claim {
                site: text("name").to_owned(),
                point: number("point"),
            };
            // With what was seen held, so that nothing is added once the quiet is over and the claims were taken.
            let quiet = *self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            if quiet.is_some_and(|since| asked > since + STILL_WITHIN) {
                seen.claims.insert(claim.clone());
            }
            drop(seen);
            // A site that is gone cannot be asked; what it has is looked at when it is back.
            if self.check_marks(lab, confirmed, sites, asked, &claim).is_err() {
                sites.remove(&claim.site);
            }
        }
    }

    fn check_marks(
        &self,
        lab: &TestLab,
        confirmed: &[Confirmed],
        sites: &mut BTreeMap<String, Rpc>,
        asked: Instant,
        claim: &Claim,
    ) -> Result<()> {
        if !sites.contains_key(&claim.site) {
            sites.insert(claim.site.clone(), Rpc::connect(lab.site(&claim.site)?)?);
        }
        let Some(rpc) = sites.get_mut(&claim.site) else {
            return Ok(());
        };
        for (number, confirmed) in confirmed.iter().enumerate() {
            let path = format!("{}/{MARK}", directory(number as u64));
            let found = rpc.read_point(claim.point, &path, 8)?;
            let has = found
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u64::from_le_bytes);
            // What was confirmed after the question is not spoken of.
            let missing = confirmed.after(has).filter(|at| *at < asked);
            let stale = missing.map_or(Duration::ZERO, |at| asked - at);
            let mut seen = self.seen();
            seen.checked += 1;
            seen.stale = seen.stale.max(stale);
            if stale > TOLD_WITHIN {
                let said = format!(
                    "{} was said to be in sync at point {}, where {path} has mark {has}: the next one had been confirmed {stale:?} before",
                    claim.site, claim.point
                );
                eprintln!("{said}");
                seen.wrong.push(said);
            }
        }
        Ok(())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gap that is open, and the one that was closed last.
fn gaps(status: &Value) -> impl Iterator<Item = (String, String)> {
    let places = ["/gap", "/reconcile/last_gap"];
    places.into_iter().filter_map(|place| {
        let gap = status.pointer(place)?;
        let text = |name| Some(gap.get(name)?.as_str()?.to_owned());
        Some((text("since")?, text("reason")?))
    })
}

/// What `status` says of every site, when it says of every one that it is in sync.
pub(super) fn all_in_sync(status: &Value) -> Option<BTreeSet<Claim>> {
    let sites = status.get("sites").and_then(Value::as_array)?;
    let claim = |site: &Value| {
        let is_so = site.get("state")?.as_str()? == IN_SYNC;
        is_so.then_some(Claim {
            site: site.get("name")?.as_str()?.to_owned(),
            point: site.get("point")?.as_u64()?,
        })
    };
    sites.iter().map(claim).collect()
}
