//! Work that goes on for long, or on much: each test in a short form, and in a long one that `cargo xtask test --long` runs.

mod absent;
mod followed;
mod kills;
mod many;

use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use vfsx_tests::testlab::TestLab;

/// A site is never further behind, whatever clients do.
const LIMIT: Duration = Duration::from_secs(5);
/// On the wire besides content and rows: requests, and directories.
const MARGIN: u64 = 4 << 20;
/// Tests that measure how fast something is have the machine for themselves.
static MACHINE: RwLock<()> = RwLock::new(());

fn beside_others() -> impl Drop {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone() -> impl Drop {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that vfsxd has in memory now (`VmRSS`), or had at most (`VmHWM`).
fn memory(lab: &TestLab, which: &str) -> Result<u64> {
    let pid = lab.vfsxd.pid().context("vfsxd does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
    let kib = line.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no {which}"))? << 10)
}

fn number(status: &Value, pointer: &str) -> Result<u64> {
    let found = status.pointer(pointer).and_then(Value::as_u64);
    found.with_context(|| format!("no number {pointer} in {status}"))
}
