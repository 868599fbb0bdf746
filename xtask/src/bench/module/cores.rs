//! Which of the machine's cores works for whom.
//!
//! A server that is measured has its clients elsewhere, and its recovery site, too. Here all are on one machine: if they took
//! each other's cores, the table would tell how many it has. So clients and smbd get one half, which for most loads work in
//! turns anyway, vfsxd and the site the other. It is the same for every column.

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;

pub(super) struct Halves {
    /// Clients and smbd.
    front: CpuSet,
    /// What works behind them.
    back: CpuSet,
}

impl Halves {
    /// Of the cores that this process may use. At least two are needed.
    pub(super) fn new() -> Result<Self> {
        let all = sched_getaffinity(None).context("which cores there are")?;
        let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        let (front, back) = cores.split_at(cores.len() / 2);
        if front.is_empty() {
            bail!(
                "the costs of the module cannot be told on one core: its daemon would take the time of smbd"
            );
        }
        Ok(Self {
            front: set(front),
            back: set(back),
        })
    }

    /// This thread, and the clients that it starts from now on.
    pub(super) fn keep_clients(&self) -> Result<()> {
        sched_setaffinity(None, &self.front).context("keep clients to their cores")
    }

    /// A server that works for clients, and what it forks from now on.
    pub(super) fn keep_front(&self, server: i32) -> Result<()> {
        keep(server, &self.front)
    }

    pub(super) fn keep_back(&self, server: i32) -> Result<()> {
        keep(server, &self.back)
    }
}

fn set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    set
}

/// All threads of a process; those that it starts later inherit it.
fn keep(process: i32, cores: &CpuSet) -> Result<()> {
    let threads = format!("/proc/{process}/task");
    for entry in fs::read_dir(&threads).with_context(|| format!("read {threads}"))? {
        let name = entry?.file_name();
        let thread = name.to_string_lossy().parse().ok().and_then(Pid::from_raw);
        // One that has ended meanwhile needs no core.
        if let Some(thread) = thread
            && let Err(e) = sched_setaffinity(Some(thread), cores)
            && e != rustix::io::Errno::SRCH
        {
            return Err(e).with_context(|| format!("keep process {process} to its cores"));
        }
    }
    Ok(())
}
