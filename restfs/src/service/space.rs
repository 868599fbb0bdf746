//! Room on the data directory's file system. Some is kept back, so that a site that is full still takes what makes room
//! again: below the reserve no new content, below half of it only what removes. It is looked at before anything is
//! written, and nothing has to be told when there is room again.

use crate::spare::Spare;
use restfs_lib::wire::{Code, RpcError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

/// Without an option the reserve is this part of the file system...
const PART: u64 = 20;
/// ...but not more.
const MOST: u64 = 1024 * 1024 * 1024;

/// What was said last in the log.
const ROOMY: u8 = 0;
const LOW: u8 = 1;
const FULL: u8 = 2;

pub struct Space {
    path: PathBuf,
    reserve: Option<u64>,
    said: AtomicU8,
    spare: Spare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) free: u64,
    pub(super) reserve: u64,
}

impl Space {
    /// `reserve` in bytes; `None`: by the file system's size.
    pub fn new(data_dir: &Path, reserve: Option<u64>) -> Self {
        Self {
            path: data_dir.to_owned(),
            reserve,
            said: AtomicU8::new(ROOMY),
            spare: Spare::of(data_dir),
        }
    }

    /// Has space for the next start, on whatever disk it is.
    pub(super) fn keep_for_start(&self) {
        self.spare.keep();
    }

    pub(super) fn look(&self) -> Result<Room, RpcError> {
        let found = rustix::fs::statvfs(&self.path).map_err(|error| {
            let text = format!("free space of {}: {error}", self.path.display());
            RpcError::new(Code::Internal, text)
        })?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Room {
            free: bytes(found.f_bavail),
            reserve: self
                .reserve
                .unwrap_or_else(|| (bytes(found.f_blocks) / PART).min(MOST)),
        })
    }

    /// Before blocks are stored.
    pub(super) fn for_content(&self) -> Result<(), RpcError> {
        let room = self.look()?;
        self.say(room);
        self.need(room, room.reserve, "new content")
    }

    /// Before rows are added, which take little.
    pub(super) fn for_commit(&self) -> Result<(), RpcError> {
        let room = self.look()?;
        self.need(room, room.reserve / 2, "changes that add to it")
    }

    pub(super) fn is_full(&self) -> bool {
        self.look().is_ok_and(|room| room.free < room.reserve)
    }

    /// Whether so many bytes can be taken and the reserve be left.
    pub(super) fn has_beyond_reserve(&self, bytes: u64) -> bool {
        self.look()
            .is_ok_and(|room| room.free >= room.reserve.saturating_add(bytes))
    }

    fn need(&self, room: Room, least: u64, what: &str) -> Result<(), RpcError> {
        if room.free >= least {
            return Ok(());
        }
        let text = format!(
            "no space left for {what}: {} bytes are free in {}, {least} are kept for removing; free space or enlarge the file system",
            room.free,
            self.path.display()
        );
        Err(RpcError::new(Code::Full, text))
    }

    /// Once for each change, not for each call.
    fn say(&self, room: Room) {
        let now = room.level();
        let before = self.said.swap(now, Ordering::Relaxed);
        let Room { free, reserve } = room;
        let place = self.path.display();
        match now {
            _ if now == before => {}
            FULL => tracing::error!(
                "{free} bytes are free in {place}, less than the reserve of {reserve}: new content is refused"
            ),
            LOW => {
                tracing::warn!("{free} bytes are free in {place}; at {reserve} new content will be refused")
            }
            _ => tracing::info!("{free} bytes are free in {place} again"),
        }
    }
}

impl Room {
    fn level(self) -> u8 {
        match self {
            Self { free, reserve } if free < reserve => FULL,
            Self { free, reserve } if free < reserve.saturating_mul(2) => LOW,
            _ => ROOMY,
        }
    }
}
