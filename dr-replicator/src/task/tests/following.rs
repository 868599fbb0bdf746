//! A site that follows the change log.

use super::{LONG, Pair, until};
use crate::fake::{Faults, Random};
use crate::source::Cursor;
use crate::status::SiteState;
use restfs_lib::model::ObjectId;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_new_site_is_filled_from_the_log_and_then_follows() {
    let pair = Pair::new(1);
    let mut random = Random::new(1);
    pair.source.create("a", 9, &mut random);
    let handle = pair.start();
    pair.assert_equal(&handle).await;
    pair.source.create("b", 3, &mut random);
    pair.source.rename("a", "c");
    pair.assert_equal(&handle).await;
    assert_eq!(
        pair.site.durable_position().unwrap().epoch,
        1,
        "no resync was needed"
    );
    assert_eq!(
        pair.source.cursor("site"),
        Some(Cursor {
            epoch: 1,
            sequence: pair.source.head_now()
        })
    );
    handle.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_prepared_or_committed_twice_when_nothing_goes_wrong() {
    let pair = Pair::new(1);
    let mut random = Random::new(1);
    pair.site.set_faults(Faults {
        delay: Duration::from_millis(5),
        ..Faults::default()
    });
    let handle = pair.start_with(|o| o.max_ops = 4);
    for n in 0..40 {
        pair.source.create(&format!("f{n}"), 2, &mut random);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    pair.assert_equal(&handle).await;
    let calls = ["repeated", "out of order", "missing blocks"].map(|what| pair.site.calls(what));
    assert_eq!(calls, [0, 0, 0]);
    assert_eq!(pair.site.calls("commit"), pair.site.commits().len() as u64);
    assert_eq!(pair.site.calls("position"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_changed_in_one_file_is_still_sent_for_the_other() {
    let pair = Pair::new(1);
    let handle = pair.start_with(|o| o.paused = true);
    // The same content in all of them: one block, read once.
    let same = || Random::new(4);
    let first = pair.source.create("a", 1, &mut same());
    let second = pair.source.create("b", 1, &mut same());
    pair.source.create("c", 1, &mut same());
    pair.source.scribble(first, 0, &mut Random::new(5));
    pair.source.scribble(second, 0, &mut Random::new(6));
    handle.resume();
    pair.assert_equal(&handle).await;
    assert_eq!(pair.site.calls("missing blocks"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_shipped_without_a_fixed_delay() {
    let pair = Pair::new(1);
    let handle = pair.start();
    pair.assert_equal(&handle).await;
    let before = tokio::time::Instant::now();
    pair.source.create("a", 1, &mut Random::new(1));
    handle.wait_committed(pair.source.head_now()).await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(pair.site.calls("missing"), 0, "a small change does not ask first");
}

#[tokio::test(start_paused = true)]
async fn blocks_that_the_site_has_are_not_sent_again() {
    let pair = Pair::new(1);
    let mut random = Random::new(1);
    let handle = pair.start();
    let id = pair.source.create("a", 400, &mut random);
    pair.assert_equal(&handle).await;
    // 40 different contents.
    assert!(pair.site.put_bytes() <= 40 * 4096, "{}", pair.site.put_bytes());
    let sent = pair.site.put_bytes();
    for block in 0..100 {
        pair.source.scribble(id, block, &mut random);
    }
    pair.source.settle();
    pair.assert_equal(&handle).await;
    // Sixteen at most in each commit that was too small to ask.
    assert!(pair.site.calls("missing") > 0);
    assert!(pair.site.put_bytes() - sent <= 100 * 4096);
}

#[tokio::test(start_paused = true)]
async fn a_file_rewritten_all_the_time_converges() {
    let pair = Pair::new(3);
    let mut random = Random::new(3);
    let handle = pair.start();
    let id = pair.source.create("hot", 12, &mut random);
    for _ in 0..300 {
        pair.source.scribble(id, random.below(12), &mut random);
        if random.chance(300) {
            pair.source.settle();
        }
        pair.source.scribble(id, random.below(12), &mut random);
        tokio::time::sleep(Duration::from_millis(random.below(3))).await;
    }
    pair.source.settle();
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn pause_ships_nothing_and_resume_goes_on() {
    let pair = Pair::new(3);
    let handle = pair.start_with(|o| o.paused = true);
    pair.source.create("a", 9, &mut Random::new(1));
    until(&handle, |s| s.state == SiteState::Paused && s.pending.ops > 0).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(pair.site.durable_position(), None);
    let waiting = handle.status().borrow().clone();
    assert!(
        waiting.pending.oldest_ns.is_some(),
        "the lag shows while nothing is shipped"
    );
    handle.resume();
    pair.assert_equal(&handle).await;
    handle.pause();
    until(&handle, |s| s.state == SiteState::Paused).await;
    pair.source.create("b", 9, &mut Random::new(1));
    handle.resume();
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_and_can_be_changed_while_it_ships() {
    let pair = Pair::new(3);
    // 40 different blocks: 160 KiB at 16 KiB/s.
    let handle = pair.start_with(|o| o.limit = std::num::NonZeroU64::new(16 * 1024));
    pair.assert_equal(&handle).await;
    let before = tokio::time::Instant::now();
    pair.source.create("a", 400, &mut Random::new(1));
    pair.assert_equal(&handle).await;
    let took = before.elapsed().as_secs_f64();
    let least = (pair.site.put_bytes() as f64 - 64.0 * 1024.0) / (16.0 * 1024.0) - 1.0;
    assert!(
        took >= least && took > 1.0,
        "{took} s for {} bytes",
        pair.site.put_bytes()
    );
    handle.set_limit(None);
    until(&handle, |s| s.limit.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_few_bytes_of_a_block_are_shipped_as_a_few_bytes_to_every_site() {
    let pair = Pair::new(1);
    let behind = Pair::with(pair.source.clone(), 2, "behind");
    let mut random = Random::new(1);
    let id = pair.source.create("a", 12, &mut random);
    let handle = pair.start();
    let handle_behind = behind.start();
    pair.assert_equal(&handle).await;
    behind.assert_equal(&handle_behind).await;
    handle_behind.pause();
    let sent = [pair.site.put_bytes(), behind.site.put_bytes()];
    for _ in 0..60 {
        let block = random.below(12);
        pair.source.edit(id, block, &mut random);
        pair.source.settle();
        pair.assert_equal(&handle).await;
    }
    // One commit for all of it: each block from what this site has.
    handle_behind.resume();
    behind.assert_equal(&handle_behind).await;
    for (pair, sent) in [&pair, &behind].into_iter().zip(sent) {
        let (made, wanted) = (pair.site.calls("made"), pair.site.calls("wanted"));
        let bytes = pair.site.put_bytes() - sent;
        assert!(made > 3 && wanted < made, "{made} made, {wanted} wanted whole");
        assert!(
            bytes < wanted * 4600 + made * 500,
            "{bytes} bytes for {made} and {wanted}"
        );
    }
    assert_eq!(behind.site.calls("made") + behind.site.calls("wanted"), 12);
    assert!(
        pair.site.calls("wanted") > 0,
        "differences that are wrong are part of this"
    );
}

#[tokio::test(start_paused = true)]
async fn a_block_that_has_changed_since_is_still_told_by_the_one_that_the_site_has() {
    let pair = Pair::new(1);
    let mut random = Random::new(1);
    let id = pair.source.create("a", 1, &mut random);
    let handle = pair.start();
    pair.assert_equal(&handle).await;
    handle.pause();
    until(&handle, |s| s.state == SiteState::Paused).await;
    pair.source.edit(id, 0, &mut random);
    pair.source.settle();
    // The catalog does not know of this one when the block is read.
    pair.source.scribble(id, 0, &mut random);
    handle.resume();
    pair.assert_equal(&handle).await;
    assert_eq!(
        pair.site.calls("wanted"),
        1,
        "it came with the base that it has, and once"
    );
}

/// A site that is in step, and of which no more is known than that it follows.
async fn in_step(pair: &Pair) -> crate::handle::SiteHandle {
    let handle = pair.start_with(|o| (o.max_ops, o.max_bytes) = (1, 1));
    pair.source.create("a", 9, &mut Random::new(1));
    pair.source.mark();
    until(&handle, |s| s.cursor == pair.source.head_now()).await;
    handle
}

#[tokio::test(start_paused = true)]
async fn of_a_source_that_has_exact_states_a_site_gets_no_others() {
    let pair = Pair::new(1);
    let handle = in_step(&pair).await;
    let (first, commits) = (pair.source.head_now(), pair.site.commits().len());
    pair.source.create("b", 30, &mut Random::new(2));
    pair.source.settle();
    tokio::time::sleep(LONG).await;
    assert_eq!(pair.site.commits().len(), commits, "no state is exact yet");
    pair.source.mark();
    let last = pair.source.head_now();
    until(&handle, |s| s.cursor == last).await;
    assert_eq!(pair.site.commits()[commits..], [(1, first + 1, last)]);
    assert!(pair.site.is_exact() && last > first + 10);
    pair.assert_equal(&handle).await;
}

/// The content of the newest exact state is gone before the site has asked for it.
fn outdate(pair: &Pair, handle: &crate::handle::SiteHandle) -> ObjectId {
    handle.pause();
    let file = pair.source.create("b", 2, &mut Random::new(2));
    pair.source.settle();
    pair.source.mark();
    pair.source.scribble(file, 0, &mut Random::new(3));
    handle.resume();
    file
}

#[tokio::test(start_paused = true)]
async fn an_exact_state_whose_content_is_gone_is_passed_over_for_the_next_one() {
    let pair = Pair::new(1);
    let handle = in_step(&pair).await;
    let (first, commits) = (pair.source.head_now(), pair.site.commits().len());
    outdate(&pair, &handle);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pair.site.commits().len(), commits);
    pair.source.mark();
    let last = pair.source.head_now();
    until(&handle, |s| s.cursor == last).await;
    assert_eq!(pair.site.commits()[commits..], [(1, first + 1, last)]);
    assert!(pair.site.is_exact());
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_site_is_not_kept_from_changes_for_ever_because_their_content_is_gone() {
    let pair = Pair::new(1);
    let handle = in_step(&pair).await;
    let commits = pair.site.commits().len();
    let file = outdate(&pair, &handle);
    tokio::time::sleep(Duration::from_secs(4)).await;
    pair.source.scribble(file, 0, &mut Random::new(5));
    pair.source.mark();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(pair.source.unfollowed(), 0);
    pair.source.scribble(file, 0, &mut Random::new(6));
    pair.source.mark();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pair.source.unfollowed(), 1, "the source is told");
    assert_eq!(pair.site.commits().len(), commits);
    let last = pair.source.head_now();
    until(&handle, |s| s.cursor == last).await;
    pair.assert_equal(&handle).await;
}
