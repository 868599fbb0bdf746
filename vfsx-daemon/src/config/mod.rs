//! `/etc/vfsx/vfsxd.toml`: read, checked against the machine, and resolved. Documented in `docs/vfsxd.md`.

mod file;
#[doc(hidden)]
pub mod fuzzing;
mod units;
mod validate;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use units::{UnitError, parse_bytes, parse_duration, parse_interval, parse_rate};

use file::Wrong;
use restfs_lib::client::{Trust, Url};
use restfs_lib::disk::Watermarks;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const DEFAULT_PATH: &str = "/etc/vfsx/vfsxd.toml";
pub const DEFAULT_STATE_DIR: &str = "/var/lib/vfsx";
pub const DEFAULT_SOCKET: &str = "/run/vfsx/vfsxd.sock";
pub const DEFAULT_CONTROL: &str = "/run/vfsx/control.sock";
/// Dirty files are read this long after their first unread change, also while they stay open.
pub const DEFAULT_AGE: Duration = Duration::from_secs(1);

/// A gap is closed this long after it was noted. Longer than modules are waited for after a restart (30 s), so that what they
/// bring is there first, and so that who looks right after an outage still sees it.
pub const DEFAULT_AFTER_GAP: Duration = Duration::from_secs(60);
/// Trees are compared on a schedule this often.
pub const DEFAULT_VERIFY_EVERY: Duration = Duration::from_secs(24 * 3600);
/// What a deep verify reads per second, here and at each site: little beside what disks give to clients.
pub const DEFAULT_VERIFY_RATE: NonZeroU64 = NonZeroU64::new(50_000_000).unwrap();

/// A configuration that can be started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub state_dir: PathBuf,
    /// Where the VFS modules connect.
    pub socket: PathBuf,
    /// Where `vfsxctl` connects.
    pub control: PathBuf,
    /// User ids that may report changes. smbd connects as root.
    pub allow_uids: Vec<u32>,
    /// Bytes of one share's journal.
    pub journal_max: u64,
    /// Changes kept per share for sites that are behind.
    pub changes_max: u64,
    /// smbd's tree connects, to all shares together.
    pub sessions_max: usize,
    pub age: Duration,
    /// Log filter as in `RUST_LOG`.
    pub log: Option<String>,
    /// Where metrics are given out; `None`: nowhere.
    pub metrics: Option<std::net::SocketAddr>,
    pub verify: Verify,
    /// Of the disk of `state_dir`.
    pub space: Watermarks,
    pub shares: Vec<Share>,
    pub sites: Vec<Site>,
    /// What is allowed but should be looked at, one line each.
    pub warnings: Vec<String>,
}

/// When shares and sites are verified without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// `None`: never.
    pub every: Option<Duration>,
    pub deep_every: Option<Duration>,
    /// Bytes per second of a deep one.
    pub rate: Option<NonZeroU64>,
}

/// When a share is compared with its catalog without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconcile {
    /// After a gap was noted; `None`: never.
    pub after_gap: Option<Duration>,
    /// For changes past smbd; `None`: never.
    pub every: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// As in `smb.conf`.
    pub name: String,
    /// Its root directory.
    pub path: PathBuf,
    pub mode: Mode,
    pub reconcile: Reconcile,
}

/// What is taken of smbd's sessions at most; `vfsx:mode` of `smb.conf` says what they offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Which ranges changed; they are read again.
    Map,
    /// Written data too.
    #[default]
    Copy,
}

/// A recovery site.
#[derive(Clone, PartialEq, Eq)]
pub struct Site {
    pub name: String,
    pub url: Url,
    pub token: Option<String>,
    pub trust: Trust,
    /// Bucket for all its shares; else each share's own name.
    pub bucket: Option<String>,
    /// Bytes per second for each share.
    pub limit: Option<NonZeroU64>,
    /// Shares that go there; `None`: all.
    pub shares: Option<Vec<String>>,
}

impl Site {
    pub fn takes(&self, share: &str) -> bool {
        self.shares
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name == share))
    }

    pub fn bucket_for<'a>(&'a self, share: &'a str) -> &'a str {
        self.bucket.as_deref().unwrap_or(share)
    }
}

/// Without the token.
impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("name", &self.name)
            .field("url", &self.url)
            .field("bucket", &self.bucket)
            .field("limit", &self.limit)
            .field("shares", &self.shares)
            .finish_non_exhaustive()
    }
}

/// One line: the file, the line where it is known, what is wrong and what helps.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("configuration {path}: cannot be read: {why}")]
    Unreadable { path: String, why: String },
    #[error("configuration {path} line {line}: {why}")]
    Line { path: String, line: usize, why: String },
    /// Something is missing.
    #[error("configuration {path}: {why}")]
    Whole { path: String, why: String },
}

impl Config {
    /// Reads and checks the file. Looks at the paths it names, connects to nothing.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
        Self::parse(&text).map_err(|wrong| in_file(path, &text, wrong))
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        validate::resolve(file::parse(text)?)
    }
}

/// Only where the control socket is, for `vfsxctl`: the rest may be invalid or unreadable to the caller.
pub fn control_socket(path: &Path) -> Result<PathBuf, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => file::control(&text).map_err(|wrong| in_file(path, &text, wrong)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => {
            Ok(PathBuf::from(DEFAULT_CONTROL))
        }
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::Unreadable {
        path: path.display().to_string(),
        why: error.to_string(),
    }
}

fn in_file(path: &Path, text: &str, (at, why): Wrong) -> ConfigError {
    let path = path.display().to_string();
    // What the file says is in the text.
    let why = why.replace(char::is_control, " ");
    match at {
        Some(at) => ConfigError::Line {
            path,
            line: line_of(text, at),
            why,
        },
        None => ConfigError::Whole { path, why },
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
