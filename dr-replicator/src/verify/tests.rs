//! A verifier beside a task, between a source and a site in memory. Time is tokio's paused clock.

use super::*;
use crate::fake::{FakeSite, FakeSource, Faults, Random};
use crate::handle::{SiteHandle, spawn};
use crate::options::SiteOptions;
use crate::site::BlockFault;
use crate::status::{SiteState, SiteStatus};
use restfs_lib::model::{BlockKey, ObjectId, RowKey};
use std::collections::{BTreeSet, HashMap};

const QUIET: Tell<'static> = &|_| ();

struct Pair {
    source: Arc<FakeSource>,
    site: Arc<FakeSite>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let source = Arc::new(FakeSource::default());
        let site = Arc::new(FakeSite::new(seed));
        source.watch_site("site", site.clone());
        Self { source, site }
    }

    fn start(&self) -> SiteHandle {
        spawn(self.source.clone(), self.site.clone(), SiteOptions::new("site"))
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(self.source.clone(), self.site.clone(), "site", None)
    }

    /// Some files, all at the site, and nothing that ships or compares.
    async fn filled(seed: u64) -> (Self, Vec<ObjectId>) {
        let (pair, mut random) = (Self::new(seed), Random::new(seed));
        let ids = (0..6)
            .map(|n| pair.source.create(&format!("f{n}"), 9, &mut random))
            .collect();
        let handle = pair.start();
        until(&handle, |s| s.state == SiteState::InSync).await;
        handle.stop().await;
        (pair, ids)
    }

    fn keys_of(&self, id: ObjectId) -> BTreeSet<BlockKey> {
        let model = self.site.model();
        let segments = model.segments.iter().filter(|((object, _), _)| *object == id);
        segments
            .flat_map(|(_, blocks)| blocks.values().map(|block| block.key))
            .collect()
    }
}

async fn until(handle: &SiteHandle, what: impl FnMut(&SiteStatus) -> bool) {
    let mut status = handle.status();
    let waited = tokio::time::timeout(Duration::from_secs(3600), status.wait_for(what)).await;
    waited.expect("in time").expect("the task goes on");
}

