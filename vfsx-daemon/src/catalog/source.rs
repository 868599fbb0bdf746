//! The catalog as the replicator sees it.

use super::applier::{BUCKET, Before, BlockAnswer, Request};
use super::reader::{Context, read_block, read_kept};
use super::shared::Shared;
use super::store::{EndRow, HeadRow, Key, LogRow, OpRow, Prefix, SinceRow, get, page};
use super::{Catalog, CatalogError};
use crate::trouble::Trouble;
use async_trait::async_trait;
use bytes::Bytes;
use dr_replicator::{Batch, BatchLimits, Change, ChangeSource, Cursor, ReadBlock, SourceError};
use restfs_lib::content::Difference;
use restfs_lib::kv::KvRead;
use restfs_lib::model::{BlockRef, Digest, Kind, Layout, ObjectId, Op, RowKey};
use restfs_lib::tree::Tree;
use restfs_lib::wire::limits::MAX_OPS;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a block's file is searched for that is not where the catalog believes it to be: its rename or removal is on
/// its way.
const SEARCH: Duration = Duration::from_secs(10);
const SEARCH_AGAIN: Duration = Duration::from_millis(50);
/// Changes read from the log at once.
const PAGE: usize = 256;
/// No commit takes more to reach an exact state.
const MOST: usize = MAX_OPS;

#[async_trait]
impl ChangeSource for Catalog {
    fn source_id(&self) -> String {
        hex::encode(self.shared().source)
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.shared().head()
    }

    async fn changes(&self, after: u64, limits: BatchLimits) -> Result<Batch, SourceError> {
        self.blocking(move |catalog| changes(catalog.shared(), after, limits))
            .await
    }

    async fn newest(&self) -> Result<u64, SourceError> {
        self.blocking(|catalog| {
            let kv = catalog.shared().kv.read().map_err(CatalogError::from)?;
            let head: HeadRow = get(&*kv, &Key::meta("head"))?.unwrap_or_default();
            Ok(head.change)
        })
        .await
    }

    fn cannot_follow(&self, site: &str) {
        self.shared().cannot_follow(site);
    }

    async fn read_block(
        &self,
        object: ObjectId,
        segment: u64,
        position: u32,
        expected: BlockRef,
    ) -> Result<ReadBlock, SourceError> {
        let shared = self.shared();
        if let Some(content) = shared
            .cache
            .get(&expected.key)
            .or_else(|| shared.kept.get(&expected.key))
        {
            return Ok(ReadBlock::Same(content));
        }
        let place = Place {
            object,
            segment,
            position,
        };
        self.blocking(move |catalog| catalog.find_block(place, expected))
            .await
    }

    async fn load_cursor(&self, site: &str) -> Result<Option<Cursor>, SourceError> {
        Ok(self.shared().cursor(site))
    }

    async fn save_cursor(&self, site: &str, cursor: Cursor) -> Result<(), SourceError> {
        if !self.shared().set_cursor(site, cursor) {
            return Ok(());
        }
        self.blocking(|catalog| Ok(catalog.ask(Request::Cursors)?)).await
    }

    async fn digest(&self) -> Result<(u64, Digest), SourceError> {
        self.blocking(|catalog| {
            let kv = catalog.shared().kv.read().map_err(CatalogError::from)?;
            let head: HeadRow = get(&*kv, &Key::meta("head"))?.unwrap_or_default();
            Ok((
                head.change,
                Tree::head(&*kv, BUCKET).digest().map_err(CatalogError::from)?,
            ))
        })
        .await
    }

    async fn groups(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, Digest)>, SourceError> {
        self.blocking(move |catalog| {
            let kv = catalog.shared().kv.read().map_err(CatalogError::from)?;
            Ok(Tree::head(&*kv, BUCKET)
                .groups(after, limit)
                .map_err(CatalogError::from)?)
        })
        .await
    }

    async fn rows(
        &self,
        group: u64,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, SourceError> {
        self.blocking(move |catalog| {
            let kv = catalog.shared().kv.read().map_err(CatalogError::from)?;
            Ok(Tree::head(&*kv, BUCKET)
                .rows(group, after.as_ref(), limit)
                .map_err(CatalogError::from)?)
        })
        .await
    }

    async fn ops_for(&self, rows: Vec<RowKey>) -> Result<Vec<Op>, SourceError> {
        self.blocking(move |catalog| {
            let kv = catalog.shared().kv.read().map_err(CatalogError::from)?;
            let tree = Tree::head(&*kv, BUCKET);
            let layout = catalog.layout();
            let mut ops = Vec::with_capacity(rows.len());
            for row in rows {
                ops.push(op_for(&tree, row, layout)?);
            }
            Ok(ops)
        })
        .await
    }
}

/// Where a block is.
#[derive(Debug, Clone, Copy)]
struct Place {
    object: ObjectId,
    segment: u64,
    position: u32,
}

impl From<CatalogError> for SourceError {
    fn from(e: CatalogError) -> Self {
        match e.trouble() {
            Trouble { full: true, why } => Self::Full(why),
            Trouble { full: false, why } => Self::Failed(why),
        }
    }
}

impl Catalog {
    /// Runs what reads the store or the share where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let catalog = self.clone();
        match tokio::task::spawn_blocking(move || work(&catalog)).await {
            Ok(result) => result,
            Err(e) => Err(SourceError::Failed(format!(
                "reading the catalog was broken off: {e}"
            ))),
        }
    }

