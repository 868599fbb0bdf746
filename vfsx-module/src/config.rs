//! Options of the share: `vfsx:NAME` in its section of `smb.conf`, or in `[global]`.

use crate::client::HOLD;
use std::path::PathBuf;
use std::time::Duration;
use vfsx_proto::Durability;

pub const DEFAULT_SOCKET: &str = "/run/vfsx/vfsxd.sock";
pub const DEFAULT_STATE: &str = "/var/lib/vfsx";
/// Enough for some 100,000 events, many minutes of a busy client while vfsxd is restarted.
pub const DEFAULT_RING: usize = 16 * 1024 * 1024;
/// Some hours of a busy client while vfsxd is away. What is longer is no faster taken in than the share is compared.
pub const DEFAULT_SPOOL_MAX: u64 = 256 * 1024 * 1024;
/// A single event may be as large as a frame.
pub const MIN_RING: usize = 512 * 1024;

/// Unacknowledged data of some tens of milliseconds at full speed: what a journal's sync takes on a busy disk.
pub const DEFAULT_DATA_RING: usize = 16 * 1024 * 1024;
/// Some of the longest pieces that a write is told in.
pub const MIN_DATA_RING: usize = 1024 * 1024;
/// Each client of the share may take as much of the machine's memory.
pub const MAX_DATA_RING: usize = 1024 * 1024 * 1024;

/// `vfsx:exclude`: names that are not replicated. At most so many bytes: it goes to vfsxd in one message.
pub const MAX_EXCLUDE: usize = 32 * 1024;

/// A journal's sync takes milliseconds; what a busy disk needs at its worst is still well below what clients notice as a fault.
pub const JOURNAL_WAIT_LIMIT: Duration = Duration::from_secs(1);
/// A commit takes tens of milliseconds and the link's delay, and a large file its transfer.
pub const REMOTE_WAIT_LIMIT: Duration = Duration::from_secs(5);
/// Clients give up a server that is silent for 30 to 60 s.
pub const MAX_WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Read once at tree connect: smbd frees its own copies when it reads `smb.conf` again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `vfsx:socket`: where vfsxd listens. Beside it, `gaps/SHARE/live/` takes the flags of events that are in memory alone.
    pub socket: PathBuf,
    /// `vfsx:state`: below it, `gaps/SHARE/` takes the flags of lost events.
    pub state: PathBuf,
    /// `vfsx:spool`: events that have no room in memory while vfsxd is away, and those of a session that ends, go to `spool/SHARE/` below
    /// the state directory.
    pub spool: bool,
    /// `vfsx:spool max`: bytes of them that a session may leave there.
    pub spool_max: u64,
    /// `vfsx:ring size`: bytes of unacknowledged events kept for a vfsxd that is away. Memory is taken as it fills.
    pub ring: usize,
    /// `vfsx:mode`: what vfsxd is told of written content.
    pub mode: Mode,
    /// `vfsx:data ring size`: bytes of unacknowledged data kept in mode `copy`. Memory is taken as it fills.
    pub data_ring: usize,
    /// `vfsx:durability`: what FLUSH and CLOSE wait for.
    pub durability: Durability,
    /// `vfsx:wait limit`: how long.
    pub wait_limit: Duration,
    /// How long a change may stay in the outbox; zero: each is sent by itself. No option of a share.
    pub hold: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            state: DEFAULT_STATE.into(),
            spool: true,
            spool_max: DEFAULT_SPOOL_MAX,
            ring: DEFAULT_RING,
            mode: Mode::Map,
            data_ring: DEFAULT_DATA_RING,
            durability: Durability::Noted,
            wait_limit: JOURNAL_WAIT_LIMIT,
            hold: HOLD,
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

/// What vfsxd is told of written content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Where it is.
    Map,
    /// What it is, before it is written.
    Copy,
}

impl Mode {
    /// `None`: there is no such mode.
    pub fn parse(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "map" => Some(Self::Map),
            "copy" => Some(Self::Copy),
            _ => None,
        }
    }
}

/// From bytes as the option says: within the limits, in whole MiB, which is how memory is taken.
pub fn data_ring(bytes: usize) -> usize {
    bytes
        .clamp(MIN_DATA_RING, MAX_DATA_RING)
        .next_multiple_of(1024 * 1024)
}

/// A switch, in the words that Samba itself takes. `None`: another word.
pub fn switch(word: &str) -> Option<bool> {
    match word.trim().to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// `None`: there is no such level.
pub fn durability(text: &str) -> Option<Durability> {
    let levels = [
        ("noted", Durability::Noted),
        ("journal", Durability::Journal),
        ("remote", Durability::Remote),
    ];
    let found = levels
        .iter()
        .find(|(name, _)| text.trim().eq_ignore_ascii_case(name));
    found.map(|(_, level)| *level)
}

/// From milliseconds, `None` when the option is not set.
pub fn wait_limit(durability: Durability, millis: Option<u64>) -> Duration {
    match (millis, durability) {
        (Some(millis), _) => Duration::from_millis(millis.max(1)).min(MAX_WAIT_LIMIT),
        (None, Durability::Remote) => REMOTE_WAIT_LIMIT,
        (None, _) => JOURNAL_WAIT_LIMIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_by_name_and_others_are_not_guessed() {
        assert_eq!(durability("Journal "), Some(Durability::Journal));
        assert_eq!(durability("remote"), Some(Durability::Remote));
        assert_eq!(durability("noted"), Some(Durability::Noted));
        assert_eq!(durability("yes"), None);
    }

    #[test]
    fn a_switch_is_no_path() {
        assert_eq!(switch("Yes "), Some(true));
        assert_eq!(switch("1"), Some(true));
        assert_eq!(switch("off"), Some(false));
        assert_eq!(switch("False"), Some(false));
        assert_eq!(switch("/var/spool/vfsx"), None);
        assert_eq!(switch(""), None);
    }

    #[test]
    fn modes_are_known_by_name_and_a_ring_has_a_sane_size_whatever_is_asked_for() {
        assert_eq!(Mode::parse(" Copy"), Some(Mode::Copy));
        assert_eq!(Mode::parse("map"), Some(Mode::Map));
        assert_eq!(Mode::parse("2"), None);
        assert_eq!(data_ring(0), MIN_DATA_RING);
        assert_eq!(data_ring(usize::MAX), MAX_DATA_RING);
        assert_eq!(data_ring(MIN_DATA_RING + 1), 2 * MIN_DATA_RING);
        assert_eq!(data_ring(DEFAULT_DATA_RING), DEFAULT_DATA_RING);
    }

    #[test]
    fn a_limit_is_never_none_and_never_longer_than_clients_wait() {
        let limit = |level, millis| wait_limit(level, millis).as_millis();
        assert_eq!(limit(Durability::Journal, None), 1000);
        assert_eq!(limit(Durability::Remote, None), 5000);
        assert_eq!(limit(Durability::Remote, Some(250)), 250);
        assert_eq!(limit(Durability::Journal, Some(0)), 1);
        assert_eq!(limit(Durability::Journal, Some(u64::MAX)), 20_000);
    }
}
