//! Everything at once.

use super::{Pair, until};
use crate::fake::{FakeSource, Faults, Random};
use crate::status::SiteState;
use std::sync::Arc;
use std::time::Duration;

/// Everything at once: random changes, faults, restarts of this end, a log that is cut, two sites.
async fn survive(seed: u64) {
    let source = Arc::new(FakeSource::default());
    let pairs = [
        Pair::with(source.clone(), seed, "one"),
        Pair::with(source.clone(), seed + 1000, "two"),
    ];
    let mut random = Random::new(seed);
    let mut handles: Vec<_> = pairs
        .iter()
        .map(|pair| pair.start_with(|o| o.max_ops = 16))
        .collect();
    for _ in 0..400 {
        source.act(&mut random);
        if random.chance(300) {
            tokio::time::sleep(Duration::from_millis(random.below(200))).await;
        }
        if random.chance(20) {
            let at = random.below(2) as usize;
            let max_ops = 1 + random.below(60) as usize;
            let stopped = std::mem::replace(&mut handles[at], pairs[at].start_with(|o| o.paused = true));
            assert_eq!(stopped.status().borrow().mismatches, 0, "seed {seed}");
            // As a crash: whatever is under way is dropped.
            drop(stopped);
            tokio::task::yield_now().await;
            handles[at] = pairs[at].start_with(|o| o.max_ops = max_ops);
        }
        if random.chance(10) {
            source.trim(random.below(source.head_now() + 1));
        }
        if random.chance(50) {
            let faults = Faults {
                disconnects: random.below(200),
                lost_answers: random.below(200),
                lost_blocks: random.below(50),
                down: random.chance(200),
                full: random.chance(100),
                delay: Duration::from_millis(random.below(20)),
                ..Faults::default()
            };
            pairs[random.below(2) as usize].site.set_faults(faults);
        }
    }
    source.settle();
    for (pair, handle) in pairs.iter().zip(&handles) {
        pair.site.set_faults(Faults::default());
        let head = source.head_now();
        let status = until(handle, |s| s.state == SiteState::InSync && s.cursor >= head).await;
        assert_eq!(status.mismatches, 0, "seed {seed}: the trees got out of step");
        assert_eq!(source.model(), pair.site.model(), "seed {seed}");
        assert_eq!(source.violations(), Vec::<String>::new(), "seed {seed}");
        pair.assert_applied_once();
    }
}

#[tokio::test(start_paused = true)]
async fn both_sites_end_up_equal_whatever_happens() {
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let first: u64 = std::env::var("SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    for seed in first..first + seeds {
        println!("seed {seed}: replay with SEED={seed} SEEDS=1");
        survive(seed).await;
    }
}
