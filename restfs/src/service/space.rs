//! Room on the data directory's file system. Some is kept back, so that a site that is full still takes what makes room
//! again: below the reserve no new content, below half of it only what removes. It is looked at before anything is
//! written, and nothing has to be told when there is room again.

use crate::spare::Spare;
use restfs_lib::disk::{Level, Marks, Watermarks};
use restfs_lib::wire::{Code, RpcError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The reserve without an option, at most.
const MOST: u64 = 1024 * 1024 * 1024;

pub struct Space {
    path: PathBuf,
    watermarks: Watermarks,
    /// What was said last in the log.
    said: Mutex<Level>,
    spare: Spare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) free: u64,
    pub(super) marks: Marks,
}

impl Space {
    pub fn new(data_dir: &Path, watermarks: Watermarks) -> Self {
        Self {
            path: data_dir.to_owned(),
            watermarks,
            said: Mutex::default(),
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
            marks: self.watermarks.on(bytes(found.f_blocks), MOST),
        })
    }

    /// Before blocks are stored.
    pub(super) fn for_content(&self) -> Result<(), RpcError> {
        let room = self.look()?;
        self.say(room);
        self.need(room, room.marks.reserve, "new content")
    }

    /// Before rows are added, which take little.
    pub(super) fn for_commit(&self) -> Result<(), RpcError> {
        let room = self.look()?;
        self.need(room, room.marks.reserve / 2, "changes that add to it")
    }

    pub(super) fn is_full(&self) -> bool {
        self.look().is_ok_and(|room| room.free < room.marks.reserve)
    }

    /// Whether so many bytes can be taken and the reserve be left.
    pub(super) fn has_beyond_reserve(&self, bytes: u64) -> bool {
        self.look()
            .is_ok_and(|room| room.free >= room.marks.reserve.saturating_add(bytes))
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

    /// To be called now and then: a site that nothing is sent to may be filled by others.
    pub(super) fn watch(&self) {
        match self.look() {
            Ok(room) => self.say(room),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Once for each change, not for each call.
    fn say(&self, room: Room) {
        let Room { free, marks } = room;
        let (before, now) = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let now = marks.level(*said, free);
            (std::mem::replace(&mut *said, now), now)
        };
        let (place, reserve) = (self.path.display(), marks.reserve);
        match now {
            _ if now == before => {}
            Level::Full => tracing::error!(
                "{free} bytes are free in {place}, less than the reserve of {reserve}: new content is refused"
            ),
            Level::Low => tracing::warn!(
                "{free} bytes are free in {place}, less than {}; below {reserve} new content is refused",
                marks.warn
            ),
            Level::Roomy => tracing::info!("{free} bytes are free in {place} again"),
        }
    }
}
