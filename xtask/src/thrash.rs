//! `cargo xtask thrash`: rounds in which everything goes wrong that can.

use crate::build::{self, Profile};
use crate::mode::{self, Mode};
use crate::report::one_line;
use crate::rights;
use anyhow::{Result, ensure};
use serde::Serialize;
use vfsx_tests::thrash::{self, Outcome, Scale};

#[derive(clap::Args)]
pub struct Arguments {
    /// How many rounds, of about a minute each.
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Of the first round; each one after it has the next. The same seed plays the same round.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the module tells writes; else as VFSX_TEST_MODE says, else map.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Shows what happens as it happens.
    #[arg(long)]
    verbose: bool,
    /// With the optimized programs.
    #[arg(long)]
    release: bool,
    /// The programs are built already.
    #[arg(long, hide = true)]
    built: bool,
}

/// The last line of the output.
#[derive(Serialize, Default)]
struct Summary {
    rounds: u64,
    failed: Vec<Failure>,
    events: usize,
    operations: u64,
    lost: u64,
    answers: u64,
    in_sync: u64,
    checked: u64,
    points: u64,
    stale_ms_max: u64,
    gaps: usize,
}

#[derive(Serialize)]
struct Failure {
    seed: u64,
    why: String,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let profile = if arguments.release {
        Profile::Release
    } else {
        Profile::Dev
    };
    if !arguments.built {
        build::prepare()?;
        build::everything(profile)?;
    }
    rights::go_on_as_root("--built")?;
    let binaries = build::binaries(profile)?;
    let mode = mode::chosen(arguments.mode);
    let mut summary = Summary::default();
    for seed in (arguments.seed..).take(arguments.rounds as usize) {
        println!(
            "round {} of {}, seed {seed}",
            summary.rounds + 1,
            arguments.rounds
        );
        match thrash::round(binaries.clone(), mode, seed, Scale::LONG, arguments.verbose) {
            Ok(outcome) => {
                println!("  {}", serde_json::to_string(&outcome)?);
                summary.add(&outcome);
            }
            Err(error) => {
                let why = one_line(&error);
                println!("  FAILED: {why}");
                summary.failed.push(Failure { seed, why });
            }
        }
        summary.rounds += 1;
    }
    println!("{}", serde_json::to_string(&summary)?);
    ensure!(
        summary.failed.is_empty(),
        "{} of {} rounds failed",
        summary.failed.len(),
        summary.rounds
    );
    Ok(())
}

impl Summary {
    fn add(&mut self, outcome: &Outcome) {
        self.events += outcome.events;
        self.operations += outcome.operations;
        self.lost += outcome.lost;
        self.answers += outcome.answers;
        self.in_sync += outcome.in_sync;
        self.checked += outcome.checked;
        self.points += outcome.points;
        self.stale_ms_max = self.stale_ms_max.max(outcome.stale_ms);
        self.gaps += outcome.gaps.len();
    }
}
