//! A thread for what a tree connect has to write to the disk of vfsxd's state directory, which may be slow, or hang.
//!
//! It is made when it is first needed, and works in the order in which it is asked. It has root's rights, as it was started with them and Samba's
//! threads have rights of their own; it takes no signals, and never calls Samba: what it has to say it reports. Nobody waits for it but the
//! end of the tree connect, with a limit. When the process ends before it is done, what it has locked is free, and tells of that.

use super::Host;
use super::flag::Standing;
use super::spool::{Legacy, Rest, Store, settle_standing};
use crate::os;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// A few frames of calls and what the C library needs: most of it is never touched.
const STACK: usize = 256 * 1024;

#[derive(Debug)]
pub(super) enum Job {
    /// Frames for the spool file; the number comes back.
    Append { number: u64, frames: Vec<u8> },
    /// vfsxd has all that is in the spool file.
    Remove,
    /// The session is over: there is no other job after it.
    End {
        /// `None`: vfsxd has everything, up to the newest event.
        rest: Option<Rest>,
        last: u64,
        /// Lowered when all is done, however late that is.
        standing: Option<Standing>,
    },
}

#[derive(Debug)]
pub(super) enum Report {
    Appended {
        number: u64,
        result: io::Result<()>,
    },
    Removed,
    Ended {
        legacy: Legacy,
        standing: io::Result<()>,
    },
}

#[derive(Debug)]
pub(super) struct Keeper {
    jobs: Sender<Job>,
    reports: Receiver<Report>,
    /// Jobs without a report.
    under_way: usize,
}

impl Keeper {
    pub(super) fn start(host: Host, store: Store) -> io::Result<Self> {
        let (jobs, asked) = channel();
        let (say, reports) = channel();
        let mut run = Some(move || {
            let mut store = store;
            // A panic ends the thread, and with it the reports.
            let _ = catch_unwind(AssertUnwindSafe(|| work(&mut store, &asked, &say)));
        });
        let mut started = Err(io::ErrorKind::Other.into());
        (host.as_root)(&mut || {
            let thread = Builder::new().name("vfsx keeper".to_owned()).stack_size(STACK);
            if let Some(run) = run.take() {
                started = os::with_signals_blocked(|| thread.spawn(run)).map(drop);
            }
        });
        started.map(|()| Self {
            jobs,
            reports,
            under_way: 0,
        })
    }

    /// False when it has ended.
    pub(super) fn ask(&mut self, job: Job) -> bool {
        self.under_way += 1;
        self.jobs.send(job).is_ok()
    }

    /// What it has not done yet.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// The next report that is there. An error: it has ended, and will not report any more.
    pub(super) fn report(&mut self) -> Result<Option<Report>, ()> {
        match self.reports.try_recv() {
            Ok(report) => {
                self.under_way -= 1;
                Ok(Some(report))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(()),
        }
    }

    /// As when the process ends: what it has locked is free then.
    #[cfg(test)]
    pub(super) fn end(self) {
        let Self { jobs, reports, .. } = self;
        drop(jobs);
        while reports.recv().is_ok() {}
    }

    /// What it says of the session's end, when it has come that far in time.
    pub(super) fn wait_for_end(&mut self, limit: Duration) -> Option<(Legacy, io::Result<()>)> {
        let until = Instant::now() + limit;
        loop {
            match self
                .reports
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(Report::Ended { legacy, standing }) => return Some((legacy, standing)),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

/// Until the tree connect is gone. Nobody may listen any more.
fn work(store: &mut Store, asked: &Receiver<Job>, say: &Sender<Report>) {
    while let Ok(job) = asked.recv() {
        let report = match job {
            Job::Append { number, frames } => Report::Appended {
                number,
                result: store.append(&frames),
            },
            Job::Remove => {
                // One that stays is added to: it has nothing that vfsxd would take twice.
                let _ = store.remove();
                Report::Removed
            }
            Job::End { rest, last, standing } => {
                let legacy = match &rest {
                    Some(rest) => store.end(rest),
                    None => {
                        // The same.
                        let _ = store.clear(last);
                        Legacy::Nothing
                    }
                };
                let standing = settle_standing(standing, &legacy);
                Report::Ended { legacy, standing }
            }
        };
        let _ = say.send(report);
    }
}
