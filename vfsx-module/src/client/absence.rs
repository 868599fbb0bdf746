//! What is on record when vfsxd does not take the changes.

use super::flag::{self, Lost, Standing};
use super::keeper::Job;
use super::spool::{Legacy, Rest};
use super::{Client, DETAIL, ERROR, NOTICE};
use crate::os;
use std::io;
use std::time::{Duration, Instant};
use vfsx_proto::GapReason;

/// How long a change may be unacknowledged before a standing flag says so though there is a connection: vfsxd hangs, or is behind. An
/// acknowledgement usually takes milliseconds. Also the pause after a flag that could not be raised.
pub(super) const STANDING_AFTER: Duration = Duration::from_secs(1);
/// How long the end of a tree connect waits for the disk of vfsxd's state directory. The process's other tree connects stand still
/// meanwhile.
pub(super) const KEEPER_LIMIT: Duration = Duration::from_secs(2);

impl Client {
    /// When the standing flag is due. What was dropped is younger than what is in the ring, which is not empty then.
    pub(super) fn standing_at(&self) -> Option<Instant> {
        if self.standing.is_some() {
            return None;
        }
        let due = self.ring.oldest_kept()? + STANDING_AFTER;
        Some(self.raise_again.map_or(due, |again| due.max(again)))
    }

    pub(super) fn is_standing_due(&self, now: Instant) -> bool {
        self.standing_at().is_some_and(|at| at <= now)
    }

    pub(super) fn raise_standing(&mut self, now: Instant) {
        if let Some(lost) = self.at_stake() {
            self.raise(lost, now, None);
        }
    }

    /// Without a connection the flag tells before anything is changed: of what a killed process had changed in between nobody would hear, and
    /// points of the share must not be called exact meanwhile. Whether it was raised by this.
    pub(super) fn raise_early(&mut self) -> bool {
        let now = Instant::now();
        if self.standing.is_some() || self.raise_again.is_some_and(|again| now < again) {
            return false;
        }
        let lost = self.at_stake().unwrap_or(Lost {
            since_ns: os::wall_clock(),
            reason: GapReason::DaemonAbsent,
        });
        self.raise(lost, now, None);
        self.standing.is_some()
    }

    fn raise(&mut self, lost: Lost, now: Instant, last: Option<u64>) {
        let (share, pid) = (&self.hello.share, self.hello.pid);
        let path = flag::standing_path(&self.config.socket, share, self.hello.session);
        // A failure is told at the end of the session, when it matters; until then it is tried again.
        let mut raised = None;
        (self.host.as_root)(&mut || raised = Standing::raise(&path, lost, pid, last).ok());
        // One that was raised before is that of a process that goes on: it stays when it cannot be replaced.
        self.standing = raised.or(self.standing.take());
        self.raise_again = Some(now + STANDING_AFTER);
    }

    pub(super) fn lower_standing(&mut self) {
        let mut standing = self.standing.take();
        if standing.is_none() {
            return;
        }
        let mut result = Ok(());
        (self.host.as_root)(&mut || result = standing.take().map_or(Ok(()), Standing::lower));
        if let Err(e) = result {
            self.log_standing_stays(&e);
        }
    }

    /// The tree connect ends. What vfsxd has not taken goes to the spool file, or the gap flag says that it is lost; both by the keeper, for
    /// which nobody waits for long. Until one of the two is written, the standing flag says so, with the session's last event.
    /// `keep_locked`: vfsxd is not to take the file before this process has ended.
    pub(super) fn leave_rest(&mut self, keep_locked: bool) {
        let rest = self.at_stake().map(|lost| self.rest(lost, keep_locked));
        let is_at_stake = rest.is_some();
        if let Some(rest) = &rest {
            self.raise(
                rest.lost,
                Instant::now(),
                (!rest.was_dropped).then_some(rest.last),
            );
        }
        if is_at_stake || self.has_spooled() {
            self.end_keeper(rest);
        }
        if !is_at_stake {
            self.leave_nothing(keep_locked);
        }
    }

    fn end_keeper(&mut self, rest: Option<Rest>) {
        let (last, standing) = (self.ring.last(), self.standing.take());
        let (is_at_stake, is_flagged) = (rest.is_some(), standing.is_some());
        self.ask_keeper(Job::End { rest, last, standing });
        let ended = self.overflow.keeper.as_mut();
        match ended.and_then(|keeper| keeper.wait_for_end(KEEPER_LIMIT)) {
            Some((legacy, standing)) => self.log_legacy(&legacy, standing),
            None if is_at_stake => {
                let state = self.config.state.display();
                let (level, what) = match is_flagged {
                    true => (NOTICE, "vfsxd finds out whether anything is lost"),
                    false => (ERROR, "CHANGES MAY BE LOST: run `vfsxctl sync` for the share"),
                };
                let text = format!("the last changes are not written to {state} in time: {what}");
                (self.host.log)(level, &format!("share {}: {text}", self.hello.share));
            }
            None => {}
        }
    }

    /// vfsxd has all changes. One that ends before it has noted the session's end would take it for that of a process that was killed: a flag
    /// with the session's last event tells it, when it is back, that nothing is lost. One that sees the session end removes it.
    fn leave_nothing(&mut self, keep_locked: bool) {
        if !self.is_known {
            return self.lower_standing();
        }
        let nothing = Lost {
            since_ns: os::wall_clock(),
            reason: GapReason::DaemonAbsent,
        };
        self.raise(nothing, Instant::now(), Some(self.ring.last()));
        let standing = self.standing.take();
        if keep_locked {
            std::mem::forget(standing);
        }
    }

    fn rest(&self, lost: Lost, keep_locked: bool) -> Rest {
        let is_whole = self.config.spool && self.lost.is_none();
        let frames: Vec<&[u8]> = self.ring.frames().collect();
        Rest {
            frames: if is_whole { frames.concat() } else { Vec::new() },
            last: self.ring.last(),
            lost,
            is_whole,
            was_dropped: self.lost.is_some(),
            keep_locked,
        }
    }

    fn log_legacy(&self, legacy: &Legacy, standing: io::Result<()>) {
        let share = &self.hello.share;
        let (level, text) = match legacy {
            Legacy::Nothing => (DETAIL, "vfsxd has all changes".to_owned()),
            Legacy::Spool { path } => (
                NOTICE,
                format!("the last changes wait for vfsxd in {}", path.display()),
            ),
            Legacy::Flag { path, spool } => {
                let why = spool.as_ref().map(|e| format!(" (no spool file: {e})"));
                let (path, why) = (path.display(), why.unwrap_or_default());
                (
                    ERROR,
                    format!("vfsxd has not taken the last changes; flag left in {path}{why}"),
                )
            }
            Legacy::Neither { path, why } => (
                ERROR,
                format!(
                    "CHANGES ARE LOST: vfsxd has not taken them and {} cannot be written: {why}; run `vfsxctl sync --share {share}`",
                    path.display()
                ),
            ),
        };
        (self.host.log)(level, &format!("share {share}: {text}"));
        if let Err(e) = standing {
            self.log_standing_stays(&e);
        }
    }

    fn log_standing_stays(&self, why: &io::Error) {
        // vfsxd then takes it for that of a killed process: a scan too many, and nothing missed.
        let text = format!("share {}: standing gap flag stays: {why}", self.hello.share);
        (self.host.log)(NOTICE, &text);
    }

    /// What would be lost if this process ended now.
    fn at_stake(&self) -> Option<Lost> {
        let oldest = self.ring.oldest().map(|since_ns| Lost {
            since_ns,
            reason: GapReason::DaemonAbsent,
        });
        oldest.or(self.lost)
    }
}
