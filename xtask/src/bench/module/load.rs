//! Loads, and how a run of one is measured.

use super::client::Client;
use super::column::{SERVERS, Stand};
use super::remove;
use anyhow::Result;
use std::time::Duration;
use vfsx_tests::wait;

/// Directory of a run in the share.
const DIR: &str = "run";
/// NBENCH makes it.
pub(super) const NBENCH_DIR: &str = "clients";
/// How long smbd's processes may take to end after their clients.
const END_LIMIT: Duration = Duration::from_secs(20);

/// More than the largest load writes, in all its copies: the share's, the journal's and the site's.
const TOUCHED: u64 = 4 << 30;

#[derive(Debug, Clone)]
pub(super) enum Load {
    /// A mixture that was recorded once. It runs for a time.
    Nbench { name: &'static str, seconds: u64 },
    /// `count` operations of one kind, see `load.c`.
    Client {
        name: &'static str,
        unit: &'static str,
        kind: &'static str,
        count: u64,
        size: u64,
        span: u64,
    },
}

/// What a load did on a share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// Seconds since the start, and operations done by then.
    pub(super) points: Vec<(f64, f64)>,
    /// Processor time of each of [`SERVERS`] in seconds, until all is at the site.
    pub(super) processor: [f64; SERVERS.len()],
    /// Why a share that is to work in mode copy did not, for a time.
    pub(super) in_mode_map: Option<String>,
}

impl Load {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Nbench { name, .. } | Self::Client { name, .. } => name,
        }
    }

    pub(super) fn unit(&self) -> &'static str {
        match self {
            Self::Nbench { .. } => "operations/s",
            Self::Client { unit, .. } => unit,
        }
    }

    pub(super) fn run(&self, stand: &Stand, client: &Client) -> Result<Run> {
        if let Self::Client {
            kind: "renames",
            count,
            ..
        } = self
        {
            client.run(stand, DIR, "touch", *count, 0, 0)?;
        }
        stand.settle()?;
        touch_memory();
        let processes = stand.lab.smbd.processes();
        let before = stand.processor_times()?;
        let (points, in_mode_map) = stand.watch_mode(|| match self {
            Self::Nbench { seconds, .. } => client.nbench(stand, *seconds),
            Self::Client {
                kind,
                count,
                size,
                span,
                ..
            } => {
                let seconds = client.run(stand, DIR, kind, *count, *size, *span)?;
                Ok(vec![(seconds, *count as f64)])
            }
        })?;
        // Their time is the server's only when it has seen their end.
        wait::until(
            "end of the client's smbd",
            END_LIMIT,
            || (stand.lab.smbd.processes() <= processes).then_some(()),
            || "it is still there".to_owned(),
        )?;
        stand.settle()?;
        let after = stand.processor_times()?;
        let dir = if matches!(self, Self::Nbench { .. }) {
            NBENCH_DIR
        } else {
            DIR
        };
        let dir = stand.dir()?.join(dir);
        if dir.exists() {
            remove(&dir)?;
        }
        let used = std::array::from_fn(|server| (after[server] - before[server]).as_secs_f64());
        Ok(Run {
            points,
            processor: used,
            in_mode_map,
        })
    }
}

/// A virtual machine gets its memory from its host when it is used for the first time, which takes longer than to write to it,
/// and gives back what is free for a while: without this the share whose servers keep more files in memory would pay for
/// that.
fn touch_memory() {
    // What is not free has been used.
    let free = rustix::system::sysinfo();
    let free = free.freeram as u64 * u64::from(free.mem_unit);
    let bytes = usize::try_from(TOUCHED.min(free / 2)).unwrap_or(0);
    std::hint::black_box(vec![1u8; bytes]);
}

impl Run {
    /// Operations done at the end.
    pub(super) fn done(&self) -> f64 {
        self.points.last().map_or(0.0, |(_, done)| *done)
    }

    /// Seconds until `operations` were done. Runs for a time are compared by the time for the same work: the operations at the
    /// beginning of a recorded load are others than those further on.
    pub(super) fn time_to(&self, operations: f64) -> f64 {
        let mut last = (0.0, 0.0);
        for (seconds, done) in &self.points {
            if *done >= operations {
                let (last_seconds, last_done) = last;
                return last_seconds
                    + (seconds - last_seconds) * (operations - last_done) / (done - last_done).max(1.0);
            }
            last = (*seconds, *done);
        }
        last.0
    }
}

#[cfg(test)]
mod tests {
    use super::Run;

    #[test]
    fn the_time_for_some_work_lies_between_the_seconds_that_are_known() {
        let run = Run {
            points: vec![(1.0, 100.0), (2.0, 300.0), (3.0, 310.0)],
            processor: [0.0; 3],
            in_mode_map: None,
        };
        assert_eq!(run.time_to(50.0), 0.5);
        assert_eq!(run.time_to(200.0), 1.5);
        assert_eq!(run.time_to(310.0), 3.0);
        assert_eq!(run.done(), 310.0);
    }
}
