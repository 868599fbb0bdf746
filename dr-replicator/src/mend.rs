//! Brings blocks that a site has lost from the share's other sites: content that only earlier points need, which the share does not
//! have any more. Beside the tasks that ship to the sites, and never in their way: a few blocks at a time, within the
//! site's limit.

use crate::bandwidth::Bandwidth;
use crate::handle::SiteHandle;
use crate::site::{Block, Site, SiteError};
use crate::status::{SiteState, SiteStatus};
use bytes::Bytes;
use futures_util::future::join_all;
use restfs_lib::model::BlockKey;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two rounds of which the first found nothing to bring, and one that did.
const PAUSE: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_secs(1);
/// Blocks of a site that one round looks for.
const ROUND: usize = 1024;
/// Blocks in memory at once, of 4 MiB at most.
const AT_ONCE: usize = 4;

/// A site that may lack blocks, and may have those that others lack.
pub struct Peer {
    name: String,
    site: Arc<dyn Site>,
    status: watch::Receiver<SiteStatus>,
    bandwidth: Arc<Bandwidth>,
    /// Where the next round goes on.
    after: Option<BlockKey>,
}

/// All sites of one share.
pub struct Mender {
    peers: Vec<Peer>,
}

impl Peer {
    /// `site` is what the task of `handle` ships to.
    pub fn new(handle: &SiteHandle, site: Arc<dyn Site>) -> Self {
        Self {
            name: handle.name().to_owned(),
            site,
            status: handle.status(),
            bandwidth: handle.bandwidth(),
            after: None,
        }
    }

    fn is_at_work(&self) -> bool {
        !matches!(
            self.status.borrow().state,
            SiteState::Paused | SiteState::Stopped | SiteState::Fenced | SiteState::Unreachable
        )
    }

    /// Of these blocks, those that the site has and gives. An error is as good as having none.
    async fn fetch(&self, keys: &[BlockKey]) -> Vec<Block> {
        let get = |key: BlockKey| async move {
            let found = self.site.get_block(key).await;
            found.map(|content: Bytes| Block::from((key, content)))
        };
        let got = join_all(keys.iter().map(|key| get(*key))).await;
        let good = |found: Result<Block, SiteError>| {
            found
                .inspect_err(|error| tracing::debug!(site = self.name, %error, "a block for another site"))
                .ok()
        };
        got.into_iter().filter_map(good).collect()
    }
}

impl Mender {
    pub fn new(peers: Vec<Peer>) -> Self {
        Self { peers }
    }

    /// Until it is dropped.
    pub async fn run(mut self) {
        loop {
            let pause = if self.round().await > 0 { AGAIN } else { PAUSE };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks once what each site lacks, and brings what another one has. Blocks brought.
    pub async fn round(&mut self) -> u64 {
        let mut brought = 0;
        for to in 0..self.peers.len() {
            match self.mend(to).await {
                Ok(blocks) => brought += blocks,
                Err(error) => {
                    tracing::debug!(site = self.peers[to].name, %error, "blocks that it lacks");
                }
            }
        }
        brought
    }

    async fn mend(&mut self, to: usize) -> Result<u64, SiteError> {
        let (peer, mut brought) = (&self.peers[to], 0);
        if !peer.is_at_work() {
            return Ok(0);
        }
        let mut left = peer.site.wanted(peer.after, ROUND).await?;
        // Those that nobody has must not keep others from being looked for.
        let after = left.last().copied().filter(|_| left.len() >= ROUND);
        for (from, giver) in self.peers.iter().enumerate() {
            if from == to || left.is_empty() || !giver.is_at_work() {
                continue;
            }
            let Ok(lacks) = giver.site.missing(&left).await else {
                continue;
            };
            let lacks: HashSet<BlockKey> = lacks.into_iter().collect();
            let has: Vec<BlockKey> = left.iter().copied().filter(|key| !lacks.contains(key)).collect();
            let blocks = pass_on(giver, peer, &has).await?;
            left.retain(|key| !blocks.contains(key));
            if !blocks.is_empty() {
                tracing::info!(
                    site = peer.name,
                    from = giver.name,
                    blocks = blocks.len(),
                    "blocks that the site had lost were brought from another one"
                );
            }
            brought += blocks.len() as u64;
        }
        self.peers[to].after = after;
        Ok(brought)
    }
}

/// The blocks that arrived.
async fn pass_on(from: &Peer, to: &Peer, keys: &[BlockKey]) -> Result<HashSet<BlockKey>, SiteError> {
    let mut brought = HashSet::new();
    for some in keys.chunks(AT_ONCE) {
        for block in from.fetch(some).await {
            let (key, bytes) = (block.key, block.content.len() as u64);
            to.bandwidth.take(bytes).await;
            let on_wire = to.site.put_blocks(vec![block]).await?;
            to.bandwidth.correct(bytes, on_wire);
            brought.insert(key);
        }
    }
    Ok(brought)
}

#[cfg(test)]
mod tests;
