//! Options of the share: `vfsx:NAME` in its section of `smb.conf`, or in `[global]`.

use std::path::PathBuf;
use std::time::Duration;

pub const DEFAULT_SOCKET: &str = "/run/vfsx/vfsxd.sock";
pub const DEFAULT_STATE: &str = "/var/lib/vfsx";
/// Enough for some 200,000 events, many minutes of a busy client while vfsxd is restarted.
pub const DEFAULT_RING: usize = 16 * 1024 * 1024;
/// A single event may be as large as a frame.
pub const MIN_RING: usize = 512 * 1024;

/// Read once at tree connect: smbd frees its own copies when it reads `smb.conf` again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `vfsx:socket`: where vfsxd listens.
    pub socket: PathBuf,
    /// `vfsx:state`: below it, `gaps/SHARE/` takes the flags of lost events.
    pub state: PathBuf,
    /// `vfsx:spool`: events of a session that ends while vfsxd is away go to `spool/SHARE/` below the state directory.
    pub spool: bool,
    /// `vfsx:ring size`: bytes of unacknowledged events kept for a vfsxd that is away. Memory is taken as it fills.
    pub ring: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            state: DEFAULT_STATE.into(),
            spool: true,
            ring: DEFAULT_RING,
        }
    }
}

/// How long smbd may wait for the handler, unless `vfsx:handler timeout` says otherwise. smbd serves a client in one thread, and
/// other clients wait for it when it holds the lock of a file.
pub const DEFAULT_HANDLER_TIMEOUT: Duration = Duration::from_secs(1);
/// Below, a handler on a busy machine could not be told from a dead one.
pub const MIN_HANDLER_TIMEOUT: Duration = Duration::from_millis(10);
/// Clients give a server up after about a minute.
pub const MAX_HANDLER_TIMEOUT: Duration = Duration::from_secs(30);

/// The process that is asked before an operation goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerConfig {
    /// `vfsx:handler`: where the handler listens; without it, nobody is asked.
    pub socket: PathBuf,
    /// `vfsx:handler timeout`: milliseconds that an operation may wait for the answer.
    pub timeout: Duration,
    /// `vfsx:handler failure`: `allow` or `deny`.
    pub on_failure: OnFailure,
}

/// What becomes of operations while the handler does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    Allow,
    Deny,
}

impl OnFailure {
    /// `None`: neither of the two words.
    pub fn parse(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            _ => None,
        }
    }

    /// For texts about operations.
    pub fn done(self) -> &'static str {
        match self {
            Self::Allow => "allowed",
            Self::Deny => "refused",
        }
    }
}
