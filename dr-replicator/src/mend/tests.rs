use super::*;
use crate::fake::{FakeSite, FakeSource, Random};
use crate::handle::spawn;
use crate::options::SiteOptions;
use crate::site::BlockFault;

/// A share with two sites in memory.
struct Rig {
    source: Arc<FakeSource>,
    sites: [Arc<FakeSite>; 2],
    handles: Vec<SiteHandle>,
    mender: Mender,
}

impl Rig {
    async fn new(seed: u64) -> Self {
        let source = Arc::new(FakeSource::default());
        let mut random = Random::new(seed);
        for _ in 0..200 {
            source.act(&mut random);
        }
        source.settle();
        let sites = [seed, seed + 1].map(|seed| Arc::new(FakeSite::new(seed)));
        let start = |(site, name): (&Arc<FakeSite>, &str)| {
            source.watch_site(name, site.clone());
            spawn(source.clone(), site.clone(), SiteOptions::new(name))
        };
        let handles: Vec<SiteHandle> = sites.iter().zip(["one", "two"]).map(start).collect();
        let peer = |(handle, site): (&SiteHandle, &Arc<FakeSite>)| Peer::new(handle, site.clone());
        let mender = Mender::new(handles.iter().zip(&sites).map(peer).collect());
        let rig = Self {
            source,
            sites,
            handles,
            mender,
        };
        for handle in &rig.handles {
            rig.reach(handle, SiteState::InSync).await;
        }
        rig
    }

    async fn reach(&self, handle: &SiteHandle, state: SiteState) {
        let mut status = handle.status();
        let reached = status.wait_for(|status| status.state == state);
        tokio::time::timeout(Duration::from_secs(3600), reached)
            .await
            .unwrap()
            .unwrap();
    }

    fn keys(&self) -> Vec<BlockKey> {
        let model = self.source.model();
        let blocks = model.segments.values().flat_map(|segment| segment.values());
        let keys: HashSet<BlockKey> = blocks.map(|block| block.key).collect();
        keys.into_iter().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_site_lost_comes_from_another_and_the_other_way_round() {
    let mut rig = Rig::new(1).await;
    let keys = rig.keys();
    assert!(keys.len() > 20, "{}", keys.len());
    let (front, back) = keys.split_at(keys.len() / 2);
    rig.sites[0].spoil(front, BlockFault::Missing);
    rig.sites[1].spoil(back, BlockFault::Damaged);
    assert_eq!(rig.mender.round().await, keys.len() as u64);
    for site in &rig.sites {
        assert!(site.is_whole());
        assert_eq!(site.check_blocks(&keys).await.unwrap(), []);
    }
    assert_eq!(rig.mender.round().await, 0);
}

#[tokio::test(start_paused = true)]
async fn blocks_that_nobody_has_do_not_keep_others_from_being_brought() {
    let mut rig = Rig::new(2).await;
    let keys = rig.keys();
    // Before all others in their order.
    let nowhere: Vec<BlockKey> = (0..ROUND as u32 + 5)
        .map(|number| {
            let mut key = [0; 32];
            key[28..].copy_from_slice(&number.to_be_bytes());
            BlockKey(key)
        })
        .collect();
    rig.sites[0].spoil(&nowhere, BlockFault::Missing);
    rig.sites[0].spoil(&keys, BlockFault::Missing);
    assert_eq!(rig.mender.round().await, 0);
    assert_eq!(rig.mender.round().await, keys.len() as u64);
    assert!(rig.sites[0].is_whole());
    // From the beginning again.
    assert_eq!(rig.mender.round().await, 0);
    rig.sites[0].spoil(&keys[..1], BlockFault::Missing);
    assert_eq!(rig.mender.round().await + rig.mender.round().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_site_is_left_alone_and_a_broken_one_disturbs_nobody() {
    let mut rig = Rig::new(3).await;
    let keys = rig.keys();
    rig.sites[0].spoil(&keys, BlockFault::Missing);
    for handle in &rig.handles {
        handle.pause();
        rig.reach(handle, SiteState::Paused).await;
        let asked = rig
            .sites
            .each_ref()
            .map(|site| (site.calls("wanted"), site.calls("get_block")));
        assert_eq!(rig.mender.round().await, 0);
        let now = rig
            .sites
            .each_ref()
            .map(|site| (site.calls("wanted"), site.calls("get_block")));
        let both = rig
            .handles
            .iter()
            .all(|h| h.status().borrow().state == SiteState::Paused);
        assert_eq!(now == asked, both);
    }
    rig.handles.iter().for_each(SiteHandle::resume);
    for handle in &rig.handles {
        rig.reach(handle, SiteState::InSync).await;
    }
    // The giver has some that are no good: those are not passed on.
    rig.sites[1].spoil(&keys[..3], BlockFault::Damaged);
    assert_eq!(rig.mender.round().await, keys.len() as u64 - 3);
}
