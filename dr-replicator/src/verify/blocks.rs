//! Blocks as the site has them on disk.

use super::{LISTED, PAUSE, ROUNDS, Step, Tell, Verifier, VerifyError};
use crate::resync::pager::Pager;
use crate::site::{Block, BlockFault, MAX_PUT_BYTES};
use crate::source::ReadBlock;
use bytes::Bytes;
use restfs_lib::content::verify;
use restfs_lib::model::{BlockKey, BlockRef, ObjectId, Op, RowKey};
use std::collections::{HashMap, HashSet};

/// What the site is asked to read in one go.
const BATCH_BLOCKS: usize = 1024;
const BATCH_BYTES: u64 = 16 << 20;
/// Segments whose blocks are read from the catalog at once.
const SEGMENTS: usize = 64;
/// Keys remembered so that a block of many files is read once: 8 MiB. Beyond, some are read again.
const REMEMBERED: usize = 256 * 1024;

/// A block that the site's tree names and that is no good there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockDifference {
    pub object: ObjectId,
    pub segment: u64,
    pub position: u32,
    pub block: BlockRef,
    pub fault: BlockFault,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockFindings {
    /// The first [`LISTED`].
    pub differences: Vec<BlockDifference>,
    pub unlisted: u64,
    /// On their way to the site all the time.
    pub in_change: u64,
    /// Read by the site.
    pub blocks: u64,
    pub bytes: u64,
}

impl BlockFindings {
    pub fn count(&self) -> u64 {
        self.differences.len() as u64 + self.unlisted
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    object: ObjectId,
    segment: u64,
    position: u32,
    block: BlockRef,
}

/// A place whose block was no good, and the change that the site has to have for that to count.
type Suspect = (Place, u64);

#[derive(Default)]
struct Look {
    batch: Vec<Place>,
    bytes: u64,
    remembered: HashSet<BlockKey>,
    bad: HashSet<BlockKey>,
    suspects: Vec<Suspect>,
    findings: BlockFindings,
}

impl Verifier {
    /// Has the site read every block that its tree names.
    pub async fn blocks(&self, tell: Tell<'_>) -> Result<BlockFindings, VerifyError> {
        self.position().await?;
        let mut look = Look::default();
        let mut groups = Pager::groups_of_source(&*self.source);
        while groups.peek().await?.is_some() {
            let Some((group, _)) = groups.pop() else { break };
            let mut rows = Pager::rows_of_source(&*self.source, group);
            let mut segments = Vec::new();
            while rows.peek().await?.is_some() {
                let row = rows.pop().map(|(row, _)| row);
                segments.extend(row.filter(|row| matches!(row, RowKey::Segment { .. })));
                if segments.len() >= SEGMENTS {
                    self.look_at(std::mem::take(&mut segments), &mut look, tell)
                        .await?;
                }
            }
            self.look_at(segments, &mut look, tell).await?;
        }
        self.check(&mut look, tell).await?;
        self.recheck(look).await
    }

    /// Those of the blocks that are no good still.
    pub async fn blocks_again(&self, found: &[BlockDifference]) -> Result<BlockFindings, VerifyError> {
        let mut look = Look::default();
        let head = *self.source.head().borrow();
        look.suspects = found
            .iter()
            .map(|d| {
                let place = Place {
                    object: d.object,
                    segment: d.segment,
                    position: d.position,
                    block: d.block,
                };
                (place, head)
            })
            .collect();
        self.recheck(look).await
    }

    /// Sends blocks that are no good at the site, as far as the share still has their content; how many. They are durable
    /// there with the next commit.
    pub async fn mend_blocks(&self, found: &[BlockDifference]) -> Result<u64, VerifyError> {
        let (mut sent, mut done) = (0, HashSet::new());
        let (mut message, mut bytes) = (Vec::new(), 0);
        for place in found {
            let key = place.block.key;
            if done.contains(&key) {
                continue;
            }
            let read = self
                .source
                .read_block(place.object, place.segment, place.position, place.block)
                .await?;
            let Some(content) = content_of(read, &key) else {
                continue;
            };
            done.insert(key);
            if bytes + content.len() > MAX_PUT_BYTES && !message.is_empty() {
                self.put(std::mem::take(&mut message), bytes).await?;
                bytes = 0;
            }
            bytes += content.len();
            sent += 1;
            message.push(Block::from((key, content)));
        }
        if !message.is_empty() {
            self.put(message, bytes).await?;
        }
        Ok(sent)
    }

    async fn put(&self, blocks: Vec<Block>, bytes: usize) -> Result<(), VerifyError> {
        self.pace.take(bytes as u64).await;
        self.site.put_blocks(blocks).await?;
        Ok(())
    }

