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

use crate::compare::{self, Report};
use crate::lab::{Binaries, Mode};
use crate::wait;
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
use watch::{Claim, Watch, all_in_sync};

/// Clients with a directory each.
const CLIENTS: u64 = 2;
/// More of them, without a model, fight over names where no smbd process is killed.
const FIGHTERS: u64 = 2;
/// After everything is well again: connections that nobody ends are given up after 30 s, and a site that was gone is tried again
/// after at most 30 s.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// Trees at rest are compared every 15 s. Gaps that vfsxd closes by itself it closes ever more rarely: 1 s, 2 s, 4 s and so on after
/// each.
const SYNC_LIMIT: Duration = Duration::from_secs(180);
/// The watch asks all the time.
const SEEN_LIMIT: Duration = Duration::from_secs(60);
/// What clients do at least, all together, in a second in which there is an smbd, once they are connected.
const OPERATIONS: u64 = 5;
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);

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
    /// Whether gaps were left to vfsxd.
    pub heals_itself: bool,
    /// Why there were any.
    pub gaps: Vec<String>,
    pub states: BTreeMap<String, u64>,
    /// Modes in force while a client was connected, and how often.
    pub modes: BTreeMap<String, u64>,
}

/// Plays one round. What happens is printed as it happens when `verbose`. After a failure the state is kept, and where is printed.
pub fn round(binaries: Binaries, mode: Mode, seed: u64, scale: Scale, verbose: bool) -> Result<Outcome> {
    let begun = Instant::now();
    let plan = Plan::new(seed, scale);
    let stage = Stage::set_up(binaries, mode, seed, plan.heals_itself).context("set-up")?;
    let played = play(&stage, &plan, mode, seed, verbose);
    match played {
        Ok(outcome) => Ok(Outcome {
            seed,
            heals_itself: plan.heals_itself,
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

fn play(stage: &Stage, plan: &Plan, mode: Mode, seed: u64, verbose: bool) -> Result<Outcome> {
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
            plan,
            mode,
            gate: &gate,
            watch: &watch,
            confirmed: &confirmed,
            verbose,
            still: RefCell::default(),
        };
        let phases = director.phases();
        gate.end();
        let mut worked = Worked::default();
        let mut first = Ok(());
        for client in clients {
            let result = client
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a client panicked")));
            match result {
                Ok(done) => worked.add(&done),
                Err(error) => first = first.and(Err(error)),
            }
        }
        let ended = phases.and_then(|compared| {
            first?;
            director.end(compared, &worked)
        });
        over.store(true, Ordering::Relaxed);
        ended
    })
}

struct Director<'a> {
    stage: &'a Stage,
    plan: &'a Plan,
    mode: Mode,
    gate: &'a Gate,
    watch: &'a Watch,
    confirmed: &'a [Confirmed],
    verbose: bool,
    /// Of this phase, ended before its end.
    still: RefCell<Vec<Still>>,
}

/// A time in which nothing changed: the share as it was, and what was said.
type Still = (TempDir, BTreeSet<Claim>);

