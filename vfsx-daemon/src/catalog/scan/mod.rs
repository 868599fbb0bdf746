//! The scan: compares directories with the catalog, while clients work, and says which names differ. Which directories
//! are to be listed is in the store, so a scan that is stopped goes on where it was, and costs no memory however large the
//! share is. Several threads compare a directory each; only what differs, and which directories are done with, goes to the
//! applier.

mod directory;
mod fingerprint;
mod nodes;

use super::CatalogError;
use super::applier::{Page, ReachError, Request};
use super::exclude::Exclude;
use super::shared::Shared;
use super::store::{Key, ListRow, Prefix, get, page};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use directory::Comparison;
use restfs_lib::model::ObjectId;
use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Directories taken up at once: done with in one transaction.
const DIRECTORIES: usize = 256;
/// Threads that compare, where there are so many processors. What they find goes through one applier, and smbd needs some, too.
const THREADS: usize = 4;
/// Until directories that could not be listed are tried again; doubled each time.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

enum Ended {
    /// The catalog stops.
    Stopped,
    /// The directory could not be listed.
    Away,
    Error(String),
}

impl From<CatalogError> for Ended {
    fn from(e: CatalogError) -> Self {
        Self::Error(e.to_string())
    }
}

impl From<io::Error> for Ended {
    fn from(e: io::Error) -> Self {
        Self::Error(e.to_string())
    }
}

impl From<ReachError> for Ended {
    fn from(e: ReachError) -> Self {
        Self::Error(e.to_string())
    }
}

pub(super) struct Scanner<'a> {
    shared: &'a Shared,
    /// There may be directories to list.
    wake: Receiver<()>,
    applier: Sender<Request>,
    /// Directories that could not be listed: when to try again, and how often it was tried.
    away: HashMap<ObjectId, (Instant, u32)>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(shared: &'a Shared, wake: Receiver<()>, applier: Sender<Request>) -> Self {
        Self {
            shared,
            wake,
            applier,
            away: HashMap::new(),
        }
    }

    /// Lists directories as long as the catalog runs.
    pub(super) fn run(&mut self) {
        loop {
            let listed = match self.round() {
                Ok(listed) => listed,
                Err(Ended::Stopped) => return,
                Err(Ended::Away) => 0,
                Err(Ended::Error(text)) => {
                    tracing::warn!("scan: {text}");
                    0
                }
            };
            if listed == 0 && !self.wait() {
                return;
            }
        }
    }

    /// Waits until there may be something to list. `false`: the catalog stops.
    fn wait(&self) -> bool {
        let due = self.away.values().map(|(due, _)| *due).min();
        let woken = match due {
            Some(due) => self.wake.recv_deadline(due),
            None => self.wake.recv_timeout(RETRY_MAX),
        };
        woken != Err(RecvTimeoutError::Disconnected)
    }

    /// Lists the directories that can be. How many were.
    fn round(&mut self) -> Result<usize, Ended> {
        let mut after: Option<Key> = None;
        let mut listed = 0;
        loop {
            let kv = self.shared.kv.read().map_err(CatalogError::from)?;
            let rows = page::<ListRow>(&*kv, Prefix::List, &[], after.as_ref(), DIRECTORIES)?;
            // As of the same moment: a scan that other patterns have asked for is made with these.
            let exclude = get(&*kv, &Key::meta("exclude"))?.unwrap_or_default();
            let exclude = Exclude::new(&exclude);
            drop(kv);
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            let due: Vec<(ObjectId, ListRow)> = rows
                .into_iter()
                .filter_map(|(key, row)| match key {
                    Key::List(dir) if !self.is_away(dir) => Some((dir, row)),
                    _ => None,
                })
                .collect();
            let comparison = Comparison::new(self.shared, self.applier.clone(), &exclude);
            let mut failed = Page::default();
            for (dir, outcome) in compare_all(&comparison, &due) {
                match outcome {
                    Ok(()) => {
                        self.away.remove(&dir);
                        listed += 1;
                    }
                    Err(Ended::Stopped) => return Err(Ended::Stopped),
                    Err(why) => self.fail(dir, why, &mut failed),
                }
            }
            comparison.finish(failed)?;
        }
        if after.is_none() {
            self.away.clear();
        }
        Ok(listed)
    }

    fn is_away(&self, dir: ObjectId) -> bool {
        self.away.get(&dir).is_some_and(|(due, _)| *due > Instant::now())
    }

    fn fail(&mut self, dir: ObjectId, why: Ended, failed: &mut Page) {
        match why {
            Ended::Error(text) => failed.error = Some(format!("directory {dir} cannot be listed: {text}")),
            Ended::Away | Ended::Stopped => failed.away.push(dir),
        }
        let (_, failures) = self.away.get(&dir).copied().unwrap_or((Instant::now(), 0));
        let wait = RETRY.saturating_mul(1 << failures.min(16)).min(RETRY_MAX);
        self.away
            .insert(dir, (Instant::now() + wait, failures.saturating_add(1)));
    }
}

/// What became of the directories.
fn compare_all(
    comparison: &Comparison<'_>,
    due: &[(ObjectId, ListRow)],
) -> Vec<(ObjectId, Result<(), Ended>)> {
    let outcomes = Mutex::new(Vec::with_capacity(due.len()));
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((dir, row)) = due.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = comparison.run(*dir, *row);
            let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            outcomes.push((*dir, outcome));
        }
    };
    let threads = available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        // One of them is this thread.
        for _ in 1..threads.min(THREADS).min(due.len()) {
            scope.spawn(work);
        }
        work();
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}
