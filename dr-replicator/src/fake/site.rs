//! A site in memory.

use super::{Model, Random};
use crate::site::{Block, BlockFault, Commit, Committed, Position, Recounted, Site, SiteError};
use async_trait::async_trait;
use bytes::Bytes;
use restfs_lib::content::{cut, patch, verify};
use restfs_lib::model::{BlockKey, Digest, Op, RowKey};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong, and how often in 1,000 calls.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The call is not carried out.
    pub disconnects: u64,
    /// The call is carried out; the answer is lost.
    pub lost_answers: u64,
    /// Stored blocks are gone before a commit.
    pub lost_blocks: u64,
    /// No call gets through.
    pub down: bool,
    /// Blocks and commits are refused.
    pub full: bool,
    /// Why everything is refused.
    pub refused: Option<String>,
    /// Epoch that must not write any more, and those before it.
    pub fenced: Option<u64>,
    /// Time that every call takes.
    pub delay: Duration,
    /// `digest` answers something else than the tree's.
    pub wrong_digest: bool,
    /// What is kept of the groups, whatever their rows are.
    pub kept_digests: Option<BTreeMap<u64, Digest>>,
    /// Time that the answer to `digest` takes to be made.
    pub digest_delay: Duration,
}

pub struct FakeSite {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    model: Model,
    position: Option<Position>,
    blocks: HashMap<BlockKey, Bytes>,
    damaged: HashSet<BlockKey>,
    /// Those of them that the site knows of, and those that are gone.
    wanted: BTreeSet<BlockKey>,
    /// First and last change of every commit that was applied, with its epoch; `first` is 0 for parts of a resync.
    commits: Vec<(u64, u64, u64)>,
    exact: bool,
    /// Of the comparison under way, the last part.
    part: Option<u64>,
    calls: HashMap<&'static str, u64>,
    put_bytes: u64,
    faults: Faults,
    random: Random,
}

impl FakeSite {
    pub fn new(seed: u64) -> Self {
        Self {
            inner: Mutex::new(Inner {
                model: Model::default(),
                position: None,
                blocks: HashMap::new(),
                damaged: HashSet::new(),
                wanted: BTreeSet::new(),
                commits: Vec::new(),
                exact: false,
                part: None,
                calls: HashMap::new(),
                put_bytes: 0,
                faults: Faults::default(),
                random: Random::new(seed),
            }),
        }
    }

    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    pub fn model(&self) -> Model {
        self.lock().model.clone()
    }

    /// Damages or fills the tree behind the source's back.
    pub fn change(&self, change: impl FnOnce(&mut Model)) {
        change(&mut self.lock().model);
    }

    /// The stored copies of these blocks go bad, or are gone.
    pub fn spoil(&self, keys: &[BlockKey], fault: BlockFault) {
        let mut inner = self.lock();
        for key in keys {
            inner.wanted.insert(*key);
            match fault {
                BlockFault::Missing => {
                    inner.blocks.remove(key);
                }
                BlockFault::Damaged => {
                    inner.damaged.insert(*key);
                }
            }
        }
    }

    pub fn durable_position(&self) -> Option<Position> {
        self.lock().position
    }

    /// Whether the newest commit says so of its state.
    pub fn is_exact(&self) -> bool {
        self.lock().exact
    }

    pub fn commits(&self) -> Vec<(u64, u64, u64)> {
        self.lock().commits.clone()
    }

    /// Plain bytes taken in: of blocks, and of what differed of those that came as a difference.
    pub fn put_bytes(&self) -> u64 {
        self.lock().put_bytes
    }

    /// Calls of a method; commits that were answered as `repeated`, `out of order` or `missing blocks`; blocks that were
    /// `made` of a difference, and those that were `wanted` whole after all.
    pub fn calls(&self, method: &str) -> u64 {
        self.lock().calls.get(method).copied().unwrap_or(0)
    }

    /// Every block that the tree names is stored.
    pub fn is_whole(&self) -> bool {
        let inner = self.lock();
        inner
            .model
            .segments
            .values()
            .flat_map(|s| s.values())
            .all(|b| inner.blocks.contains_key(&b.key))
    }