impl Director<'_> {
    /// Gives the number of points that were compared.
    fn phases(&self) -> Result<u64> {
        let mut compared = 0;
        for (number, phase) in self.plan.phases.iter().enumerate() {
            let before = (self.watch.result(), self.operations());
            compared += self.phase(phase)?;
            self.check_floor(phase, &before.0, before.1)?;
            self.check_gaps(number + 1)?;
        }
        Ok(compared)
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
        let last = self.come_to_rest()?;
        self.wait_for_watch()?;
        let mut still = self.still.take();
        let (share, mut claims) = self.end_of_still()?;
        claims.extend(last);
        still.push((share, claims));
        self.compare_all(&still)
    }

    /// All is well: everything must come to every site, without help, but for a gap that vfsxd was told to leave alone. Gives what is
    /// said then.
    fn come_to_rest(&self) -> Result<BTreeSet<Claim>> {
        let lab = &self.stage.lab;
        lab.settle_within(SETTLE_LIMIT)?;
        let look = || {
            let status = lab.status().ok()?;
            if !self.plan.heals_itself && status.get("gap").is_some_and(Value::is_object) {
                self.say("sync, because of a gap");
                lab.vfsxctl(&["sync"]).ok()?;
            }
            all_in_sync(&status)
        };
        wait::until("all sites in sync", SYNC_LIMIT, look, || {
            format!("{:?}", lab.status())
        })
    }

    /// smbd closes what is open in its own time after the connection.
    fn wait_for_goodbyes(&self) -> Result<()> {
        let lab = &self.stage.lab;
        let are_gone = || {
            let status = lab.status().ok()?;
            (status.pointer("/sessions/connected")?.as_u64()? == 0).then_some(())
        };
        wait::until("the end of all sessions", SETTLE_LIMIT, are_gone, || {
            format!("{:?}", lab.status())
        })
    }

    /// What the watch says of a phase is worth something when it has seen the sites in sync in it. They are.
    fn wait_for_watch(&self) -> Result<()> {
        let before = self.watch.result();
        let seen = || {
            let seen = self.watch.result();
            (seen.in_sync > before.in_sync && seen.checked > before.checked).then_some(())
        };
        wait::until("the watch to look", SEEN_LIMIT, seen, || {
            format!("{:?}, before {before:?}", self.watch.result())
        })
    }

    /// Something must have been done and seen.
    fn check_floor(&self, phase: &Phase, before: &watch::Seen, operations: u64) -> Result<()> {
        let seen = self.watch.result();
        let done = self.operations() - operations;
        let least = OPERATIONS * phase.served().saturating_sub(CONNECTED_WITHIN).as_secs();
        self.say(&format!(
            "{done} operations in {:?}, {} answers, {} in sync, {} marks",
            phase.served(),
            seen.answers - before.answers,
            seen.in_sync - before.in_sync,
            seen.checked - before.checked
        ));
        ensure!(
            done >= least,
            "clients did {done} operations in {:?}, less than {least}",
            phase.served()
        );
        Ok(())
    }

    /// A gap is right only where something happened that nobody may know of: it has not come of what may not cost one.
    fn check_gaps(&self, phases: usize) -> Result<()> {
        let events = self
            .plan
            .phases
            .iter()
            .take(phases)
            .flat_map(|phase| &phase.events);
        let actions: Vec<_> = events.map(|event| event.action).collect();
        for (since, reason) in self.watch.result().gaps {
            let is_explained = actions.iter().any(|action| action.explains_gap(&reason));
            ensure!(is_explained, "a gap without a cause, since {since}: {reason}");
        }
        Ok(())
    }

    fn operations(&self) -> u64 {
        self.confirmed.iter().map(Confirmed::operations).sum()
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

    /// The share, as it was while clients stood still, with every point at which a site was said to be in sync then.
    fn compare_all(&self, still: &[Still]) -> Result<u64> {
        let mut compared = 0;
        for (share, claims) in still {
            for claim in claims {
                self.check_claim(share.path(), claim)?;
                compared += 1;
            }
        }
        Ok(compared)
    }

    /// Clients stood still when the site was said to be in sync at this point, so it has what the share has now.
    fn check_claim(&self, share: &Path, claim: &Claim) -> Result<()> {
        let out = tempfile::Builder::new().prefix("vfsx-replica-").tempdir()?;
        let out = out.path().join("tree");
        let site = self.stage.lab.site(&claim.site)?;
        site.restore(Some(claim.point), &out)?;
        let report = compare(share, &out)?;
        ensure!(
            report.identical,
            "{} was said to be in sync at point {}, where it is not:\n{report}",
            claim.site,
            claim.point
        );
        Ok(())
    }

    /// All connections have ended.
    fn end(&self, mut compared: u64, worked: &Worked) -> Result<Outcome> {
        self.wait_for_goodbyes()?;
        let claims = self.come_to_rest()?;
        compared += self.compare_all(&[(self.end_of_still()?.0, claims)])?;
        self.check_gaps(self.plan.phases.len())?;
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
        ensure!(
            seen.modes.contains_key(self.mode.as_str()),
            "the share was never in mode {}, but in {:?}",
            self.mode.as_str(),
            seen.modes
        );
        Ok(Outcome {
            operations: worked.operations,
            lost: worked.lost,
            refused: worked.refused,
            answers: seen.answers,
            in_sync: seen.in_sync,
            checked: seen.checked,
            points: compared,
            stale_ms: seen.stale.as_millis() as u64,
            gaps: seen.gaps.into_iter().map(|(_, reason)| reason).collect(),
            states: seen.states,
            modes: seen.modes,
            ..Outcome::default()
        })
    }

    fn say(&self, what: &str) {
        if self.verbose {
            println!("    {what}");
        }
    }
}

fn compare(share: &Path, restored: &Path) -> Result<Report> {
    Ok(compare::compare(share, restored, &compare::Options::default())?)
}

impl Worked {
    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.lost += other.lost;
        self.refused += other.refused;
    }
}
