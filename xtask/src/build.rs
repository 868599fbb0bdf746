//! Building the project with cargo.

use crate::{packages, samba_headers};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use vfsx_tests::lab::Binaries;

/// What the lab needs beside what the module's build installs: clients, tools that look at ACLs, file systems to mount.
const LAB_PACKAGES: &[&str] = &[
    "acl",
    "attr",
    "btrfs-progs",
    "e2fsprogs",
    "gcc",
    "iproute2",
    "libc6-dev",
    "libfaketime",
    "mount",
    "openssl",
    "passwd",
    "python3-impacket",
    "rsync",
    "samba",
    "samba-common-bin",
    "samba-vfs-modules",
    "smbclient",
    "systemd",
    "util-linux",
    "xfsprogs",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

impl Profile {
    fn dir(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    /// What cargo is told.
    pub fn flag(self) -> Option<&'static str> {
        (self == Self::Release).then_some("--release")
    }
}

/// Installs what building and running the lab need.
pub fn prepare() -> Result<()> {
    packages::ensure(LAB_PACKAGES)?;
    samba_headers::ensure().map(drop)
}

/// Builds every program and the module.
pub fn everything(profile: Profile) -> Result<Binaries> {
    let mut arguments = vec!["build", "--workspace", "--lib", "--bins"];
    arguments.extend(profile.flag());
    cargo(&arguments)?;
    binaries(profile)
}

/// Programs built earlier.
pub fn binaries(profile: Profile) -> Result<Binaries> {
    Binaries::built_in(&programs(profile)?)
}

/// Directory of the programs.
pub fn programs(profile: Profile) -> Result<PathBuf> {
    Ok(target_dir()?.join(profile.dir()))
}

/// Runs cargo in the workspace.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    let what = format!("cargo {}", arguments.join(" "));
    println!("$ {what}");
    packages::run(command().args(arguments), &what)
}

/// cargo, in the workspace, with the toolchain this program was started by.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What cargo told this program of itself. Build scripts that look at it (ring's) would run again, and all that depends on them be
    // compiled again, whenever cargo is run by hand and by this program in turns.
    for name in std::env::vars_os().map(|(name, _)| name) {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_owned).unwrap_or_default()
}

/// Where cargo puts what it builds: this program is in `TARGET/debug`.
pub fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("path of this program")?;
    let target = program
        .parent()
        .and_then(Path::parent)
        .context("directory of this program")?;
    Ok(target.to_owned())
}
