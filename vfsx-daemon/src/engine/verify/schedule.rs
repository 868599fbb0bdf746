//! Verifies on a schedule.

use super::{VerifyOptions, now_seconds};
use crate::config;
use crate::engine::share::ShareEngine;
use std::sync::Arc;
use std::time::Duration;

/// Longest sleep: a clock that is set does not put a verify off for longer.
const LOOK_UP: Duration = Duration::from_secs(60);
/// Before one that is due is tried again, when another runs at its time.
const AGAIN: Duration = Duration::from_secs(1);

/// What is due next, and in how many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    deep: bool,
    seconds: u64,
}

/// Runs until it is dropped.
pub(in crate::engine) async fn on_schedule(share: Arc<ShareEngine>, schedule: config::Verify) {
    loop {
        let begun = {
            let records = share.verifies().records();
            (records.get().plain_begun, records.get().deep_begun)
        };
        let Some(due) = next(&schedule, begun, now_seconds()) else {
            return;
        };
        if due.seconds > 0 {
            tokio::time::sleep(Duration::from_secs(due.seconds).min(LOOK_UP)).await;
            continue;
        }
        let options = VerifyOptions {
            deep: due.deep,
            rate: schedule.rate,
            ..VerifyOptions::default()
        };
        // What it finds it notes itself.
        if let Err(error) = share.verify(&options, &|_| ()).await {
            tracing::debug!(share = share.name(), "a verify that is due has to wait: {error}");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// A deep one is a plain one too. Times ahead of the clock are of before it was set back: then one is due.
fn next(schedule: &config::Verify, (plain, deep): (i64, i64), now: i64) -> Option<Due> {
    let left = |every: Option<Duration>, begun: i64| {
        let every = every?.as_secs();
        let passed = u64::try_from(now.saturating_sub(begun)).unwrap_or(every);
        Some(every.saturating_sub(passed))
    };
    let of = |deep, seconds: Option<u64>| seconds.map(|seconds| Due { deep, seconds });
    let deep = of(true, left(schedule.deep_every, deep));
    let plain = of(false, left(schedule.every, plain));
    deep.into_iter()
        .chain(plain)
        .min_by_key(|due| (due.seconds, !due.deep))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(every: Option<u64>, deep_every: Option<u64>) -> config::Verify {
        config::Verify {
            every: every.map(Duration::from_secs),
            deep_every: deep_every.map(Duration::from_secs),
            rate: None,
        }
    }

    fn due(deep: bool, seconds: u64) -> Option<Due> {
        Some(Due { deep, seconds })
    }

    #[test]
    fn restarts_do_not_put_a_verify_off_and_a_deep_one_stands_for_a_plain_one() {
        let both = schedule(Some(10), Some(100));
        assert_eq!(next(&both, (0, 0), 3), due(false, 7));
        assert_eq!(next(&both, (0, 0), 12), due(false, 0));
        assert_eq!(next(&both, (90, 0), 100), due(true, 0));
        assert_eq!(next(&both, (100, 100), 101), due(false, 9));
        assert_eq!(next(&schedule(None, None), (0, 0), 1000), None);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_put_it_off_for_years() {
        assert_eq!(
            next(&schedule(Some(10), None), (5_000_000, 0), 100),
            due(false, 0)
        );
    }
}
