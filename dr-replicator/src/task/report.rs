//! What the task tells about itself, kept up to date.

use crate::status::{Lag, SiteState, SiteStatus};
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Changes that the lag's percentiles are over.
const SAMPLES: usize = 1024;

pub(super) struct Report {
    pub(super) status: SiteStatus,
    lags: VecDeque<Duration>,
    publish: watch::Sender<SiteStatus>,
}

impl Report {
    pub(super) fn new(publish: watch::Sender<SiteStatus>) -> Self {
        Self {
            status: SiteStatus::new(),
            lags: VecDeque::with_capacity(SAMPLES),
            publish,
        }
    }

    /// Wakes whoever waits, when something is different.
    pub(super) fn publish(&self) {
        self.publish.send_if_modified(|published| {
            let different = *published != self.status;
            if different {
                published.clone_from(&self.status);
            }
            different
        });
    }

    pub(super) fn state(&mut self, state: SiteState, error: Option<String>) {
        self.status.state = state;
        self.status.last_error = error;
    }

    /// Changes noted at these times are durable as of now.
    pub(super) fn committed(&mut self, noted_ns: &[i64]) {
        self.status.commits += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let newest = noted_ns.len().saturating_sub(SAMPLES);
        for noted in noted_ns.iter().skip(newest) {
            if self.lags.len() == SAMPLES {
                self.lags.pop_front();
            }
            let noted = Duration::from_nanos(u64::try_from(*noted).unwrap_or(0));
            self.lags.push_back(now.saturating_sub(noted));
        }
        self.status.lag = percentiles(&self.lags);
    }
}

fn percentiles(lags: &VecDeque<Duration>) -> Lag {
    let mut sorted: Vec<_> = lags.iter().copied().collect();
    sorted.sort_unstable();
    let rank = |percent: usize| {
        sorted
            .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
            .copied()
    };
    Lag {
        last: lags.back().copied(),
        p50: rank(50),
        p99: rank(99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_over_the_newest_samples() {
        assert_eq!(percentiles(&VecDeque::new()), Lag::default());
        let lags = (1..=100).map(Duration::from_millis).collect();
        let lag = percentiles(&lags);
        assert_eq!(lag.last, Some(Duration::from_millis(100)));
        assert_eq!(lag.p50, Some(Duration::from_millis(51)));
        assert_eq!(lag.p99, Some(Duration::from_millis(100)));
    }
}
