//! A site that is full, fenced, slow, damaged or dead.

use super::{LONG, Pair, until};
use crate::fake::{FakeSource, Faults, Random};
use crate::handle::WaitError;
use crate::status::SiteState;
use restfs_lib::model::{ObjectId, Op};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn commits_that_the_site_made_but_could_not_answer_are_not_made_twice() {
    let pair = Pair::new(7);
    pair.site.set_faults(Faults {
        lost_answers: 300,
        disconnects: 100,
        ..Faults::default()
    });
    let mut random = Random::new(7);
    let handle = pair.start_with(|o| o.max_ops = 7);
    for n in 0..60 {
        pair.source.create(&format!("f{n}"), 2, &mut random);
        tokio::time::sleep(Duration::from_millis(random.below(50))).await;
    }
    pair.assert_equal(&handle).await;
    assert_eq!(
        pair.site.durable_position().unwrap().epoch,
        1,
        "no resync was needed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_site_resumes_by_itself_and_loses_nothing() {
    let pair = Pair::new(3);
    pair.site.set_faults(Faults {
        full: true,
        ..Faults::default()
    });
    let handle = pair.start();
    pair.source.create("a", 9, &mut Random::new(1));
    until(&handle, |s| s.state == SiteState::Full).await;
    // Asking for the position works, and does not make it look better.
    let mut status = handle.status();
    let other = tokio::time::timeout(LONG, status.wait_for(|s| s.state != SiteState::Full)).await;
    assert!(other.is_err(), "{other:?}");
    pair.site.set_faults(Faults::default());
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_shows_its_reason_and_ends_when_the_reason_is_gone() {
    let pair = Pair::new(3);
    pair.site.set_faults(Faults {
        refused: Some("token revoked".into()),
        ..Faults::default()
    });
    let handle = pair.start();
    let failed = until(&handle, |s| s.state == SiteState::Failed).await;
    assert_eq!(failed.last_error.as_deref(), Some("token revoked"));
    pair.site.set_faults(Faults::default());
    pair.assert_equal(&handle).await;
    assert_eq!(handle.status().borrow().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_source_writes_no_more_until_somebody_has_let_it_and_says_what_to_do() {
    let pair = Pair::new(3);
    let handle = pair.start();
    pair.assert_equal(&handle).await;
    pair.site.set_faults(Faults {
        fenced: Some(5),
        ..Faults::default()
    });
    pair.source.create("late", 1, &mut Random::new(1));
    let fenced = until(&handle, |s| s.state == SiteState::Fenced).await;
    assert!(fenced.last_error.unwrap().contains("another server took over"));
    let calls = pair.site.calls("commit");
    let waited = handle.wait_committed(pair.source.head_now()).await;
    assert!(matches!(waited, Err(WaitError::Fenced(_))));
    tokio::time::sleep(LONG).await;
    assert_eq!(pair.site.calls("commit"), calls);
    // It asks once more, and is not let in.
    handle.resume();
    tokio::time::sleep(LONG).await;
    assert_eq!(pair.site.calls("commit"), calls + 1);
    assert_eq!(handle.status().borrow().state, SiteState::Fenced);
    pair.site.set_faults(Faults::default());
    handle.resume();
    pair.assert_equal(&handle).await;
    handle.stop().await;
}

#[tokio::test(start_paused = true)]
async fn blocks_that_the_site_lost_are_sent_again_with_the_commit() {
    let pair = Pair::new(3);
    pair.site.set_faults(Faults {
        lost_blocks: 300,
        ..Faults::default()
    });
    let mut random = Random::new(9);
    let handle = pair.start();
    for n in 0..40 {
        pair.source.create(&format!("f{n}"), 9, &mut random);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Blocks lost after they were committed are the site's to find.
    let head = pair.source.head_now();
    until(&handle, |s| s.cursor >= head).await;
    assert_eq!(pair.source.model(), pair.site.model());
}

#[tokio::test(start_paused = true)]
async fn a_site_that_always_misses_blocks_is_not_fed_for_ever() {
    let pair = Pair::new(3);
    pair.site.set_faults(Faults {
        lost_blocks: 1000,
        ..Faults::default()
    });
    pair.source.create("a", 9, &mut Random::new(1));
    let handle = pair.start();
    let failed = until(&handle, |s| s.state == SiteState::Failed).await;
    assert!(failed.last_error.unwrap().contains("missing blocks"));
    assert!(pair.site.calls("put_blocks") < 20);
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_the_commit_under_way_but_not_for_ever() {
    let pair = Pair::new(3);
    let handle = pair.start();
    pair.assert_equal(&handle).await;
    for (delay, committed) in [(Duration::from_secs(1), true), (Duration::from_secs(60), false)] {
        let handle = pair.start();
        pair.assert_equal(&handle).await;
        pair.site.set_faults(Faults {
            delay,
            ..Faults::default()
        });
        // No blocks, so that the commit is the first call.
        pair.source.log([Op::PutAttribute {
            id: ObjectId::ROOT,
            name: b"user.a".to_vec(),
            value: vec![1],
        }]);
        until(&handle, |s| s.pending.oldest_ns.is_some()).await;
        let status = handle.status();
        let before = tokio::time::Instant::now();
        handle.stop().await;
        assert!(before.elapsed() <= Duration::from_secs(6));
        assert_eq!(status.borrow().cursor == pair.source.head_now(), committed);
        assert_eq!(status.borrow().state, SiteState::Stopped);
        pair.site.set_faults(Faults::default());
    }
    drop(handle);
}

#[tokio::test(start_paused = true)]
async fn a_dead_or_slow_site_does_not_delay_the_other() {
    let source = Arc::new(FakeSource::default());
    let good = Pair::with(source.clone(), 1, "good");
    let dead = Pair::with(source.clone(), 2, "dead");
    let slow = Pair::with(source.clone(), 3, "slow");
    dead.site.set_faults(Faults {
        down: true,
        ..Faults::default()
    });
    slow.site.set_faults(Faults {
        delay: Duration::from_secs(40),
        ..Faults::default()
    });
    let (good_handle, dead_handle, slow_handle) = (good.start(), dead.start(), slow.start());
    let mut random = Random::new(1);
    good.assert_equal(&good_handle).await;
    let before = tokio::time::Instant::now();
    for n in 0..30 {
        source.create(&format!("f{n}"), 3, &mut random);
        good_handle.wait_committed(source.head_now()).await.unwrap();
    }
    assert_eq!(
        before.elapsed(),
        Duration::ZERO,
        "paused time does not move while the good site works"
    );
    until(&dead_handle, |s| {
        s.state == SiteState::Unreachable && s.pending.oldest_ns.is_some()
    })
    .await;
    dead.site.set_faults(Faults::default());
    dead.assert_equal(&dead_handle).await;
    slow.assert_equal(&slow_handle).await;
}
