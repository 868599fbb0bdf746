//! The memory that the session shares with vfsxd, and what it is for in mode `copy`. Nothing here costs a system call in a call of smbd, but
//! for the first use of each piece of it.

use super::shared::Shared;
use super::{Client, ERROR, Host, NOTICE, Request};
use crate::config::{Config, Mode};
use std::time::Instant;
use vfsx_proto::ring::Word;
use vfsx_proto::{Hello, InRing};

/// With a ring in mode `copy`. Without memory for it the session tells ranges only and sends each change at once, and says so.
pub(super) fn share_memory(config: &Config, host: Host, hello: &mut Hello) -> Option<Shared> {
    let size = match config.mode {
        Mode::Map => 0,
        Mode::Copy => config.data_ring as u64,
    };
    let shared = Shared::new(size);
    if let Err(e) = &shared {
        let what = match config.mode {
            Mode::Map => "each change is sent by itself",
            Mode::Copy => "ranges are told, as with vfsx:mode = map",
        };
        let share = &hello.share;
        let text = format!("share {share}: no memory to share with vfsxd: {e}; {what}");
        (host.log)(ERROR, &text);
    }
    let shared = shared.ok();
    hello.ring = shared.as_ref().map(|_| size);
    shared
}

impl Client {
    pub fn complain_of_copy(&self, why: &str) {
        let share = &self.hello.share;
        let text = format!("share {share}: {why}: ranges are told, as with vfsx:mode = map");
        (self.host.log)(NOTICE, &text);
    }

    /// Runs a function with root's rights.
    pub fn as_root(&self, work: &mut dyn FnMut()) {
        (self.host.as_root)(work);
    }

    /// Whether data can be told at all.
    pub fn has_ring(&self) -> bool {
        self.shared.as_ref().is_some_and(Shared::has_ring)
    }

    /// What mode `copy` needs of the memory.
    fn ring_memory(&mut self) -> Option<&mut Shared> {
        self.shared.as_mut().filter(|shared| shared.has_ring())
    }

    /// The present connection, while vfsxd takes events by it.
    pub fn connection(&self) -> Option<u64> {
        self.link.is_up().then_some(self.connection)
    }

    /// An outermost call of smbd begins.
    pub fn begin_call(&mut self) {
        if let Some(shared) = self.ring_memory() {
            shared.begin_call();
            shared.look_at_clock();
        }
    }

    /// Something is about to be changed that vfsxd would not look at by itself.
    pub fn begin_change(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.begin_call();
        }
    }

    /// It is changed and noted, or was not. With a ring that is so at the end of the call.
    pub fn end_change(&mut self) {
        if let Some(shared) = self.shared.as_mut().filter(|shared| !shared.has_ring()) {
            shared.end_call();
        }
    }

    /// It ends, and all that it did is noted.
    pub fn end_call(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.end_call();
        }
    }

    /// When the outermost call under way began, if that is known.
    pub fn began_ns(&self) -> Option<u64> {
        self.shared.as_ref()?.began_ns
    }

    /// Something is about to be changed. While vfsxd does not know of this session, it is to find a flag, should this process be killed.
    pub fn about_to_change(&mut self) -> Vec<Request> {
        if self.link.is_up() || self.standing.is_some() {
            return Vec::new();
        }
        // The `Welcome` may be there.
        let requests = self.readable();
        if !self.link.is_up()
            && self.raise_early()
            && let Some(shared) = self.ring_memory()
        {
            // A call that vfsxd counts by its time is one for which it found the flag.
            shared.look_at_clock();
        }
        requests
    }

    /// Whether every change is to be told before its call ends, and written data before it is written. `copying`: that is so now.
    pub fn is_to_copy(&self, copying: bool) -> bool {
        let has_room = if copying {
            self.ring.has_room()
        } else {
            self.ring.has_much_room()
        };
        self.has_ring() && self.data_wanted && self.link.is_up() && self.lost.is_none() && has_room
    }

    /// Puts data where vfsxd finds it. `None`: there is no room, until vfsxd has acknowledged older data.
    pub fn put(&mut self, data: &[u8]) -> Option<InRing> {
        self.ring_memory()?.put(data)
    }

    /// The newest event tells of data: until it is acknowledged, the data is kept.
    pub fn announced(&mut self, place: InRing, length: usize) {
        if let Some(shared) = &mut self.shared {
            shared.announced(place, length as u64, self.ring.last());
        }
    }

    /// Sequence that the next event gets.
    pub fn next_sequence(&self) -> u64 {
        self.ring.last() + 1
    }

    /// Announced writes with lower sequences than this have all ended.
    pub fn tell_running(&mut self, lowest: u64) {
        if let Some(shared) = &mut self.shared {
            shared.tell_running(lowest);
        }
    }

    pub fn tell(&self, word: Word, value: u64) {
        if let Some(shared) = &self.shared {
            shared.memory.set(word, value);
        }
    }

    pub(super) fn free_data(&mut self) {
        if let Some(shared) = &mut self.shared {
            // Of events in the spool file vfsxd reads the files.
            shared.free(self.ring.acknowledged().max(self.ring.left()));
        }
    }

    /// What vfsxd does not know yet it is not to hear of by the end of the connection alone.
    pub(super) fn lose_link(&mut self) {
        self.data_wanted = false;
        if !self.is_settled() {
            self.raise_early();
        }
    }

    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.shared.as_ref()?.idle_at()
    }

    pub(super) fn give_memory_back(&mut self, now: Instant) {
        if let Some(shared) = &mut self.shared {
            shared.give_back(now);
        }
    }
}
