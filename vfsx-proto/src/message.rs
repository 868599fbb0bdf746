//! What the two ends say to each other.

use crate::event::Stamped;
use serde::{Deserialize, Serialize};

/// First bytes of a connection in each direction, followed by [`PROTOCOL_VERSION`] in little-endian, before any frame.
pub const MAGIC: [u8; 4] = *b"VFSX";
/// Raised with every change of an encoding. Both ends must have the same one.
pub const PROTOCOL_VERSION: u16 = 6;
/// Length of the preamble in bytes.
pub const PREAMBLE: usize = 6;

/// What each end sends before its first frame.
pub fn preamble() -> [u8; PREAMBLE] {
    let [a, b, c, d] = MAGIC;
    let [v, w] = PROTOCOL_VERSION.to_le_bytes();
    [a, b, c, d, v, w]
}

/// Checks the other end's preamble.
pub fn check_preamble(bytes: &[u8; PREAMBLE]) -> Result<(), PreambleError> {
    let [a, b, c, d, v, w] = *bytes;
    let version = u16::from_le_bytes([v, w]);
    match ([a, b, c, d], version) {
        (MAGIC, PROTOCOL_VERSION) => Ok(()),
        (MAGIC, version) => Err(PreambleError::Version { peer: version }),
        _ => Err(PreambleError::NotVfsx),
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PreambleError {
    #[error("the peer does not speak the vfsx protocol")]
    NotVfsx,
    #[error(
        "the peer speaks version {peer} of the vfsx protocol, this end version {PROTOCOL_VERSION}: install vfsx.so and vfsxd of one release"
    )]
    Version { peer: u16 },
}

/// One tree connect of one smbd process. Random, so that a restarted process is never taken for the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

/// First message of the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hello {
    pub session: SessionId,
    /// The share's name in `smb.conf`.
    pub share: String,
    pub pid: u32,
    /// smbd's own version text, for `status` and logs.
    pub samba: String,
    /// Version of the module.
    pub module: String,
    pub durability: Durability,
    pub exclude: Exclude,
    /// Of the memory whose descriptor comes with this connection's first bytes ([`crate::ring`]): bytes of its ring of written data, 0 when
    /// the session tells ranges only. `None`: no memory comes.
    pub ring: Option<u64>,
    /// Up to this one events are in the session's spool file alone, and are to be taken in from there before the `Welcome`, which acknowledges
    /// them; 0: none is there.
    pub spooled: u64,
}

/// Names that are not replicated, as the share's configuration says when the tree connect begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exclude {
    /// `/pattern/pattern/`, as `veto files` of `smb.conf`; empty: none.
    #[serde(with = "serde_bytes")]
    pub patterns: Vec<u8>,
    pub case_sensitive: bool,
    /// When the configuration was read, nanoseconds since the epoch: the newest counts.
    pub read_ns: i64,
}

/// What a client's FLUSH and CLOSE wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Durability {
    /// Nothing.
    #[default]
    Noted,
    /// [`ToModule::Ack`]: the changes are in the journal, synced.
    Journal,
    /// [`ToModule::Committed`]: they are at a recovery site.
    Remote,
}

/// How often clients were to wait, since the session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Calls that were to return when the changes before them are durable.
    pub calls: u64,
    /// Those of them that returned before: the limit was reached, or there was nothing to wait for.
    pub fallbacks: u64,
    /// When the last of these was, nanoseconds since the epoch; 0: none was.
    pub last_fallback_ns: i64,
}

/// The daemon's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Highest sequence of this session already on disk; the module drops what it kept up to here.
    pub acknowledged: u64,
    /// The memory that came with `Hello` is read. Else nothing may be kept in its outbox alone.
    pub memory: bool,
}

/// Why the daemon does not take this connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    UnknownShare {
        share: String,
    },
    /// The peer's user id is not allowed to report changes.
    NotAllowed {
        uid: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDaemon {
    Hello(Hello),
    /// Events in sequence.
    Events(Vec<Stamped>),
    /// All that was noted before `ToModule::SendNow(token)` has been sent ahead of this.
    Sent {
        token: u64,
    },
    /// A client waits until everything up to this event, which was sent ahead of this, is committed at a site.
    Await {
        sequence: u64,
    },
    Waits(Waits),
    /// The module waits for acknowledgements from now on: they are not to be held back.
    AckNow,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToModule {
    Welcome(Welcome),
    Refused(Refusal),
    /// Everything up to this sequence is in the journal and synced.
    Ack {
        sequence: u64,
    },
    /// Send what is held back for coalescing, then answer `ToDaemon::Sent` with this token.
    SendNow {
        token: u64,
    },
    /// Everything up to this sequence is committed at a site. Only told of what was asked for by `ToDaemon::Await`.
    Committed {
        sequence: u64,
    },
    /// Whether written data is wanted, from a session that has a ring. Before it is said, it is not.
    Copy {
        on: bool,
    },
}
