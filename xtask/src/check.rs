//! `cargo xtask test`: everything that says whether the project is sound.

use crate::build::{self, Profile, cargo};
use crate::{packages, rights};
use anyhow::Result;

/// Crate whose tests run smbd and so need root.
const END_TO_END: &str = "vfsx-tests";
/// Its tests some of which take long: those are ignored otherwise.
const LONG: [&str; 3] = ["bytes", "endurance", "copy_mode"];

#[derive(clap::Args)]
pub struct Arguments {
    /// Only the tests that take minutes, one after another, with what they measure. They need 13 GiB of disk space and more than
    /// a million free inodes in the directory for temporary files (TMPDIR).
    #[arg(long)]
    long: bool,
    /// With the optimized programs, which are judged by stricter limits.
    #[arg(long, requires = "long")]
    release: bool,
    /// Of those, the ones with this in their names.
    #[arg(requires = "long")]
    name: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.long {
        let profile = if arguments.release {
            Profile::Release
        } else {
            Profile::Dev
        };
        return long(profile, arguments.name.as_deref());
    }
    cargo(&["fmt", "--all", "--check"])?;
    build::prepare()?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "xtask/pages",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ])?;
    build::everything(Profile::Dev)?;
    if rights::is_root() {
        return cargo(&["test", "--workspace", "--no-fail-fast"]);
    }
    cargo(&["test", "--workspace", "--exclude", END_TO_END, "--no-fail-fast"])?;
    as_root(&["test", "--package", END_TO_END, "--no-fail-fast"])
}

fn long(profile: Profile, name: Option<&str>) -> Result<()> {
    build::prepare()?;
    build::everything(profile)?;
    let mut words = vec!["test", "--package", END_TO_END];
    words.extend(profile.flag());
    words.extend(LONG.iter().flat_map(|test| ["--test", test]));
    words.extend(["--", "--ignored", "--nocapture", "--test-threads=1"]);
    words.extend(name);
    if rights::is_root() {
        return cargo(&words);
    }
    as_root(&words)
}

/// Runs cargo, whose test programs run as root by sudo.
fn as_root(words: &[&str]) -> Result<()> {
    let runner = format!(
        "CARGO_TARGET_{}_RUNNER",
        host()?.to_uppercase().replace(['-', '.'], "_")
    );
    println!("$ cargo {}, by sudo", words.join(" "));
    let mut command = build::command();
    let sudo = format!("{} {}", packages::SUDO, packages::kept_by_sudo());
    command.args(words).env(runner, sudo);
    packages::run(&mut command, "the end-to-end tests")
}

/// The target triple of this machine's compiler.
fn host() -> Result<String> {
    let output = std::process::Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.unwrap_or_default().to_owned())
}
