//! How fast blocks may leave.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Unused bandwidth is kept for this long; with a message on top ([`Bandwidth::message_bytes`]) a burst stays below what
/// the limit allows in one second.
const KEPT: f64 = 0.5;
/// Shortest a message is made for a low limit's sake: below it the envelope would outweigh the content.
const SHORTEST_MESSAGE: u64 = 64 * 1024;

/// Token bucket in bytes. A message passes when the bucket is not in debt and then takes all its bytes, so that a block
/// larger than the bucket passes too.
#[derive(Debug)]
pub struct Bandwidth {
    bucket: Mutex<Bucket>,
    changed: Notify,
}

#[derive(Debug)]
struct Bucket {
    limit: Option<NonZeroU64>,
    /// Negative: in debt.
    bytes: f64,
    at: Instant,
}

impl Bandwidth {
    pub fn new(limit: Option<NonZeroU64>) -> Self {
        Self {
            bucket: Mutex::new(Bucket {
                limit,
                bytes: 0.0,
                at: Instant::now(),
            }),
            changed: Notify::new(),
        }
    }

    /// Whoever waits now waits by the new limit.
    pub(crate) fn set(&self, limit: Option<NonZeroU64>) {
        let mut bucket = self.lock();
        bucket.refill();
        bucket.limit = limit;
        bucket.bytes = bucket.bytes.min(0.0);
        drop(bucket);
        self.changed.notify_waiters();
    }

    /// Waits until `bytes` may go out.
    pub async fn take(&self, bytes: u64) {
        loop {
            let changed = self.changed.notified();
            let Some(wait) = self.lock().try_take(bytes) else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    /// After a message for which `taken` was taken, and which came to `sent`.
    pub(crate) fn correct(&self, taken: u64, sent: u64) {
        self.lock().bytes += taken as f64 - sent as f64;
    }

    /// Longest message that keeps bursts short.
    pub(crate) fn message_bytes(&self, longest: u64) -> u64 {
        match self.lock().limit {
            Some(limit) => (limit.get() / 4).clamp(SHORTEST_MESSAGE.min(longest), longest),
            None => longest,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    /// `None`: taken. Else how long to wait before trying again.
    fn try_take(&mut self, bytes: u64) -> Option<Duration> {
        let limit = self.limit?.get() as f64;
        self.refill();
        if self.bytes < 0.0 {
            // Rounded up, or a rest of less than a timer's tick would be waited for over and over.
            return Some(Duration::from_secs_f64(-self.bytes / limit) + Duration::from_millis(1));
        }
        self.bytes -= bytes as f64;
        None
    }

    fn refill(&mut self) {
        let now = Instant::now();
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        if let Some(limit) = self.limit {
            let limit = limit.get() as f64;
            self.bytes = (self.bytes + passed * limit).min(limit * KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(bytes: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes)
    }

    async fn taken_in(bandwidth: &Bandwidth, messages: u64, bytes: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..messages {
            bandwidth.take(bytes).await;
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_worth_takes_about_ten_seconds() {
        let bandwidth = Bandwidth::new(limit(1_000_000));
        let took = taken_in(&bandwidth, 40, 250_000).await;
        assert!((9.4..10.5).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_rest_allows_no_burst_of_more_than_a_second() {
        let bandwidth = Bandwidth::new(limit(1_000_000));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let message = bandwidth.message_bytes(4 << 20);
        let start = Instant::now();
        let mut at_once = 0;
        while start.elapsed().is_zero() {
            bandwidth.take(message).await;
            at_once += message;
        }
        // The last one had to wait.
        assert!(at_once - message <= 1_000_000, "{at_once}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_lifted_lets_waiters_go() {
        let bandwidth = std::sync::Arc::new(Bandwidth::new(limit(1)));
        bandwidth.take(1_000_000).await;
        let waiter = tokio::spawn({
            let bandwidth = bandwidth.clone();
            async move { taken_in(&bandwidth, 1, 1).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        bandwidth.set(None);
        let took = waiter.await.unwrap();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_came_out_longer_than_reckoned_is_paid_for() {
        let bandwidth = Bandwidth::new(limit(1_000_000));
        let start = Instant::now();
        for _ in 0..40 {
            bandwidth.take(125_000).await;
            bandwidth.correct(125_000, 250_000);
        }
        bandwidth.take(1).await;
        let took = start.elapsed().as_secs_f64();
        assert!((9.4..10.5).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_compression_saved_may_be_used() {
        let bandwidth = Bandwidth::new(limit(1_000_000));
        let start = Instant::now();
        for _ in 0..40 {
            bandwidth.take(250_000).await;
            bandwidth.correct(250_000, 125_000);
        }
        let took = start.elapsed().as_secs_f64();
        assert!((4.0..5.5).contains(&took), "{took}");
    }
}
