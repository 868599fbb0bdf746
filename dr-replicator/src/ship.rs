//! Brings the blocks that ops name to a site.

use crate::bandwidth::Bandwidth;
use crate::plan::{BlockPlace, Blocks, Differences, Found, correct};
use crate::site::{Block, Commit, Committed, MAX_PUT_BYTES, Site, SiteError};
use crate::source::{ChangeSource, ReadBlock};
use crate::trouble::Trouble;
use futures_util::stream::{FuturesUnordered, StreamExt};
use restfs_lib::content::Difference;
use restfs_lib::model::Op;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So few blocks are sent without asking which are missing: it saves a round trip, which is most of a small change's
/// time to the site.
const DIRECT_BLOCKS: usize = 16;
const DIRECT_BYTES: u64 = 256 * 1024;
/// Plain bytes in messages under way; the blocks being read and one message being filled come on top.
const IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;
/// What a block takes on the wire beside the bytes that differ, about.
const AROUND_DIFFERENCE: u64 = 256;
/// A site that goes on naming missing blocks after this many times of sending them is broken.
const COMMIT_ATTEMPTS: usize = 3;

/// Whether to ask the site first which blocks it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    WhenItPays,
    Always,
}

#[derive(Clone)]
pub(crate) struct Shipper {
    pub(crate) source: Arc<dyn ChangeSource>,
    pub(crate) site: Arc<dyn Site>,
    pub(crate) bandwidth: Arc<Bandwidth>,
    pub(crate) concurrency: usize,
    /// Plain bytes sent.
    pub(crate) shipped: Arc<AtomicU64>,
    /// How often ops were given newer content than their changes name.
    pub(crate) corrected: Arc<AtomicU64>,
    /// Change before which no state is exact at the site, since it may have newer content. 0: not known yet.
    pub(crate) trusted: Arc<AtomicU64>,
}

impl Shipper {
    /// When it returns the site has every block that `ops` name. Ops whose blocks have changed since are corrected.
    /// Returns whether none was.
    pub(crate) async fn ship(&self, ops: &mut Vec<Op>, differences: &Differences) -> Result<bool, Trouble> {
        self.ship_asking(ops, differences, Ask::WhenItPays).await
    }

    /// How often ops were corrected. What the site gets then is newer than the state that its commit leads to, and than
    /// some that follow.
    pub(crate) fn corrections(&self) -> u64 {
        self.corrected.load(Ordering::SeqCst)
    }

    /// What was shipped before this task began may be newer than its changes, too.
    pub(crate) async fn trusted_from(&self) -> Result<u64, Trouble> {
        if self.trusted.load(Ordering::SeqCst) == 0 {
            self.distrust().await?;
        }
        Ok(self.trusted.load(Ordering::SeqCst))
    }

    /// The site is given what is newer than the changes that it has.
    pub(crate) async fn distrust(&self) -> Result<(), Trouble> {
        let newest = self.source.newest().await?;
        self.trusted.fetch_max(newest, Ordering::SeqCst);
        Ok(())
    }

    /// Commits; when blocks are missing at the site after all, sends them and tries again. `None`: one of these has changed
    /// since, and the commit was to be exact or not to be, as `or_not` says.
    pub(crate) async fn commit(
        &self,
        commit: &mut Commit,
        or_not: bool,
    ) -> Result<Option<Committed>, Trouble> {
        for _ in 0..COMMIT_ATTEMPTS {
            match self.site.commit(commit).await {
                Err(SiteError::MissingBlocks(keys)) => {
                    tracing::warn!(
                        blocks = keys.len(),
                        "the site misses blocks of a commit, sending them again"
                    );
                    let whole = Differences::new();
                    commit.exact &= self.ship_asking(&mut commit.ops, &whole, Ask::Always).await?;
                    if or_not && !commit.exact {
                        return Ok(None);
                    }
                }
                other => return Ok(Some(other?)),
            }
        }
        Err(Trouble::Stuck(format!(
            "the site refuses changes {} to {} for missing blocks, though they were sent {COMMIT_ATTEMPTS} times; \
             look at the site's log",
            commit.first, commit.last
        )))
    }

