//! Thrash: clients work, a nemesis kills, cuts, fills and sets clocks, and in the end everything is where it belongs.
//!
//! A seed decides all that clients do and all that goes wrong, and when; so it replays a round as far as a machine
//! does the same things in the same time.

mod client;
mod gate;
mod model;
mod plan;
mod stage;
mod watch;

pub use plan::Scale;

use crate::compare::{self, Aspect, Report};
use crate::lab::Binaries;
use anyhow::{Context, Result, anyhow, bail, ensure};
use client::{Client, Confirmed, Worked};
use gate::Gate;
use plan::{Phase, Plan};
use serde::Serialize;
use serde_json::Value;
use stage::Stage;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use watch::{Claim, Watch, wait_for_sync};

/// Clients with a directory each.
const CLIENTS: u64 = 2;
/// More of them, without a model, fight over names where no smbd process is killed.
const FIGHTERS: u64 = 2;
/// After everything is well again: connections that nobody ends are given up after 30 s, and a site that was gone is tried again
/// after at most 30 s.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// Trees at rest are compared every 15 s.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

/// What a round without a failure was like.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    pub seed: u64,
    pub seconds: f64,
    pub events: usize,
    pub operations: u64,
    /// Operations in which a client lost its connection, and such that smbd refused.
    pub lost: u64,
    pub refused: u64,
    /// Answers of `vfsxctl status`, those of a site in sync, and marks that were looked at to see whether it was.
    pub answers: u64,
    pub in_sync: u64,
    pub checked: u64,
    /// Recovery points that were compared whole with the share.
    pub points: u64,
    /// Age of the oldest confirmed change that a site lacked which was said to be in sync; what smbd has not told of yet is
    /// allowed.
    pub stale_ms: u64,
    /// Why a gap was open when all was well again, and a sync was needed.
    pub gaps: Vec<String>,
    /// Names whose change a killed smbd had not told of: found by a sync.
    pub unnoticed: u64,
    pub states: BTreeMap<String, u64>,
}

/// Plays one round. What happens is printed as it happens when `verbose`. After a failure the state is kept, and where is printed.
pub fn round(binaries: Binaries, seed: u64, scale: Scale, verbose: bool) -> Result<Outcome> {
    let begun = Instant::now();
    let plan = Plan::new(seed, scale);
    let stage = Stage::set_up(binaries, seed).context("set-up")?;
    let played = play(&stage, &plan, seed, verbose);
    match played {
        Ok(outcome) => Ok(Outcome {
            seed,
            seconds: (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            events: plan.actions().count(),
            ..outcome
        }),
        Err(error) => {
            if let Err(error) = stage.keep() {
                eprintln!("the state is not kept: {error:#}");
            }
            Err(error.context(format!("seed {seed}")))
        }
    }
}

fn play(stage: &Stage, plan: &Plan, seed: u64, verbose: bool) -> Result<Outcome> {
    let lab = &stage.lab;
    let fighters = if plan.ends_smbd() { 0 } else { FIGHTERS };
    let confirmed: Vec<_> = (0..CLIENTS).map(|_| Confirmed::default()).collect();
    let (gate, watch, over) = (
        Gate::new((CLIENTS + fighters) as usize),
        Watch::default(),
        AtomicBool::new(false),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| watch.run(lab, &confirmed, &over));
        let mut clients = Vec::new();
        for (number, confirmed) in (0..).zip(&confirmed) {
            let client = Client::new(lab, &gate, confirmed, seed, number);
            clients.push(scope.spawn(move || client.run()));
        }
        for number in 0..fighters {
            let gate = &gate;
            clients.push(scope.spawn(move || client::fight(lab, gate, seed * FIGHTERS + number)));
        }
        let director = Director {
            stage,
            gate: &gate,
            watch: &watch,
            verbose,
            gaps: RefCell::default(),
            still: RefCell::default(),
        };
        let points = director.phases(plan);
        gate.end();
        let mut worked = Worked::default();
        let mut first = Ok(());
        for client in clients {
            let result = client
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a client panicked")));
            match result {
                Ok(done) => worked.add(done),
                Err(error) => first = first.and(Err(error)),
            }
        }
        let ended = points.and_then(|points| {
            first?;
            director.end(points, worked)
        });
        over.store(true, Ordering::Relaxed);
        ended
    })
}

struct Director<'a> {
    stage: &'a Stage,
    gate: &'a Gate,
    watch: &'a Watch,
    verbose: bool,
    gaps: RefCell<Vec<String>>,
    /// Of this phase, ended before its end.
    still: RefCell<Vec<Still>>,
}

/// A time in which nothing changed: the share as it was, and what was said.
type Still = (TempDir, BTreeSet<Claim>);

