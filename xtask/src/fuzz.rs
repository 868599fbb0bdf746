//! `cargo xtask fuzz`: decoders are given bytes that no sender of ours would send, guided by what of their code that reaches.

use crate::build;
use crate::packages;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Of each target, unless told otherwise.
const SECONDS: u64 = 180;
/// One input takes at most this long, in seconds: decoders work in the line of what they are given.
const ONE_INPUT: u64 = 10;
/// Memory of the process in MiB: the target's own bound, checked for each input, is lower.
const RSS_MIB: u64 = 2048;
/// Memory that the decoders' buffers had goes to the next input, in bytes of a buffer and of all: to map each anew takes most of the time.
const KEPT: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "16777216"),
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
];
/// What libFuzzer itself is built with, and the linker.
const PACKAGES: &[&str] = &["g++"];

#[derive(clap::Args)]
pub struct Arguments {
    /// Only this one; else all, one after another.
    target: Option<String>,
    /// How long each target runs [default: 180]
    #[arg(long, conflicts_with = "hours")]
    seconds: Option<u64>,
    /// The same in hours.
    #[arg(long)]
    hours: Option<f64>,
    /// Says which targets there are.
    #[arg(long)]
    list: bool,
    /// Gives the target this one input, as a crash left it, instead of looking for more.
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["seconds", "hours"])]
    input: Option<PathBuf>,
}

/// As the targets' crate says. This program does not depend on that one: it would have to be built with all that is tested.
struct Target {
    name: String,
    longest: String,
    about: String,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut targets = targets()?;
    if arguments.list {
        let width = targets.iter().map(|t| t.name.len()).max().unwrap_or_default();
        targets
            .iter()
            .for_each(|t| println!("{:width$}  {}", t.name, t.about));
        return Ok(());
    }
    if let Some(name) = &arguments.target {
        targets.retain(|target| target.name == *name);
        ensure!(
            !targets.is_empty(),
            "there is no target {name:?}; `cargo xtask fuzz --list` says which there are"
        );
    }
    let time = time(arguments)?;
    packages::ensure(PACKAGES)?;
    let program = build_program()?;
    if let Some(input) = &arguments.input {
        let input = std::path::absolute(input).context("the input's path")?;
        return targets
            .iter()
            .try_for_each(|target| again(&program, target, &input));
    }
    let failed: Vec<_> = targets
        .iter()
        .filter_map(|target| fuzz(&program, target, time).err())
        .collect();
    failed.iter().for_each(|error| eprintln!("{error:#}"));
    ensure!(
        failed.is_empty(),
        "{} of {} targets failed",
        failed.len(),
        targets.len()
    );
    Ok(())
}

fn targets() -> Result<Vec<Target>> {
    let output = ask(&["list"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "building the fuzz targets failed; cargo's messages are above"
    );
    let text = String::from_utf8(output.stdout).context("the list of targets")?;
    text.lines().map(target).collect()
}

fn target(line: &str) -> Result<Target> {
    let mut fields = line.split('\t').map(str::to_owned);
    let mut field = || {
        fields
            .next()
            .context("a line of the list of targets has too few fields")
    };
    Ok(Target {
        name: field()?,
        longest: field()?,
        about: field()?,
    })
}

/// The targets' own program, without coverage.
fn ask(words: &[&str]) -> Command {
    let mut command = build::command();
    command.args([
        "run",
        "--quiet",
        "--package",
        "vfsx-fuzz",
        "--bin",
        "targets",
        "--",
    ]);
    command.args(words);
    command
}

fn time(arguments: &Arguments) -> Result<Duration> {
    let hours = arguments.hours.unwrap_or_default();
    let seconds = match (arguments.seconds, arguments.hours) {
        (Some(seconds), _) => Some(Duration::from_secs(seconds)),
        (None, Some(_)) => Duration::try_from_secs_f64(hours * 3600.0).ok(),
        (None, None) => Some(Duration::from_secs(SECONDS)),
    };
    // To libFuzzer 0 is without end, and its numbers are ints.
    match seconds {
        Some(time) if (1..=i32::MAX as u64).contains(&time.as_secs()) => Ok(time),
        _ => bail!("a target runs from 1 second to 68 years"),
    }
}

/// With the dependencies that the tests have; the workspace's crates are compiled once more, with coverage.
fn build_program() -> Result<PathBuf> {
    let target = build::target_dir()?;
    let mut command = build::command();
    command
        .args([
            "build",
            "--package",
            "vfsx-fuzz",
            "--bin",
            "fuzz",
            "--features",
            "libfuzzer",
        ])
        .arg("--target-dir")
        .arg(&target)
        // Unoptimized, what fills a buffer byte by byte takes most of the time. Assertions and checks of overflow stay on.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "2")
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            build::root().join("fuzz").join("coverage.sh"),
        );
    println!("$ cargo build of the fuzz targets, with coverage");
    packages::run(&mut command, "building the fuzz targets")?;
    Ok(target.join("debug").join("fuzz"))
}

/// The corpus stays, so that the next run begins where this one ends.
fn fuzz(program: &Path, target: &Target, time: Duration) -> Result<()> {
    let folder = build::target_dir()?
        .join("fuzz")
        .join("corpus")
        .join(&target.name);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let shown = folder
        .to_str()
        .context("the target directory's path is no text")?;
    packages::run(&mut ask(&["seeds", &target.name, shown]), "writing the seeds")?;
    let crashes = build::target_dir()?.join("fuzz").join("crashes");
    std::fs::create_dir_all(&crashes).with_context(|| format!("making {}", crashes.display()))?;
    println!("== {}: {} s", target.name, time.as_secs());
    let mut command = program_for(program, target);
    command
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-max_len={}", target.longest))
        .arg(format!("-artifact_prefix={}/{}-", crashes.display(), target.name))
        .args(["-print_final_stats=1", "-use_value_profile=1", "-verbosity=0"])
        .arg(&folder);
    let what = format!(
        "target {}: an input in {} breaks it; `cargo xtask fuzz {} --input FILE` shows how; the target",
        target.name,
        crashes.display(),
        target.name
    );
    packages::run(&mut command, &what)
}

fn again(program: &Path, target: &Target, input: &Path) -> Result<()> {
    packages::run(program_for(program, target).arg(input), "the target")
}

fn program_for(program: &Path, target: &Target) -> Command {
    let mut command = Command::new(program);
    command
        .env("VFSX_FUZZ_TARGET", &target.name)
        .env("RUST_BACKTRACE", "1")
        .envs(KEPT)
        .arg(format!("-timeout={ONE_INPUT}"))
        .arg(format!("-rss_limit_mb={RSS_MIB}"));
    command
}