    async fn ship_asking(
        &self,
        ops: &mut Vec<Op>,
        differences: &Differences,
        ask: Ask,
    ) -> Result<bool, Trouble> {
        let mut blocks = Blocks::of(ops);
        let few = blocks.keys().len() <= DIRECT_BLOCKS && blocks.bytes() <= DIRECT_BYTES;
        if !blocks.keys().is_empty() && (ask == Ask::Always || !few) {
            let missing: BTreeSet<_> = self.site.missing(blocks.keys()).await?.into_iter().collect();
            blocks.retain(&missing);
        }
        let found = self.send(&blocks, differences).await?;
        if found.is_empty() {
            return Ok(true);
        }
        correct(ops, &found);
        self.corrected.fetch_add(1, Ordering::SeqCst);
        self.distrust().await?;
        Ok(false)
    }

    /// Reads and sends, several at a time. Returns the places that were not what their op says.
    async fn send(
        &self,
        blocks: &Blocks,
        differences: &Differences,
    ) -> Result<Vec<(BlockPlace, Found)>, Trouble> {
        let concurrency = self.concurrency.clamp(1, 64);
        let most = (IN_FLIGHT_BYTES / concurrency).min(MAX_PUT_BYTES) as u64;
        let most_on_wire = self.bandwidth.message_bytes(most);
        let mut waiting = VecDeque::from(blocks.firsts());
        let mut reads = FuturesUnordered::new();
        let mut sends = FuturesUnordered::new();
        let mut message = Message::default();
        let mut corrections = Vec::new();
        loop {
            while reads.len() < concurrency
                && sends.len() < concurrency
                && let Some(place) = waiting.pop_front()
            {
                reads.push(self.read(place));
            }
            if reads.is_empty() && waiting.is_empty() && !message.blocks.is_empty() {
                sends.push(self.put(message.take()));
            }
            tokio::select! {
                Some(sent) = sends.next() => sent?,
                Some(read) = reads.next() => {
                    let (place, read) = read?;
                    if !matches!(read, ReadBlock::Same(_)) {
                        waiting.extend(blocks.after(&place));
                    }
                    let (block, found) = sort(&place, read, differences);
                    corrections.extend(found.map(|found| (place, found)));
                    if let Some(block) = block {
                        if !message.has_room(&block, most, most_on_wire) {
                            sends.push(self.put(message.take()));
                        }
                        message.add(block);
                    }
                }
                else => return Ok(corrections),
            }
        }
    }

    async fn read(&self, place: BlockPlace) -> Result<(BlockPlace, ReadBlock), Trouble> {
        let read = self
            .source
            .read_block(place.object, place.segment, place.position, place.block)
            .await?;
        Ok((place, read))
    }

    async fn put(&self, message: Message) -> Result<(), Trouble> {
        self.bandwidth.take(message.on_wire).await;
        let on_wire = self.site.put_blocks(message.blocks).await?;
        self.bandwidth.correct(message.on_wire, on_wire);
        self.shipped.fetch_add(message.bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// What is to be sent, and what is to be corrected.
fn sort(place: &BlockPlace, read: ReadBlock, differences: &Differences) -> (Option<Block>, Option<Found>) {
    let since = differences.get(&place.block.key);
    let block = |key, content, since| Some(Block { key, content, since });
    match read {
        ReadBlock::Same(content) => (block(place.block.key, content, since.cloned()), None),
        // In what it differs from what the site has is for the site to say.
        ReadBlock::Newer(newer, content) => {
            let since = since.map(|since| Difference::new(since.base, Vec::new()));
            (block(newer.key, content, since), Some(Found::Newer(newer)))
        }
        ReadBlock::Hole => (None, Some(Found::Hole)),
        ReadBlock::Gone => (None, Some(Found::Gone)),
    }
}

#[derive(Debug, Default)]
struct Message {
    blocks: Vec<Block>,
    /// Plain.
    bytes: u64,
    /// What is reckoned: how far it can be compressed, and what the site has, shows only when it is sent.
    on_wire: u64,
}

impl Message {
    /// An empty one has room for any block.
    fn has_room(&self, block: &Block, most: u64, most_on_wire: u64) -> bool {
        self.blocks.is_empty()
            || (self.bytes + block.content.len() as u64 <= most
                && self.on_wire + reckoned(block) <= most_on_wire)
    }

    fn add(&mut self, block: Block) {
        self.bytes += block.content.len() as u64;
        self.on_wire += reckoned(&block);
        self.blocks.push(block);
    }

    fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

fn reckoned(block: &Block) -> u64 {
    let whole = block.content.len() as u64;
    // Where no bytes are said to differ, the site will say which: that may be all.
    let told = block.since.as_ref().filter(|since| since.bytes() > 0);
    let difference = told.map(|since| since.bytes() + AROUND_DIFFERENCE);
    difference.map_or(whole, |difference| difference.min(whole))
}