    async fn look_at(
        &self,
        segments: Vec<RowKey>,
        look: &mut Look,
        tell: Tell<'_>,
    ) -> Result<(), VerifyError> {
        for op in self.source.ops_for(segments).await? {
            for place in places(&op) {
                let key = place.block.key;
                if look.bad.contains(&key) {
                    self.suspect(place, look);
                    continue;
                }
                if look.remembered.len() >= REMEMBERED {
                    look.remembered.clear();
                }
                if !look.remembered.insert(key) {
                    // One of the batch that is not read yet is listed at its first place alone.
                    continue;
                }
                look.bytes += u64::from(place.block.length);
                look.batch.push(place);
                if look.batch.len() >= BATCH_BLOCKS || look.bytes >= BATCH_BYTES {
                    self.check(look, tell).await?;
                }
            }
        }
        Ok(())
    }

    async fn check(&self, look: &mut Look, tell: Tell<'_>) -> Result<(), VerifyError> {
        let batch = std::mem::take(&mut look.batch);
        let bytes = std::mem::take(&mut look.bytes);
        if batch.is_empty() {
            return Ok(());
        }
        self.pace.take(bytes).await;
        let keys: Vec<_> = batch.iter().map(|place| place.block.key).collect();
        let faults = self.insist(|| self.site.check_blocks(&keys)).await?;
        look.findings.blocks += keys.len() as u64;
        look.findings.bytes += bytes;
        let bad: HashSet<_> = faults.into_iter().map(|(key, _)| key).collect();
        for place in batch.into_iter().filter(|place| bad.contains(&place.block.key)) {
            self.suspect(place, look);
        }
        look.bad.extend(bad);
        tell(Step::Blocks {
            blocks: look.findings.blocks,
            bytes: look.findings.bytes,
        });
        Ok(())
    }

    fn suspect(&self, place: Place, look: &mut Look) {
        if look.suspects.len() < LISTED {
            let head = *self.source.head().borrow();
            look.suspects.push((place, head));
        } else {
            look.findings.unlisted += 1;
        }
    }

    /// A block may have been on its way: what is bad when the site has committed the change that names it is.
    async fn recheck(&self, look: Look) -> Result<BlockFindings, VerifyError> {
        let (mut findings, mut suspects) = (look.findings, look.suspects);
        for _ in 0..ROUNDS {
            if suspects.is_empty() {
                return Ok(findings);
            }
            let at = self.position().await?.sequence;
            let (ready, waiting): (Vec<_>, Vec<_>) = suspects.into_iter().partition(|(_, head)| *head <= at);
            self.judge(&ready, &mut findings).await?;
            suspects = waiting;
            if !suspects.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        findings.in_change += suspects.len() as u64;
        Ok(findings)
    }

    async fn judge(&self, suspects: &[Suspect], findings: &mut BlockFindings) -> Result<(), VerifyError> {
        for some in suspects.chunks(BATCH_BLOCKS) {
            let keys: Vec<_> = some.iter().map(|(place, _)| place.block.key).collect();
            let faults = self.insist(|| self.site.check_blocks(&keys)).await?;
            let faults: HashMap<BlockKey, BlockFault> = faults.into_iter().collect();
            for (place, _) in some {
                if let Some(fault) = faults.get(&place.block.key)
                    && self.is_named(place).await?
                {
                    findings.differences.push(BlockDifference {
                        object: place.object,
                        segment: place.segment,
                        position: place.position,
                        block: place.block,
                        fault: *fault,
                    });
                }
            }
        }
        Ok(())
    }

    /// The file still has the block there.
    async fn is_named(&self, place: &Place) -> Result<bool, VerifyError> {
        let row = RowKey::Segment {
            id: place.object,
            segment: place.segment,
        };
        let ops = self.source.ops_for(vec![row]).await?;
        let mut named = ops.iter().flat_map(places);
        Ok(named.any(|p| p.position == place.position && p.block == place.block))
    }
}

fn places(op: &Op) -> impl Iterator<Item = Place> {
    let (object, segment, blocks) = match op {
        Op::PutBlocks { id, segment, blocks } => (*id, *segment, &blocks[..]),
        _ => (ObjectId::ROOT, 0, &[][..]),
    };
    blocks.iter().filter_map(move |(position, block)| {
        Some(Place {
            object,
            segment,
            position: *position,
            block: (*block)?,
        })
    })
}

/// Whatever the file has become, the key's content alone is of use.
fn content_of(read: ReadBlock, key: &BlockKey) -> Option<Bytes> {
    match read {
        ReadBlock::Same(content) | ReadBlock::Newer(_, content) => Some(content).filter(|c| verify(key, c)),
        ReadBlock::Hole | ReadBlock::Gone => None,
    }
}
