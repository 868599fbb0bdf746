//! While vfsxd is away and the ring fills, its oldest events go to the session's spool file.
//!
//! They leave the ring when the keeper says that they are written, and only between two connections: what a connection says of the file,
//! and what it is given from the ring, then fit together. A `Welcome` acknowledges all that the file had when the connection began.

use super::absence::STANDING_AFTER;
use super::keeper::{Job, Keeper, Report};
use super::link::LinkError;
use super::spool::Store;
use super::{Client, NOTICE, Request};
use std::io;
use std::time::{Duration, Instant};

/// Bytes of frames that the keeper gets at once: they are in memory twice until it has written them.
const PIECE: usize = 1024 * 1024;
/// Jobs that may wait while the disk hangs: what vfsxd has taken in meanwhile leaves some that nobody needs any more.
const JOBS: usize = 4;
/// How often the keeper is asked, when no call of smbd comes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const ENDED: &str = "the thread that writes changes to disk has ended";

#[derive(Debug, Default)]
pub(super) struct Overflow {
    /// Made when it is first needed.
    pub(super) keeper: Option<Keeper>,
    /// Of the piece that was given to the keeper last.
    number: u64,
    /// Newest event of the piece that it is writing.
    writing: Option<u64>,
    /// Up to here events are in the file, though still in the ring.
    written: Option<u64>,
    /// There may be a file.
    has_file: bool,
    /// It has no more room or cannot be written: so it stays until vfsxd has taken it in.
    has_failed: bool,
    look_at: Option<Instant>,
}

impl Client {
    /// The ring is more than half full, or the keeper writes what was in it. What calls of smbd mostly find is neither.
    pub(super) fn overflows(&self) -> bool {
        !self.ring.has_room() || self.overflow.look_at.is_some()
    }

    /// Makes room in the ring, if nobody takes what is there.
    #[cold]
    pub(super) fn overflow(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        if !self.ring.has_room() {
            self.ask_to_acknowledge();
        }
        if !self.ring.has_room() && self.link.is_up() && self.is_away() {
            // The acknowledgement may be there, and smbd was busy elsewhere.
            requests = self.readable();
            if self.link.is_up() && self.is_away() && self.may_spool() {
                // What this connection was given may leave the ring once it is gone.
                self.end(&LinkError::Closed(io::ErrorKind::TimedOut.into()));
            }
        }
        self.spill();
        requests
    }

    /// The same between two connections, or before a `Welcome`.
    pub(super) fn spill(&mut self) {
        self.look_at_keeper();
        if self.ring.has_room() || self.link.is_up() || !self.may_spool() {
            return;
        }
        if self.overflow.written.is_some() && self.link.socket().is_some() {
            self.drop_link(false);
        }
        self.leave_written();
        if !self.ring.has_room() && self.overflow.writing.is_none() && !self.overflow.has_failed {
            self.hand_over();
        }
    }

    fn may_spool(&self) -> bool {
        self.config.spool && self.lost.is_none() && !self.overflow.has_failed
            || self.overflow.written.is_some()
    }

    /// Nobody takes events, or has said so for a while.
    fn is_away(&self) -> bool {
        let now = Instant::now();
        let is_old = |since: Instant| since + STANDING_AFTER <= now;
        !self.link.is_up() || self.ring.oldest_kept().is_some_and(is_old) && is_old(self.heard)
    }

    /// What is written leaves the ring. There is no connection.
    pub(super) fn leave_written(&mut self) {
        if self.link.socket().is_none()
            && let Some(up_to) = self.overflow.written.take()
        {
            self.ring.leave(up_to);
            self.free_data();
        }
    }

    fn hand_over(&mut self) {
        let is_busy = |keeper: &Keeper| keeper.under_way() >= JOBS;
        if self.overflow.keeper.as_ref().is_some_and(is_busy) {
            return;
        }
        let Some((frames, last)) = self.ring.oldest_frames(PIECE) else {
            return;
        };
        let number = self.overflow.number + 1;
        self.overflow.number = number;
        if self.ask_keeper(Job::Append { number, frames }) {
            self.overflow.has_file = true;
            self.overflow.writing = Some(last);
            self.overflow.look_at = Some(Instant::now() + LOOK_AGAIN);
            self.stir();
        }
    }

    /// False when there is no keeper, and there will be none.
    pub(super) fn ask_keeper(&mut self, job: Job) -> bool {
        if self.overflow.keeper.is_none() {
            let store = Store::new(&self.config.state, &self.hello, self.config.spool_max);
            match Keeper::start(self.host, store) {
                Ok(keeper) => self.overflow.keeper = Some(keeper),
                Err(e) => self.fail(&format!("no thread for what is to be written to disk: {e}")),
            }
        }
        let Some(keeper) = &mut self.overflow.keeper else {
            return false;
        };
        let is_asked = keeper.ask(job);
        if !is_asked {
            self.fail(ENDED);
        }
        is_asked
    }

    /// Hears what it has written.
    pub(super) fn look_at_keeper(&mut self) {
        let Some(keeper) = &mut self.overflow.keeper else {
            return;
        };
        let mut failure = None;
        loop {
            match keeper.report() {
                Ok(Some(Report::Appended { number, result })) if number == self.overflow.number => {
                    let up_to = self.overflow.writing.take();
                    match result {
                        Ok(()) => self.overflow.written = up_to.or(self.overflow.written),
                        Err(e) => failure = Some(format!("changes cannot be written to disk: {e}")),
                    }
                }
                // Of a file that vfsxd has taken in.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(()) => {
                    if self.overflow.writing.take().is_some() {
                        failure = Some(ENDED.to_owned());
                    }
                    break;
                }
            }
        }
        let is_writing = self.overflow.writing.is_some();
        self.overflow.look_at = is_writing.then(|| Instant::now() + LOOK_AGAIN);
        if let Some(why) = failure {
            self.fail(&why);
        }
    }

    fn fail(&mut self, why: &str) {
        if !std::mem::replace(&mut self.overflow.has_failed, true) {
            let share = &self.hello.share;
            (self.host.log)(NOTICE, &format!("share {share}: {why}"));
        }
    }

    /// vfsxd has all that is in the file.
    pub(super) fn forget_spooled(&mut self) {
        // What is still being written counts for nothing.
        self.overflow.number += 1;
        self.overflow.writing = None;
        self.overflow.written = None;
        self.overflow.has_failed = false;
        self.overflow.look_at = None;
        if std::mem::take(&mut self.overflow.has_file) {
            self.ask_keeper(Job::Remove);
        }
    }

    /// There may be a file, if only because the keeper has not removed it yet.
    pub(super) fn has_spooled(&mut self) -> bool {
        self.look_at_keeper();
        let is_busy = |keeper: &Keeper| keeper.under_way() > 0;
        self.overflow.has_file || self.overflow.keeper.as_ref().is_some_and(is_busy)
    }

    pub(super) fn look_at(&self) -> Option<Instant> {
        self.overflow.look_at
    }
}