impl Director<'_> {
    /// Gives the number of recovery points that were compared.
    fn phases(&self, plan: &Plan) -> Result<u64> {
        let mut points = 0;
        for phase in &plan.phases {
            points += self.phase(phase)?;
        }
        Ok(points)
    }

    fn phase(&self, phase: &Phase) -> Result<u64> {
        let begun = Instant::now();
        self.gate.open();
        let (while_working, while_quiet): (Vec<_>, Vec<_>) =
            phase.events.iter().partition(|event| event.at < phase.work);
        self.events(begun, phase.work, &while_working)?;
        self.gate.close()?;
        self.say("clients stand still");
        self.watch.set_quiet(true);
        let begun = Instant::now() - phase.work;
        self.events(begun, phase.work + phase.quiet, &while_quiet)?;
        self.say("all is well again");
        self.stage.heal(phase)?;
        let mut still = self.still.take();
        still.push(self.end_of_still()?);
        for (share, claims) in &still {
            for claim in claims {
                self.check_claim(share.path(), claim)?;
            }
        }
        self.close_gap()?;
        Ok(still.iter().map(|(_, claims)| claims.len() as u64).sum())
    }

    /// What was said while nothing changed, and a copy of the share as it was then.
    fn end_of_still(&self) -> Result<Still> {
        self.watch.set_quiet(false);
        let claims = self.watch.take_claims();
        let dir = tempfile::Builder::new().prefix("vfsx-still-").tempdir()?;
        let share = self.stage.lab.share("data")?.join(".");
        let copied = Command::new("cp").arg("-a").arg(share).arg(dir.path()).status()?;
        ensure!(copied.success(), "cp of the share");
        Ok((dir, claims))
    }

    fn events(&self, begun: Instant, until: Duration, events: &[&plan::Event]) -> Result<()> {
        let wait_for = |at: Duration| std::thread::sleep(at.saturating_sub(begun.elapsed()));
        for event in events {
            wait_for(event.at);
            self.say(&format!("{:?}", event.action));
            // An smbd that ends closes files that are open, and sets their times: the share changes once more.
            let stirs = self.watch.is_quiet() && event.action.ends_smbd();
            if stirs {
                let still = self.end_of_still()?;
                self.still.borrow_mut().push(still);
            }
            let done = self.stage.act(event.action);
            done.with_context(|| format!("{:?}", event.action))?;
            if stirs {
                self.watch.set_quiet(true);
            }
        }
        wait_for(until);
        Ok(())
    }

    /// Clients stood still when the site was said to be in sync at this point, so it has what the share has now.
    fn check_claim(&self, share: &Path, claim: &Claim) -> Result<()> {
        let report = self.compare(share, &claim.site, Some(claim.point))?;
        ensure!(
            report.identical,
            "{} was said to be in sync at point {}, where it is not:\n{report}",
            claim.site,
            claim.point
        );
        Ok(())
    }

    /// With one, nothing would be said to be in sync from now on.
    fn close_gap(&self) -> Result<()> {
        let lab = &self.stage.lab;
        let status = lab.status()?;
        if let Some(reason) = status.pointer("/gap/reason").and_then(Value::as_str) {
            self.say(&format!("sync, because of a gap: {reason}"));
            self.gaps.borrow_mut().push(reason.to_owned());
            lab.vfsxctl(&["sync"])?;
        }
        Ok(())
    }

    /// All is well: everything must come to every site, without help unless there is a gap.
    fn end(&self, points: u64, worked: Worked) -> Result<Outcome> {
        let lab = &self.stage.lab;
        self.close_gap()?;
        lab.settle_within(SETTLE_LIMIT)?;
        wait_for_sync(lab, SYNC_LIMIT)?;
        let mut unnoticed = 0;
        for site in &lab.sites {
            unnoticed = unnoticed.max(self.check_site(&site.description.name, &worked)?);
        }
        if unnoticed > 0 {
            lab.vfsxctl(&["sync"])?;
            lab.settle_within(SETTLE_LIMIT)?;
            for site in &lab.sites {
                lab.check_replica(&site.description.name)?;
            }
        }
        let seen = self.watch.result();
        if let Some(wrong) = seen.wrong.first() {
            bail!(
                "{} false answers of the status, the first: {wrong}",
                seen.wrong.len()
            );
        }
        ensure!(
            seen.mismatches == 0,
            "{} comparisons found the trees different",
            seen.mismatches
        );
        Ok(Outcome {
            operations: worked.operations,
            lost: worked.lost,
            refused: worked.refused,
            answers: seen.answers,
            in_sync: seen.in_sync,
            checked: seen.checked,
            points: points + lab.sites.len() as u64,
            stale_ms: seen.stale.as_millis() as u64,
            gaps: self.gaps.borrow().clone(),
            unnoticed,
            states: seen.states,
            ..Outcome::default()
        })
    }

    /// Differences in what a killed smbd was just doing are allowed, and counted: docs/module.md, known limits.
    fn check_site(&self, site: &str, worked: &Worked) -> Result<u64> {
        let report = self.compare(self.stage.lab.share("data")?, site, None)?;
        let allowed = report.total() == report.differences.len() as u64
            && report.differences.iter().all(|difference| {
                worked.doubtful.iter().any(|name| {
                    let parent = name.rsplit_once('/').map_or(".", |(dir, _)| dir);
                    model::is_beneath(&difference.path, name)
                        || (difference.path == parent && difference.aspect == Aspect::Mtime)
                })
            });
        ensure!(allowed, "the replica at {site} is not identical:\n{report}");
        Ok(report.total())
    }

    fn compare(&self, share: &Path, site: &str, point: Option<u64>) -> Result<Report> {
        let out = tempfile::Builder::new().prefix("vfsx-replica-").tempdir()?;
        let out = out.path().join("tree");
        self.stage.lab.site(site)?.restore(point, &out)?;
        Ok(compare::compare(share, &out, &compare::Options::default())?)
    }

    fn say(&self, what: &str) {
        if self.verbose {
            println!("    {what}");
        }
    }
}

impl Worked {
    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.lost += other.lost;
        self.refused += other.refused;
        self.doubtful.extend(other.doubtful);
    }
}
