//! What is on record when vfsxd does not take the changes.

use super::flag::{self, Lost, Standing};
use super::{Client, ERROR, NOTICE, spool};
use crate::os;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vfsx_proto::GapReason;

/// How long a change may be unacknowledged before a standing flag says so, whether vfsxd is gone, hangs, or is behind. A restart
/// of it costs none, and an acknowledgement usually takes milliseconds. Also the pause after a flag that could not be raised.
pub(super) const STANDING_AFTER: Duration = Duration::from_secs(1);

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
            self.raise(lost, now);
        }
    }

    /// Points of the share must not be called exact while this session changes it and vfsxd does not know: the flag tells, before
    /// anything is changed. Whether it was raised by this.
    pub(super) fn raise_early(&mut self) -> bool {
        let now = Instant::now();
        if self.standing.is_some() || self.raise_again.is_some_and(|again| now < again) {
            return false;
        }
        let lost = self.at_stake().unwrap_or(Lost {
            since_ns: os::wall_clock(),
            reason: GapReason::DaemonAbsent,
        });
        self.raise(lost, now);
        self.standing.is_some()
    }

    fn raise(&mut self, lost: Lost, now: Instant) {
        let (share, pid) = (&self.hello.share, self.hello.pid);
        let path = flag::standing_path(&self.config.socket, share, self.hello.session);
        // A failure is told at the end of the session, when it matters; until then it is tried again.
        let standing = &mut self.standing;
        (self.host.as_root)(&mut || *standing = Standing::raise(&path, lost, pid, None).ok());
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
            // vfsxd then takes it for that of a killed process: a scan too many, and nothing missed.
            (self.host.log)(
                NOTICE,
                &format!("share {}: standing gap flag stays: {e}", self.hello.share),
            );
        }
    }

    /// At the end of a session that vfsxd knows: it takes the rest from the spool when it is back. Gives whether that is written. A
    /// session that no vfsxd ever took leaves nothing there: there may be none for this share, and nobody would empty it.
    /// `keep_locked`: vfsxd is not to take it before this process has ended.
    pub(super) fn leave_spool(&self, keep_locked: bool) -> bool {
        if !self.config.spool || !self.welcomed || self.lost.is_some() {
            return false;
        }
        let (share, path) = (&self.hello.share, spool::path(&self.config.state, &self.hello));
        let mut result = Err(io::ErrorKind::Other.into());
        (self.host.as_root)(&mut || {
            result = spool::write(&path, &self.hello, self.ring.frames(), self.ring.last());
        });
        let (level, text) = match &result {
            Ok(_) => (
                NOTICE,
                format!("the last changes wait for vfsxd in {}", path.display()),
            ),
            Err(e) => (ERROR, format!("{} cannot be written: {e}", path.display())),
        };
        (self.host.log)(level, &format!("share {share}: {text}"));
        let written = result.is_ok();
        if keep_locked {
            std::mem::forget(result);
        }
        written
    }

    /// At the end of a session with changes that nobody has taken. Gives whether the flag is written.
    pub(super) fn leave_flag(&self) -> bool {
        let Some(lost) = self.at_stake() else { return true };
        let (share, path) = (&self.hello.share, self.flag_path());
        let mut result = Ok(());
        // What was dropped is lost, whatever vfsxd has taken.
        let last = self.lost.is_none().then(|| self.ring.last());
        (self.host.as_root)(&mut || result = flag::write(&path, lost, self.hello.pid, last));
        let text = match &result {
            Ok(()) => format!(
                "vfsxd has not taken the last changes; flag left in {}",
                path.display()
            ),
            Err(e) => format!(
                "CHANGES ARE LOST: vfsxd has not taken them and {} cannot be written: {e}; run `vfsxctl sync --share {share}`",
                path.display()
            ),
        };
        (self.host.log)(ERROR, &format!("share {share}: {text}"));
        result.is_ok()
    }

    /// What would be lost if this process ended now.
    fn at_stake(&self) -> Option<Lost> {
        let oldest = self.ring.oldest().map(|since_ns| Lost {
            since_ns,
            reason: GapReason::DaemonAbsent,
        });
        oldest.or(self.lost)
    }

    fn flag_path(&self) -> PathBuf {
        flag::path(&self.config.state, &self.hello.share, self.hello.session)
    }
}
