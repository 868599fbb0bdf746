//! Options of the share: `vfsx:NAME` in its section of `smb.conf`, or in `[global]`.

use std::path::PathBuf;

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
    /// `vfsx:ring size`: bytes of unacknowledged events kept for a vfsxd that is away. Memory is taken as it fills.
    pub ring: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            state: DEFAULT_STATE.into(),
            ring: DEFAULT_RING,
        }
    }
}