    fn find_block(&self, place: Place, expected: BlockRef) -> Result<ReadBlock, SourceError> {
        let until = Instant::now() + SEARCH;
        loop {
            if let Some(found) = self.try_block(place, expected)? {
                return Ok(found);
            }
            if Instant::now() >= until || self.shared().stopping() {
                self.report_away(place.object);
                let object = place.object;
                return Err(SourceError::Failed(format!(
                    "object {object} is not where the catalog believes it to be, or never the same twice"
                )));
            }
            std::thread::sleep(SEARCH_AGAIN);
        }
    }

    /// `None`: the file was not found, or the catalog changed meanwhile.
    fn try_block(&self, place: Place, expected: BlockRef) -> Result<Option<ReadBlock>, SourceError> {
        let Some((layout, before)) = self.catalog_block(place)? else {
            return Ok(Some(ReadBlock::Gone));
        };
        // Where the catalog says by now that there is a hole, a later change says so, too.
        let Some(now) = before.block else {
            return Ok(Some(ReadBlock::Hole));
        };
        let shared = self.shared();
        if let Some(content) = shared.cache.get(&now.key).or_else(|| shared.kept.get(&now.key)) {
            return Ok(Some(read(expected, now, content)));
        }
        let context = Context {
            kv: &*shared.kv,
            share: &shared.share,
            cache: &shared.cache,
            clones: &shared.clones,
            bytes_read: &shared.bytes_read,
        };
        let index = layout.block_at(place.segment, place.position);
        if let Some(content) = read_kept(&context, place.object, &layout, index, now) {
            return Ok(Some(read(expected, now, content)));
        }
        let found = read_block(&context, place.object, &layout, index, before.size)
            .map_err(|e| SourceError::Failed(format!("object {}: {e}", place.object)))?;
        let Some(found) = found else { return Ok(None) };
        let block = found.as_ref().map(|(block, _)| *block);
        let answer = match block == Some(now) {
            true => BlockAnswer::Taken,
            false => self.enter_block(place.object, index, before, block)?,
        };
        Ok(match answer {
            BlockAnswer::Gone => Some(ReadBlock::Gone),
            BlockAnswer::Changed => None,
            BlockAnswer::Taken => {
                Some(found.map_or(ReadBlock::Hole, |(block, content)| read(expected, block, content)))
            }
        })
    }

    /// What the catalog says of a block: the object's layout and size, and the block there. `None`: the object is gone.
    fn catalog_block(&self, place: Place) -> Result<Option<(Layout, Before)>, CatalogError> {
        let kv = self.shared().kv.read()?;
        let tree = Tree::head(&*kv, BUCKET);
        let Some((found, _)) = tree.object(place.object)? else {
            return Ok(None);
        };
        if found.kind != Kind::File {
            return Ok(None);
        }
        let row = tree.segment(place.object, place.segment)?;
        let before = Before {
            size: found.size,
            block: row.and_then(|(row, _)| row.block_at(place.position)),
        };
        Ok(Some((found.layout, before)))
    }

    /// The names on the way to it are looked at, so that a file that was moved or removed past smbd is found out.
    fn report_away(&self, object: ObjectId) {
        // When the applier is too busy to take it, the next try reports again.
        let _ = self.inner.requests.try_send(Request::Away(object));
    }

    fn enter_block(
        &self,
        object: ObjectId,
        index: u64,
        before: Before,
        found: Option<BlockRef>,
    ) -> Result<BlockAnswer, CatalogError> {
        self.ask(|reply| Request::Block {
            object,
            index,
            before,
            found,
            reply,
        })
    }
}

fn read(expected: BlockRef, found: BlockRef, content: Bytes) -> ReadBlock {
    if found == expected {
        ReadBlock::Same(content)
    } else {
        ReadBlock::Newer(found, content)
    }
}