    /// Everything as it is now, to be put back later as from a backup.
    pub fn backup(&self) -> impl FnOnce(&Self) + use<> {
        let inner = self.lock();
        let (model, position, commits) = (inner.model.clone(), inner.position, inner.commits.clone());
        let part = inner.part;
        move |site: &Self| {
            let mut inner = site.lock();
            inner.model = model;
            inner.position = position;
            inner.commits = commits;
            inner.part = part;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T>(
        &self,
        method: &'static str,
        act: impl FnOnce(&mut Inner) -> Result<T, SiteError>,
    ) -> Result<T, SiteError> {
        let delay = self.lock().faults.delay;
        tokio::task::yield_now().await;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut inner = self.lock();
        inner.count(method);
        let faults = inner.faults.clone();
        if faults.down || inner.random.chance(faults.disconnects) {
            return Err(SiteError::Unreachable("injected: no connection".into()));
        }
        if let Some(why) = faults.refused {
            return Err(SiteError::Refused(why));
        }
        let result = act(&mut inner);
        if inner.random.chance(faults.lost_answers) {
            return Err(SiteError::Unreachable("injected: the answer is lost".into()));
        }
        result
    }
}

impl Inner {
    fn count(&mut self, what: &'static str) {
        *self.calls.entry(what).or_default() += 1;
    }

    /// Bytes that the block came as.
    fn take(&mut self, block: &Block) -> u64 {
        let whole = block.content.len() as u64;
        let Some(since) = &block.since else {
            return whole;
        };
        let (ranges, pieces) = cut(&block.content, since.ranges());
        let base = self.blocks.get(&since.base);
        let made = base.and_then(|base| patch(base, block.content.len(), &ranges, &pieces));
        if made.is_some_and(|made| made == block.content) {
            self.count("made");
            return pieces.len() as u64;
        }
        if self.blocks.contains_key(&block.key) {
            return pieces.len() as u64;
        }
        self.count("wanted");
        whole + pieces.len() as u64
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, SiteError> {
        if let Some(epoch) = self.faults.fenced.filter(|fenced| commit.epoch <= *fenced) {
            return Err(SiteError::Fenced { epoch });
        }
        if self.faults.full {
            return Err(SiteError::Full("injected".into()));
        }
        let at = self.position.unwrap_or_default();
        if commit.resync {
            let begins = commit.epoch > at.epoch && commit.first == 1;
            let goes_on = commit.epoch == at.epoch
                && commit.last == at.sequence
                && self.part.is_some_and(|part| commit.first == part + 1);
            if !begins && !goes_on {
                self.count("out of order");
                return Err(SiteError::OutOfOrder {
                    epoch: at.epoch,
                    sequence: at.sequence,
                });
            }
        } else {
            let known = self.position.is_none() || commit.epoch == at.epoch;
            if known && commit.last <= at.sequence {
                self.count("repeated");
                return Ok(Committed { point: at.point });
            }
            if !known || commit.first != at.sequence + 1 {
                self.count("out of order");
                return Err(SiteError::OutOfOrder {
                    epoch: at.epoch,
                    sequence: at.sequence,
                });
            }
        }
        self.check_blocks(commit)?;
        self.model.apply_all(&commit.ops);
        let first = if commit.resync { 0 } else { commit.first };
        self.commits.push((commit.epoch, first, commit.last));
        self.exact = commit.exact;
        self.part = commit.resync.then_some(commit.first);
        let point = at.point + 1;
        self.position = Some(Position {
            epoch: commit.epoch,
            sequence: commit.last,
            point,
        });
        Ok(Committed { point })
    }

    fn check_blocks(&mut self, commit: &Commit) -> Result<(), SiteError> {
        let named: HashSet<_> = commit
            .ops
            .iter()
            .filter_map(|op| match op {
                Op::PutBlocks { blocks, .. } => Some(blocks),
                _ => None,
            })
            .flatten()
            .filter_map(|(_, block)| Some((*block)?.key))
            .collect();
        let lost = self.faults.lost_blocks;
        if let Some(key) = named.iter().next()
            && self.random.chance(lost)
        {
            self.blocks.remove(key);
        }
        let missing: Vec<_> = named
            .into_iter()
            .filter(|key| !self.blocks.contains_key(key))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.count("missing blocks");
        Err(SiteError::MissingBlocks(missing))
    }
}

#[async_trait]
impl Site for FakeSite {
    async fn position(&self, _source: &str) -> Result<Option<Position>, SiteError> {
        self.call("position", |inner| Ok(inner.position)).await
    }

    async fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>, SiteError> {
        self.call("missing", |inner| {
            Ok(keys
                .iter()
                .filter(|key| !inner.blocks.contains_key(key))
                .copied()
                .collect())
        })
        .await
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<u64, SiteError> {
        self.call("put_blocks", |inner| {
            if inner.faults.full {
                return Err(SiteError::Full("injected".into()));
            }
            let mut bytes = 0;
            for block in blocks {
                if !verify(&block.key, &block.content) {
                    return Err(SiteError::Refused(format!(
                        "block {:?} is not its content",
                        block.key
                    )));
                }
                bytes += inner.take(&block);
                inner.damaged.remove(&block.key);
                inner.wanted.remove(&block.key);
                inner.blocks.insert(block.key, block.content);
            }
            inner.put_bytes += bytes;
            Ok(bytes)
        })
        .await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, SiteError> {
        self.call("commit", |inner| inner.commit(commit)).await
    }

    async fn digest(&self) -> Result<Digest, SiteError> {
        let delay = self.lock().faults.digest_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.call("digest", |inner| {
            let digest = inner.model.digest();
            let wrong = inner.faults.wrong_digest;
            Ok(if wrong { digest.plus(digest) } else { digest })
        })
        .await
    }

    async fn groups(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, Digest)>, SiteError> {
        self.call("groups", |inner| {
            let kept = inner
                .faults
                .kept_digests
                .clone()
                .unwrap_or_else(|| inner.model.groups());
            let groups = kept.into_iter();
            Ok(groups
                .filter(|(group, _)| after.is_none_or(|after| *group > after))
                .take(limit)
                .collect())
        })
        .await
    }

    async fn rows(
        &self,
        group: u64,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, SiteError> {
        self.call("rows", |inner| {
            let rows = inner.model.group_rows(group).into_iter();
            Ok(rows
                .filter(|(row, _)| after.as_ref().is_none_or(|after| row > after))
                .take(limit)
                .collect())
        })
        .await
    }

    async fn check_blocks(&self, keys: &[BlockKey]) -> Result<Vec<(BlockKey, BlockFault)>, SiteError> {
        self.call("check_blocks", |inner| {
            let fault = |key: &BlockKey| match inner.blocks.contains_key(key) {
                false => Some((*key, BlockFault::Missing)),
                true => inner.damaged.contains(key).then_some((*key, BlockFault::Damaged)),
            };
            Ok(keys.iter().filter_map(fault).collect())
        })
        .await
    }

    async fn wanted(&self, after: Option<BlockKey>, limit: usize) -> Result<Vec<BlockKey>, SiteError> {
        self.call("wanted", |inner| {
            let keys = inner.wanted.iter().copied();
            Ok(keys
                .filter(|key| after.is_none_or(|after| *key > after))
                .take(limit)
                .collect())
        })
        .await
    }

    async fn get_block(&self, key: BlockKey) -> Result<Bytes, SiteError> {
        self.call("get_block", |inner| {
            let good = inner.blocks.get(&key).filter(|_| !inner.damaged.contains(&key));
            good.cloned()
                .ok_or_else(|| SiteError::Refused("not here, or no good".into()))
        })
        .await
    }

    async fn recount(&self, after: Option<u64>) -> Result<(Vec<Recounted>, bool), SiteError> {
        self.call("recount", |inner| {
            let kept = inner.faults.kept_digests.clone();
            let groups = inner.model.groups().into_iter();
            let count = |(group, counted)| Recounted {
                group,
                kept: kept
                    .as_ref()
                    .and_then(|kept| kept.get(&group).copied())
                    .unwrap_or(counted),
                counted,
            };
            Ok((
                groups
                    .filter(|(group, _)| after.is_none_or(|after| *group > after))
                    .map(count)
                    .collect(),
                false,
            ))
        })
        .await
    }

    fn wire_bytes(&self) -> u64 {
        self.lock().put_bytes
    }
}
