//! Waiting for a condition, with an end.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a condition is asked again: short beside every limit in use, long enough not to load two cores.
const STEP: Duration = Duration::from_millis(20);

/// Asks `condition` until it gives a value. On time-out the error names `what` and carries `why()`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    condition: impl FnMut() -> Option<T>,
    why: impl FnOnce() -> String,
) -> Result<T> {
    until_often(STEP, what, limit, condition, why)
}

/// The same with a time between two questions that is the caller's to choose: where the time itself is measured.
pub fn until_often<T>(
    step: Duration,
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
    why: impl FnOnce() -> String,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("{what}: not within {} s: {}", limit.as_secs_f32(), why());
        }
        std::thread::sleep(step);
    }
}
