//! Debian packages: install what a command of this tool needs and the machine lacks.

use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Package lists older than this are fetched again before installing, else apt may ask for files the mirror no longer has.
const LISTS_STALE: Duration = Duration::from_secs(24 * 3600);
/// How long apt waits for another apt or dpkg on this machine, in seconds.
const LOCK_WAIT: &str = "DPkg::Lock::Timeout=600";

pub const SUDO: &str = "sudo";
/// What tests and this program itself are told by.
const OWN_VARIABLES: &str = "VFSX_";
/// For apt, and for the place of temporary files.
const OTHER_VARIABLES: [&str; 2] = ["DEBIAN_FRONTEND", "TMPDIR"];

/// Installs those of `names` that are missing. Does nothing, and needs no rights, when all are there.
pub fn ensure(names: &[&str]) -> Result<()> {
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing packages: {}", missing.join(" "));
    if lists_are_stale() {
        update()?;
    }
    if install(&missing).is_err() {
        update()?;
        install(&missing)?;
    }
    Ok(())
}

/// Version of an installed package, `None` when it is not installed. `field` is a format of `dpkg-query`,
/// such as `${source:Version}`.
pub fn installed(name: &str, field: &str) -> Result<Option<String>> {
    // One line for each architecture of the package.
    let format = format!("--showformat=${{db:Status-Status}}\\t{field}\\n");
    let output = Command::new("dpkg-query")
        .args(["--show", &format, name])
        .stderr(Stdio::null())
        .output()
        .context("cannot run dpkg-query: this command needs Debian, Ubuntu or another system with dpkg")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("installed\t"))
        .map(str::to_owned))
}

/// `program`, run as root: by sudo when this process is not root.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new(SUDO);
    command.arg(kept_by_sudo()).arg(program);
    command
}

/// The option with which sudo passes on what a user has set for this program; without it all is dropped.
pub fn kept_by_sudo() -> String {
    kept_of(std::env::vars_os().map(|(name, _)| name))
}

fn kept_of(set: impl Iterator<Item = OsString>) -> String {
    let set = set.filter_map(|name| name.into_string().ok());
    let mut names: Vec<String> = set.filter(|name| name.starts_with(OWN_VARIABLES)).collect();
    names.sort_unstable();
    names.extend(OTHER_VARIABLES.map(str::to_owned));
    format!("--preserve-env={}", names.join(","))
}

/// Runs `command`; `what` names it in the error.
pub fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {what}"))?;
    if !status.success() {
        bail!("{what} failed ({status}); its messages are above");
    }
    Ok(())
}

fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut missing = Vec::new();
    for name in names {
        if installed(name, "")?.is_none() {
            missing.push(*name);
        }
    }
    Ok(missing)
}

fn update() -> Result<()> {
    let mut command = as_root("apt-get");
    command.args(["update", "-qq", "-o", LOCK_WAIT]);
    run(&mut command, "apt-get update")
}

fn install(names: &[&str]) -> Result<()> {
    let mut command = as_root("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args([
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "-o",
            LOCK_WAIT,
            "-o",
            "Dpkg::Use-Pty=0",
        ])
        .args(names)
        .stdin(Stdio::null());
    run(&mut command, &format!("apt-get install {}", names.join(" ")))
}

fn lists_are_stale() -> bool {
    let changed = std::fs::metadata("/var/lib/apt/lists").and_then(|m| m.modified());
    changed.map_or(true, |time| time.elapsed().unwrap_or_default() > LISTS_STALE)
}

fn is_root() -> bool {
    // The owner of /proc/self is the process's effective user.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_keeps_what_tests_are_told_by() {
        let set = ["PATH", "VFSX_TEST_MODE", "HOME", "VFSX_STORM_SEED"].map(OsString::from);
        assert_eq!(
            kept_of(set.into_iter()),
            "--preserve-env=VFSX_STORM_SEED,VFSX_TEST_MODE,DEBIAN_FRONTEND,TMPDIR"
        );
    }
}
