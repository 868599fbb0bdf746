//! The private smbd's configuration.

use super::description::SmbDescription;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variable with the mode of labs that do not choose one: so any test can be run in mode `copy`.
pub const MODE_VARIABLE: &str = "VFSX_TEST_MODE";

/// How the module tells writes: `vfsx:mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Ranges that were written; vfsxd reads the content.
    Map,
    /// Written data.
    Copy,
}

impl Mode {
    /// That of the environment.
    ///
    /// # Panics
    /// When the environment names another one: the test would say something of the wrong mode.
    pub fn of_environment() -> Self {
        match std::env::var(MODE_VARIABLE).as_deref() {
            Ok("copy") => Self::Copy,
            Ok("map") | Err(_) => Self::Map,
            Ok(other) => panic!("{MODE_VARIABLE}={other}: it is map or copy"),
        }
    }

    /// As `smb.conf` and the status have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Copy => "copy",
        }
    }
}

/// What of smbd a test chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SambaOptions {
    /// `vfs objects` of share `data`; the word `vfsx` stands for the module just built. Share `plain` has the others.
    pub vfs_objects: String,
    /// As the environment says, by default.
    pub mode: Mode,
    /// Further lines of the section `[global]`.
    pub global: Vec<String>,
    /// Further lines of the section of each share.
    pub share: Vec<String>,
    /// Shares beside `data` and `plain`, which nobody replicates: name and `vfs objects`.
    pub more_shares: Vec<(String, String)>,
    /// From the lab's start on: smbd's threads hold writes up while this file is there. Their end, and that of their process,
    /// then waits for its removal.
    pub hold: Option<PathBuf>,
}

impl Default for SambaOptions {
    fn default() -> Self {
        Self::with_objects("vfsx")
    }
}

impl SambaOptions {
    pub fn with_objects(vfs_objects: &str) -> Self {
        Self {
            vfs_objects: vfs_objects.to_owned(),
            mode: Mode::of_environment(),
            global: Vec::new(),
            share: Vec::new(),
            more_shares: Vec::new(),
            hold: None,
        }
    }
}

/// Writes the file, and has Samba's own `testparm` look at it.
pub(super) fn write(dir: &Path, smb: &SmbDescription, socket: &Path, options: &SambaOptions) -> Result<()> {
    let text = global(dir, smb, socket, options) + &shares(smb, options);
    fs::write(&smb.conf, text).with_context(|| format!("write {}", smb.conf.display()))?;
    check(&smb.conf)
}

fn global(dir: &Path, smb: &SmbDescription, socket: &Path, options: &SambaOptions) -> String {
    let samba = dir.join("samba");
    let samba = samba.display();
    format!(
        "[global]\n\
         server role = standalone server\n\
         workgroup = VFSXLAB\n\
         netbios name = VFSXLAB\n\
         disable netbios = yes\n\
         smb ports = {port}\n\
         interfaces = lo\n\
         bind interfaces only = yes\n\
         lock directory = {samba}/lock\n\
         state directory = {samba}/state\n\
         cache directory = {samba}/cache\n\
         pid directory = {samba}/pid\n\
         private dir = {samba}/private\n\
         ncalrpc dir = {samba}/ncalrpc\n\
         passdb backend = tdbsam:{samba}/private/passdb.tdb\n\
         usershare path =\n\
         logging = file\n\
         log file = {log}\n\
         max log size = 0\n\
         log level = 1\n\
         load printers = no\n\
         printcap name = /dev/null\n\
         disable spoolss = yes\n\
         map to guest = never\n\
         store dos attributes = yes\n\
         ea support = yes\n\
         vfsx:socket = {socket}\n\
         vfsx:state = {state}\n\
         vfsx:mode = {mode}\n\
         {more}",
        port = smb.port,
        log = dir.join("log/smbd.log").display(),
        socket = socket.display(),
        state = dir.join(super::daemon::STATE).display(),
        mode = options.mode.as_str(),
        more = lines(&options.global),
    )
}

fn shares(smb: &SmbDescription, options: &SambaOptions) -> String {
    let words = || options.vfs_objects.split_whitespace();
    let mut text = String::new();
    for (name, share) in &smb.shares {
        let own = options.more_shares.iter().find(|(more, _)| more == name);
        let objects: Vec<_> = match own {
            Some((_, objects)) => vec![objects.as_str()],
            None => words().filter(|word| share.vfsx || *word != "vfsx").collect(),
        };
        text += &format!(
            "\n[{name}]\npath = {}\nread only = no\nvfs objects = {}\n{}",
            share.path.display(),
            objects.join(" "),
            lines(&options.share),
        );
    }
    text
}

fn lines(options: &[String]) -> String {
    options.iter().map(|line| format!("{line}\n")).collect()
}

fn check(conf: &Path) -> Result<()> {
    let output = Command::new("testparm")
        .arg("-s")
        .arg(conf)
        .output()
        .context("run testparm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("Unknown parameter") {
        bail!("testparm refuses {}: {}", conf.display(), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_told_the_mode() {
        for mode in [Mode::Map, Mode::Copy] {
            let options = SambaOptions {
                mode,
                ..SambaOptions::default()
            };
            let smb = SmbDescription {
                host: String::new(),
                port: 1,
                user: String::new(),
                password: String::new(),
                shares: [].into(),
                conf: PathBuf::new(),
                pid_file: PathBuf::new(),
                start: Vec::new(),
            };
            let text = global(Path::new("/lab"), &smb, Path::new("/socket"), &options);
            let line = format!("vfsx:mode = {}", mode.as_str());
            assert_eq!(text.lines().filter(|found| **found == line).count(), 1, "{text}");
        }
    }
}
