//! How far a site is behind a client that writes all the time: seen from outside, and as vfsxd tells it.

use crate::lab::{Lab, Site};
use crate::rpc::Rpc;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at the site.
const STEP: Duration = Duration::from_millis(20);
/// Between two questions to vfsxd, each of which is a process.
const ASK_STEP: Duration = Duration::from_millis(500);
/// Of a mark in a file.
pub const MARK: usize = 8;

/// The marks that a client has written and the site is not known to have. Each is greater than the one before it.
#[derive(Debug, Default)]
pub struct Marks(Mutex<VecDeque<(u64, Instant)>>);

/// The worst of all looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behind {
    /// Age of the oldest mark that the site did not have.
    pub seen: Duration,
    /// What `vfsxctl status` said.
    pub told: Duration,
    /// What it lacked of what was seen when it said so.
    pub untold: Duration,
    pub looks: u64,
    /// The newest mark that the site had.
    pub newest: u64,
}

impl Marks {
    /// Call this when the client's write of the mark has returned.
    pub fn wrote(&self, mark: u64) {
        self.queue().push_back((mark, Instant::now()));
    }

    /// The content that a client writes.
    pub fn content(mark: u64) -> [u8; MARK] {
        mark.to_le_bytes()
    }

    /// Looks for the newest mark at the beginning of one of the site's files `paths` until it is `over`. A file that is not there
    /// is no news.
    pub fn watch(&self, lab: &Lab, site: &Site, paths: &[&str], over: &AtomicBool) -> Result<Behind> {
        let mut rpc = Rpc::connect(site)?;
        let mut behind = Behind::default();
        let mut asked = Instant::now();
        while !over.load(Ordering::Relaxed) {
            let now = Instant::now();
            behind.newest = behind.newest.max(newest(&mut rpc, paths)?);
            behind.seen = behind.seen.max(self.oldest_after(behind.newest, now));
            behind.looks += 1;
            if asked.elapsed() > ASK_STEP {
                asked = Instant::now();
                let told = told(lab, &site.description.name)?;
                behind.told = behind.told.max(told);
                // What is missing after the answer was missing when it was given.
                behind.newest = behind.newest.max(newest(&mut rpc, paths)?);
                let seen = self.oldest_after(behind.newest, asked);
                behind.untold = behind.untold.max(seen.saturating_sub(told));
            }
            std::thread::sleep(STEP);
        }
        Ok(behind)
    }

    /// Forgets what the site has, and gives the age of the oldest mark left.
    fn oldest_after(&self, mark: u64, now: Instant) -> Duration {
        let mut queue = self.queue();
        while queue.front().is_some_and(|(oldest, _)| *oldest <= mark) {
            queue.pop_front();
        }
        let oldest = queue
            .front()
            .map(|(_, written)| now.saturating_duration_since(*written));
        oldest.unwrap_or_default()
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn newest(rpc: &mut Rpc, paths: &[&str]) -> Result<u64> {
    paths.iter().try_fold(0, |newest, path| {
        let mark = mark_at(rpc, path, 0)?;
        Ok(mark.unwrap_or(0).max(newest))
    })
}

/// The mark at `offset` of the site's file; `None` when there is no such file, or it ends before.
pub fn mark_at(rpc: &mut Rpc, path: &str, offset: u64) -> Result<Option<u64>> {
    let content = rpc.read_at(path, offset, MARK)?.unwrap_or_default();
    Ok(content.try_into().ok().map(u64::from_le_bytes))
}

/// How far the site is behind as vfsxd tells it.
fn told(lab: &Lab, site: &str) -> Result<Duration> {
    let status = lab.site_status(site)?;
    let age = status.get("rpo_ms").and_then(Value::as_u64);
    age.map(Duration::from_millis)
        .with_context(|| format!("status without rpo_ms: {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_oldest_mark_that_is_missing() {
        let start = Instant::now();
        let marks = Marks::default();
        marks.queue().extend([
            (1, start),
            (2, start + Duration::from_secs(1)),
            (3, start + Duration::from_secs(2)),
        ]);
        let now = start + Duration::from_secs(10);
        assert_eq!(marks.oldest_after(0, now), Duration::from_secs(10));
        assert_eq!(marks.oldest_after(1, now), Duration::from_secs(9));
        assert_eq!(marks.oldest_after(3, now), Duration::ZERO);
    }
}