fn changes(shared: &Shared, after: u64, limits: BatchLimits) -> Result<Batch, SourceError> {
    // Asked before the log is read: what becomes dirty after that is in no change yet.
    let (exact, shippable, exact_after) = {
        let now = shared.now();
        (
            now.exact.then_some(now.status.head),
            now.shippable,
            now.exact_after.filter(|_| limits.whole),
        )
    };
    // Behind this one a batch ends at a mark.
    let is_bound = |sequence| exact_after.is_some_and(|after| sequence > after);
    let kv = shared.kv.read().map_err(CatalogError::from)?;
    let head: HeadRow = get(&*kv, &Key::meta("head"))?.unwrap_or_default();
    if after > head.change || after + 1 < head.oldest {
        return Err(SourceError::TooOld {
            asked: after.saturating_add(1),
            oldest: head.oldest,
        });
    }
    let mut batch = Batch::default();
    if is_bound(after + 1) && shippable < limits.trusted_from {
        return Ok(batch);
    }
    let changes = &mut batch.changes;
    // Changes up to the last transaction that is whole, up to the last that makes the tree exact, and, where only that one
    // counts, as many as the limits allow.
    let (mut whole, mut marked, mut fitting) = (0, 0, None);
    let mut bytes = 0;
    let mut next = after;
    'all: loop {
        let rows = log_page(&*kv, next)?;
        if rows.is_empty() {
            break;
        }
        for (sequence, row) in rows {
            if sequence > shippable {
                break 'all;
            }
            let more = row.op.bytes();
            let full = changes.len() >= limits.max_ops || bytes + more > limits.max_bytes;
            if full && !changes.is_empty() {
                if marked > 0 || whole > 0 || !is_bound(sequence) || changes.len() >= MOST {
                    break 'all;
                }
                fitting.get_or_insert(changes.len());
            }
            bytes += more;
            next = sequence;
            let end = row.end;
            let (journal, time_ns) = (row.journal, row.time_ns);
            changes.push(Change {
                sequence,
                journal,
                time_ns,
                since: differences(&*kv, sequence, &row.op)?,
                op: Op::try_from(row.op)?,
            });
            match end {
                EndRow::Exact if sequence >= limits.trusted_from => marked = changes.len(),
                EndRow::Exact | EndRow::Whole if !is_bound(sequence) => whole = changes.len(),
                EndRow::Exact | EndRow::Whole | EndRow::Within => {}
            }
        }
    }
    let end = match changes.len() {
        _ if marked > 0 => marked,
        _ if whole > 0 => whole,
        all if !is_bound(next) => all,
        // A site that is far behind, and would have to take more than it can.
        MOST.. => fitting.unwrap_or(MOST),
        _ => 0,
    };
    changes.truncate(end);
    let last = changes.last().map_or(after, |c| c.sequence);
    batch.exact = marked > 0 || exact == Some(last);
    batch.whole = marked > 0 && is_bound(last);
    Ok(batch)
}

/// How the blocks that a change puts differ from those before.
fn differences(kv: &dyn KvRead, sequence: u64, op: &OpRow) -> Result<Vec<(u32, Difference)>, CatalogError> {
    match op {
        OpRow::PutBlocks { .. } => Ok(get::<SinceRow>(kv, &Key::Since(sequence))?
            .map(Vec::from)
            .unwrap_or_default()),
        _ => Ok(Vec::new()),
    }
}

fn log_page(kv: &dyn KvRead, after: u64) -> Result<Vec<(u64, LogRow)>, CatalogError> {
    let rows = page::<LogRow>(kv, Prefix::Log, &[], Some(&Key::Log(after)), PAGE)?;
    let sequence = |key| {
        if let Key::Log(sequence) = key {
            Some(sequence)
        } else {
            None
        }
    };
    Ok(rows
        .into_iter()
        .filter_map(|(key, row)| sequence(key).map(|s| (s, row)))
        .collect())
}

/// What makes a row at the site what it is here.
fn op_for(tree: &Tree<'_>, row: RowKey, default: Layout) -> Result<Op, CatalogError> {
    Ok(match row {
        RowKey::Object { id } => match tree.object(id)? {
            Some((object, _)) => Op::PutObject { id, object },
            None => Op::DropObject { id },
        },
        RowKey::Attribute { id, name } => match tree.attribute(id, &name)? {
            Some(value) => Op::PutAttribute { id, name, value },
            None => Op::DropAttribute { id, name },
        },
        RowKey::Entry { dir, name } => match tree.lookup(dir, &name)? {
            Some(child) => Op::PutEntry { dir, name, child },
            None => Op::DropEntry { dir, name },
        },
        RowKey::Segment { id, segment } => {
            let layout = tree.object(id)?.map_or(default, |(object, _)| object.layout);
            let now = tree.segment(id, segment)?.map(|(row, _)| row).unwrap_or_default();
            let blocks = (0..layout.segment_blocks).map(|p| (p, now.block_at(p))).collect();
            Op::PutBlocks { id, segment, blocks }
        }
    })
}
