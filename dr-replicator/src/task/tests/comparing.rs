//! A site that is brought over by comparing trees.

use super::{Pair, until};
use crate::fake::{FakeSource, Faults, Random};
use crate::source::ChangeSource;
use crate::status::SiteState;
use restfs_lib::model::ObjectId;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_commit_during_a_comparison_of_digests_is_no_difference() {
    let pair = Pair::new(1);
    let mut random = Random::new(1);
    let digest_delay = Duration::from_millis(100);
    pair.site.set_faults(Faults {
        digest_delay,
        ..Faults::default()
    });
    let handle = pair.start();
    for n in 0..100 {
        pair.source.create(&format!("f{n}"), 1, &mut random);
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
    }
    pair.assert_equal(&handle).await;
    assert!(pair.site.calls("digest") > 1);
    assert_eq!(handle.status().borrow().mismatches, 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_made_while_groups_are_listed_is_not_lost() {
    let pair = Pair::new(1);
    let mut random = Random::new(1);
    let handle = pair.start();
    // Ids are 300 apart, so the last one is not in the group of the root, where the rename below makes a difference.
    let ids: Vec<_> = (0..9)
        .map(|n| pair.source.create(&format!("f{n}"), 4, &mut random))
        .collect();
    let id = ids[8];
    pair.assert_equal(&handle).await;
    handle.stop().await;
    pair.source.rename("f0", "renamed");
    pair.source.trim(pair.source.head_now());
    pair.site.set_faults(Faults {
        delay: Duration::from_secs(1),
        ..Faults::default()
    });
    let handle = pair.start();
    until(&handle, |s| s.state == SiteState::Gap).await;
    // The source's groups are listed by now, the site's not yet.
    tokio::time::sleep(Duration::from_millis(500)).await;
    pair.source.scribble(id, 1, &mut random);
    pair.source.settle();
    pair.assert_equal(&handle).await;
    assert_eq!(handle.status().borrow().mismatches, 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_cut_before_the_sites_position_leads_to_a_comparison() {
    let pair = Pair::new(3);
    let mut random = Random::new(3);
    let handle = pair.start();
    pair.source.create("kept", 9, &mut random);
    pair.source.create("gone", 9, &mut random);
    pair.assert_equal(&handle).await;
    pair.site.set_faults(Faults {
        down: true,
        ..Faults::default()
    });
    pair.source.rename("gone", "kept");
    pair.source.create("new", 5, &mut random);
    until(&handle, |s| s.state == SiteState::Unreachable).await;
    pair.source.trim(pair.source.head_now());
    pair.site.set_faults(Faults::default());
    let gap = until(&handle, |s| s.state == SiteState::Gap).await;
    assert_eq!(
        gap.cursor, 0,
        "nothing is known to be in step while the trees are compared"
    );
    pair.assert_equal(&handle).await;
    assert_eq!(pair.site.durable_position().unwrap().epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_site_without_the_whole_log_is_filled_by_comparison() {
    let pair = Pair::new(3);
    let mut random = Random::new(3);
    for n in 0..50 {
        pair.source.create(&format!("f{n}"), 5, &mut random);
    }
    pair.source.trim(pair.source.head_now() - 1);
    let handle = pair.start_with(|o| o.max_ops = 10);
    until(&handle, |s| s.state == SiteState::InitialSync).await;
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_another_source_filled_becomes_this_ones_tree() {
    let pair = Pair::new(3);
    let mut random = Random::new(3);
    for n in 0..9 {
        pair.source.create(&format!("f{n}"), 5, &mut random);
    }
    let other = FakeSource::default();
    for _ in 0..300 {
        other.act(&mut random);
    }
    other.settle();
    pair.site.change(|model| *model = other.model());
    let handle = pair.start();
    // Blocks of the other tree that the same place has here need not be sent, but they must be there.
    let sent_before = pair.site.is_whole();
    assert!(!sent_before);
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_site_whose_tree_was_damaged_is_found_out_and_repaired() {
    let pair = Pair::new(3);
    let mut random = Random::new(3);
    let handle = pair.start();
    for n in 0..9 {
        pair.source.create(&format!("f{n}"), 9, &mut random);
    }
    pair.assert_equal(&handle).await;
    let damaged = pair.source.model();
    pair.site.change(|model| {
        // A block too many behind a segment's end, a block too few, an entry of its own.
        let (first, last) = (
            *model.segments.keys().next().unwrap(),
            *model.segments.keys().last().unwrap(),
        );
        let block = *model.segments[&first].values().next().unwrap();
        model.segments.get_mut(&last).unwrap().clear();
        model
            .entries
            .insert((ObjectId::ROOT, b"stray".to_vec()), ObjectId(99));
        let (id, segment) = first;
        model.segments.entry((id, segment)).or_default().insert(3, block);
    });
    let bad = until(&handle, |s| s.last_verified.is_some_and(|v| !v.equal)).await;
    assert_ne!(bad.state, SiteState::InSync);
    pair.assert_equal(&handle).await;
    assert_eq!(pair.site.model(), damaged);
}

#[tokio::test(start_paused = true)]
async fn a_difference_that_never_goes_away_does_not_keep_both_ends_busy() {
    let pair = Pair::new(3);
    pair.source.create("a", 9, &mut Random::new(3));
    pair.site.set_faults(Faults {
        wrong_digest: true,
        ..Faults::default()
    });
    let handle = pair.start();
    let failed = until(&handle, |s| s.state == SiteState::Failed).await;
    assert!(failed.last_error.unwrap().contains("tree differs"));
    let before = pair.site.calls("rows");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(pair.site.calls("rows") - before <= 21, "one try in half a minute");
    // Changes are shipped all the same, without waiting for the next try.
    let start = tokio::time::Instant::now();
    pair.source.create("b", 9, &mut Random::new(3));
    handle.wait_committed(pair.source.head_now()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    pair.site.set_faults(Faults::default());
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_site_put_back_from_a_backup_gets_what_it_lost() {
    let pair = Pair::new(3);
    let mut random = Random::new(3);
    let handle = pair.start();
    pair.source.create("a", 9, &mut random);
    pair.assert_equal(&handle).await;
    let restore = pair.site.backup();
    pair.source.create("b", 9, &mut random);
    pair.assert_equal(&handle).await;
    handle.stop().await;
    restore(&pair.site);
    let handle = pair.start();
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_catalog_put_back_from_a_backup_does_not_go_on_as_if_nothing_had_happened() {
    for changes_after in [0, 40] {
        let pair = Pair::new(3);
        let mut random = Random::new(3);
        let handle = pair.start();
        pair.source.create("a", 9, &mut random);
        pair.assert_equal(&handle).await;
        let restore = pair.source.backup();
        for n in 0..5 {
            pair.source.create(&format!("lost{n}"), 1, &mut random);
        }
        pair.assert_equal(&handle).await;
        handle.stop().await;
        restore(&pair.source);
        // With enough of them its head is beyond the site's position again.
        for n in 0..changes_after {
            pair.source.create(&format!("other{n}"), 1, &mut random);
        }
        let handle = pair.start();
        pair.assert_equal(&handle).await;
        handle.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_comparison_is_begun_anew_after_a_restart() {
    let pair = Pair::new(3);
    let mut random = Random::new(3);
    for n in 0..50 {
        pair.source.create(&format!("f{n}"), 5, &mut random);
    }
    pair.source.trim(pair.source.head_now());
    let handle = pair.start_with(|o| o.max_ops = 5);
    until(&handle, |s| s.resync.is_some_and(|r| r.ops > 20)).await;
    drop(handle);
    let there = pair.site.durable_position().unwrap();
    assert_eq!(
        (there.epoch, there.sequence),
        (1, pair.source.head_now()),
        "the site cannot tell"
    );
    assert_ne!(pair.site.model(), pair.source.model());
    let handle = pair.start();
    pair.assert_equal(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn the_source_never_sees_a_cursor_of_a_comparison_that_did_not_end() {
    let pair = Pair::new(5);
    let mut random = Random::new(5);
    for n in 0..30 {
        pair.source.create(&format!("f{n}"), 3, &mut random);
    }
    pair.source.trim(pair.source.head_now());
    let handle = pair.start_with(|o| o.max_ops = 3);
    until(&handle, |s| s.resync.is_some_and(|r| r.ops > 5)).await;
    let cursor = pair.source.load_cursor("site").await.unwrap().unwrap();
    assert_eq!(cursor.epoch, 0);
    assert_eq!(
        cursor.sequence,
        pair.source.head_now(),
        "the log is kept from the comparison's base"
    );
    pair.assert_equal(&handle).await;
}