fn faults(findings: &TreeFindings) -> Vec<(RowKey, RowFault)> {
    findings
        .differences
        .iter()
        .map(|d| (d.row.clone(), d.fault))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_tree_altered_behind_its_back_is_told_row_by_row_and_brought_back_when_asked() {
    let (pair, ids) = Pair::filled(1).await;
    let clean = pair.verifier().trees(Depth::Digests, QUIET).await.unwrap();
    assert_eq!(clean.count() + clean.in_change, 0);
    let (gone, extra) = (b"f1".to_vec(), b"never".to_vec());
    pair.site.change(|model| {
        model.entries.remove(&(ObjectId::ROOT, gone.clone()));
        model.entries.insert((ObjectId::ROOT, extra.clone()), ids[2]);
        model.objects.get_mut(&ids[3]).unwrap().mode = 0o7;
    });
    let entry = |name| RowKey::Entry {
        dir: ObjectId::ROOT,
        name,
    };
    for depth in [Depth::Digests, Depth::Rows] {
        let found = pair.verifier().trees(depth, QUIET).await.unwrap();
        assert_eq!(
            faults(&found).into_iter().collect::<HashMap<_, _>>(),
            HashMap::from([
                (entry(gone.clone()), RowFault::MissingAtSite),
                (entry(extra.clone()), RowFault::OnlyAtSite),
                (RowKey::Object { id: ids[3] }, RowFault::Differs),
            ])
        );
    }
    let handle = pair.start();
    let number = handle.compare();
    until(&handle, |s| s.compared == number && s.state == SiteState::InSync).await;
    assert_eq!(pair.source.model(), pair.site.model());
}

#[tokio::test(start_paused = true)]
async fn rows_that_changed_past_their_digest_are_found_by_the_rows_alone() {
    let (pair, ids) = Pair::filled(2).await;
    pair.site.set_faults(Faults {
        kept_digests: Some(pair.site.model().groups()),
        ..Faults::default()
    });
    pair.site.change(|model| {
        model.objects.get_mut(&ids[3]).unwrap().mode = 0o7;
    });
    let found = pair.verifier().trees(Depth::Digests, QUIET).await.unwrap();
    assert_eq!(found.count(), 0, "the digests are as they were");
    let found = pair.verifier().trees(Depth::Rows, QUIET).await.unwrap();
    assert_eq!(
        faults(&found),
        [(RowKey::Object { id: ids[3] }, RowFault::Differs)]
    );
    assert_eq!(found.wrong_digests.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_bad_block_is_told_and_healed_from_the_share() {
    let (pair, ids) = Pair::filled(3).await;
    let clean = pair.verifier().blocks(QUIET).await.unwrap();
    assert_eq!(clean.count() + clean.in_change, 0);
    let keys = pair.keys_of(ids[0]);
    let (gone, bad): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.0[0] % 2 == 0);
    pair.site.spoil(&gone, BlockFault::Missing);
    pair.site.spoil(&bad, BlockFault::Damaged);
    let verifier = pair.verifier();
    let found = verifier.blocks(QUIET).await.unwrap();
    let told: HashMap<_, _> = found.differences.iter().map(|d| (d.block.key, d.fault)).collect();
    let expected = gone
        .iter()
        .map(|key| (*key, BlockFault::Missing))
        .chain(bad.iter().map(|key| (*key, BlockFault::Damaged)));
    assert_eq!(told, expected.collect());
    assert_eq!(
        verifier.mend_blocks(&found.differences).await.unwrap(),
        keys.len() as u64
    );
    assert_eq!(
        verifier.blocks_again(&found.differences).await.unwrap().count(),
        0
    );
    assert_eq!(verifier.blocks(QUIET).await.unwrap().count(), 0);
}

/// Both ends change all the time and calls take theirs, so nearly every look sees rows that differ.
#[tokio::test(start_paused = true)]
async fn what_clients_do_meanwhile_is_never_a_difference() {
    for seed in 0..20 {
        let (pair, mut random) = (Pair::new(seed), Random::new(seed));
        for n in 0..6 {
            pair.source.create(&format!("f{n}"), 9, &mut random);
        }
        pair.site.set_faults(Faults {
            delay: Duration::from_millis(20),
            ..Faults::default()
        });
        let handle = pair.start();
        until(&handle, |s| s.state == SiteState::InSync).await;
        let source = pair.source.clone();
        let clients = tokio::spawn(async move {
            loop {
                source.act(&mut random);
                tokio::time::sleep(Duration::from_millis(random.below(30))).await;
            }
        });
        let verifier = pair.verifier();
        for depth in [Depth::Digests, Depth::Rows] {
            let found = verifier.trees(depth, QUIET).await.unwrap();
            assert_eq!((faults(&found), found.unlisted), (vec![], 0), "seed {seed}");
        }
        let found = verifier.blocks(QUIET).await.unwrap();
        assert_eq!(
            (found.differences.clone(), found.unlisted),
            (vec![], 0),
            "seed {seed}"
        );
        clients.abort();
        handle.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_are_on_their_way_are_not_missing() {
    let (pair, _) = Pair::filled(6).await;
    // Nothing arrives there for as long as the verify looks.
    pair.site.set_faults(Faults {
        full: true,
        ..Faults::default()
    });
    let handle = pair.start();
    pair.source.create("new", 9, &mut Random::new(77));
    let found = pair.verifier().blocks(QUIET).await.unwrap();
    assert_eq!(found.count(), 0);
    assert!(found.in_change > 0, "nothing was on its way");
    handle.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_site_that_has_nothing_yet_is_no_site_where_all_is_missing() {
    let pair = Pair::new(4);
    pair.source.create("f", 1, &mut Random::new(4));
    let outcome = pair.verifier().trees(Depth::Digests, QUIET).await;
    assert!(matches!(outcome, Err(VerifyError::NotInStep(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_does_not_end_a_look_of_hours() {
    let (pair, _) = Pair::filled(5).await;
    pair.site.set_faults(Faults {
        disconnects: 700,
        ..Faults::default()
    });
    let found = pair.verifier().blocks(QUIET).await.unwrap();
    assert_eq!(found.count(), 0);
}
