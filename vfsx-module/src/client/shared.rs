//! What a session shares with vfsxd in memory: how far it is, events that are not sent yet, and the data of its writes.

use super::space::Space;
use crate::memory::Memory;
use std::io;
use std::time::{Duration, Instant};
use vfsx_proto::ring::{Filled, OUTBOX, Word};
use vfsx_proto::{InRing, MAX_WRITE};

/// Memory is taken in steps: by the system call, not by the page. One holds the data of the largest event.
const STEP: u64 = MAX_WRITE as u64;
/// Memory in which nothing was put for so long is given back: most clients write now and then.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(10);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) memory: Memory,
    space: Space,
    size: u64,
    /// Of each step of the ring, whether it has memory.
    reserved: Vec<bool>,
    /// When data or an event was last put, while there is memory that can be given back.
    used: Option<Instant>,
    outbox: Filled,
    has_outbox: bool,
    calls: u64,
    /// One has begun that has not ended.
    in_call: bool,
    running: u64,
    /// When the outermost call under way began.
    pub(super) began_ns: Option<u64>,
}

impl Shared {
    pub(super) fn new(size: u64) -> io::Result<Self> {
        Ok(Self {
            memory: Memory::new(size)?,
            space: Space::new(size, STEP),
            size,
            reserved: vec![false; usize::try_from(size / STEP).unwrap_or(0)],
            used: None,
            outbox: Filled::default(),
            has_outbox: false,
            calls: 0,
            in_call: false,
            running: u64::MAX,
            began_ns: None,
        })
    }

    /// Whether there is a ring for the data of writes.
    pub(super) fn has_ring(&self) -> bool {
        self.size > 0
    }

    /// Puts the frame of an event into the outbox. Whether it is there.
    pub(super) fn hold(&mut self, frame: &[u8]) -> bool {
        if !self.has_outbox {
            if self.memory.reserve_outbox().is_err() {
                return false;
            }
            self.has_outbox = true;
        }
        let Some(filled) = self.memory.put_into_outbox(self.outbox, frame) else {
            return false;
        };
        self.outbox = filled;
        true
    }

    /// All that was in the outbox is sent, or the connection is gone.
    pub(super) fn empty_outbox(&mut self) {
        if self.outbox.length == 0 {
            return;
        }
        self.outbox = Filled {
            round: self.outbox.round.wrapping_add(1),
            length: 0,
        };
        self.memory.set(Word::Outbox, self.outbox.word());
        self.used = Some(Instant::now());
    }

    /// It is to be sent soon, or the next events have no room.
    pub(super) fn is_outbox_half_full(&self) -> bool {
        u64::from(self.outbox.length) > OUTBOX / 2
    }

    /// A call of smbd has begun: if this process ends within it, nobody knows what it has done.
    pub(super) fn begin_call(&mut self) {
        if !self.in_call {
            self.in_call = true;
            self.calls += 1;
            self.memory.set(Word::Begun, self.calls);
        }
    }

    /// After the call has counted itself.
    pub(super) fn look_at_clock(&mut self) {
        // Who reads a later time, and then the memory, finds this call counted.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.began_ns = Some(crate::os::monotonic_ns());
    }

    /// All that it noted is told.
    pub(super) fn end_call(&mut self) {
        self.began_ns = None;
        if self.in_call {
            self.in_call = false;
            self.memory.set(Word::Ended, self.calls);
        }
    }

    pub(super) fn tell_running(&mut self, lowest: u64) {
        if std::mem::replace(&mut self.running, lowest) != lowest {
            self.memory.set(Word::Running, lowest);
        }
    }

    /// Puts data where it stays until it is acknowledged, once [`Shared::announced`] was called. `None`: there is no room.
    pub(super) fn put(&mut self, data: &[u8]) -> Option<InRing> {
        let length = data.len() as u64;
        let position = self.space.find(length)?;
        self.reserve(position)?;
        let checksum = self.memory.put(position, data)?;
        Some(InRing { position, checksum })
    }

    /// By the event of that sequence.
    pub(super) fn announced(&mut self, place: InRing, length: u64, sequence: u64) {
        self.space.take(place.position, length, sequence);
    }

    /// Data of events up to this one is needed no more.
    pub(super) fn free(&mut self, acknowledged: u64) {
        self.space.free(acknowledged);
    }

    /// When [`Shared::give_back`] may have something to do.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        let used = self
            .used
            .filter(|_| self.space.is_empty() && self.outbox.length == 0)?;
        Some(used + GIVE_BACK_AFTER)
    }

    /// Gives memory back that nobody has used for a while.
    pub(super) fn give_back(&mut self, now: Instant) {
        if self.idle_at().is_some_and(|at| at <= now) {
            self.memory.release();
            self.reserved.fill(false);
            self.has_outbox = false;
            self.used = None;
        }
    }

    /// The step of that position gets its memory.
    fn reserve(&mut self, position: u64) -> Option<()> {
        self.used = Some(Instant::now());
        let reserved = self.reserved.get_mut(usize::try_from(position / STEP).ok()?)?;
        if !*reserved {
            self.memory.reserve(position / STEP * STEP, STEP).ok()?;
            *reserved = true;
        }
        Some(())
    }
}
