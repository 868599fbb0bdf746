//! A share in memory: what is on its disk, what its catalog knows of that, and the log of the catalog's changes.

use super::{FakeSite, Model, Random};
use crate::source::{Batch, BatchLimits, Change, ChangeSource, Cursor, ReadBlock, SourceError};
use async_trait::async_trait;
use bytes::Bytes;
use restfs_lib::content::{Difference, differing, hash_block};
use restfs_lib::model::{
    BlockKey, BlockRef, Digest, HashAlgorithm, Kind, Layout, Object, ObjectId, Op, RowKey, Time,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

const BLOCK: u32 = 4096;
/// Small, so that files soon have several segments.
const SEGMENT_BLOCKS: u32 = 4;
/// One in so many differences leaves something out, as when a write is read that nobody has told of yet.
const WRONG: u64 = 7;

pub struct FakeSource {
    name: String,
    inner: Mutex<Inner>,
    head: watch::Sender<u64>,
}

type Place = (ObjectId, u64, u32);

struct Inner {
    model: Model,
    log: VecDeque<Change>,
    /// Last change that is no longer in the log.
    trimmed: u64,
    head: u64,
    next_object: u64,
    /// Content as on disk.
    disk: HashMap<Place, Bytes>,
    /// Of every block that the catalog has named.
    contents: HashMap<BlockKey, Bytes>,
    /// Written on disk, not yet in the catalog.
    dirty: BTreeMap<Place, ()>,
    /// Changes that end in an exact state, when sites get no others.
    marks: Option<BTreeSet<u64>>,
    /// How often a site could not be given an exact state for long.
    unfollowed: u64,
    cursors: HashMap<String, Cursor>,
    sites: HashMap<String, Arc<FakeSite>>,
    violations: Vec<String>,
}

impl Default for FakeSource {
    fn default() -> Self {
        Self::named("fake")
    }
}

impl FakeSource {
    /// `name`: the source's id.
    pub fn named(name: &str) -> Self {
        let source = Self {
            name: name.into(),
            inner: Mutex::new(Inner {
                model: Model::default(),
                log: VecDeque::new(),
                trimmed: 0,
                head: 0,
                next_object: 2,
                disk: HashMap::new(),
                contents: HashMap::new(),
                dirty: BTreeMap::new(),
                marks: None,
                unfollowed: 0,
                cursors: HashMap::new(),
                sites: HashMap::new(),
                violations: Vec::new(),
            }),
            head: watch::Sender::new(0),
        };
        source.log([Op::PutObject {
            id: ObjectId::ROOT,
            object: object(Kind::Directory, 0),
        }]);
        source
    }

    /// Checks at each `save_cursor` that the cursor is not ahead of what the site has durably.
    pub fn watch_site(&self, name: &str, site: Arc<FakeSite>) {
        self.lock().sites.insert(name.into(), site);
    }

    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub fn model(&self) -> Model {
        self.lock().model.clone()
    }

    pub fn head_now(&self) -> u64 {
        self.lock().head
    }

    pub fn cursor(&self, site: &str) -> Option<Cursor> {
        self.lock().cursors.get(site).copied()
    }

    /// The log loses all changes up to `sequence`, as one that has grown to its bound.
    pub fn trim(&self, sequence: u64) {
        let mut inner = self.lock();
        let sequence = sequence.min(inner.head);
        inner.log.retain(|change| change.sequence > sequence);
        inner.trimmed = inner.trimmed.max(sequence);
    }

    /// Everything as it is now, to be put back later as from a backup.
    pub fn backup(&self) -> impl FnOnce(&Self) + use<> {
        let inner = self.lock();
        let saved = (
            inner.model.clone(),
            inner.log.clone(),
            inner.trimmed,
            inner.head,
            inner.next_object,
            inner.disk.clone(),
            inner.cursors.clone(),
        );
        move |source: &Self| {
            let mut inner = source.lock();
            (
                inner.model,
                inner.log,
                inner.trimmed,
                inner.head,
                inner.next_object,
                inner.disk,
                inner.cursors,
            ) = saved;
            inner.dirty.clear();
            source.head.send_replace(inner.head);
        }
    }

    /// Creates a file of `blocks` blocks and returns it.
    pub fn create(&self, name: &str, blocks: u32, random: &mut Random) -> ObjectId {
        let id = self.put_new(Kind::File, 0, ObjectId::ROOT, name);
        self.resize(id, u64::from(blocks) * u64::from(BLOCK));
        for block in 0..blocks {
            self.scribble(id, u64::from(block), random);
        }
        self.settle();
        id
    }

    pub fn rename(&self, from: &str, to: &str) {
        let ops = {
            let inner = self.lock();
            let Some(child) = inner.model.entries.get(&(ObjectId::ROOT, from.into())).copied() else {
                return;
            };
            let mut ops = vec![
                Op::DropEntry {
                    dir: ObjectId::ROOT,
                    name: from.into(),
                },
                Op::PutEntry {
                    dir: ObjectId::ROOT,
                    name: to.into(),
                    child,
                },
            ];
            let replaced = inner.model.entries.get(&(ObjectId::ROOT, to.into()));
            ops.extend(
                replaced
                    .filter(|id| **id != child)
                    .map(|id| Op::DropObject { id: *id }),
            );
            ops
        };
        self.log(ops);
    }

    /// Writes random content on disk, whole blocks; the catalog does not know yet.
    pub fn scribble(&self, id: ObjectId, block: u64, random: &mut Random) {
        let seed = random.below(40) as u8;
        self.write(id, block, |content| content.fill(seed));
    }

    /// The same for a few bytes of a block.
    pub fn edit(&self, id: ObjectId, block: u64, random: &mut Random) {
        let (at, seed) = (random.below(u64::from(BLOCK)) as usize, random.below(256) as u8);
        self.write(id, block, |content| {
            content.iter_mut().skip(at).take(9).for_each(|byte| *byte = seed)
        });
    }

    fn write(&self, id: ObjectId, block: u64, write: impl FnOnce(&mut [u8])) {
        let mut inner = self.lock();
        let Some(object) = inner.model.objects.get(&id) else {
            return;
        };
        let length = object.layout.expected_length(block, object.size);
        let (segment, position) = object.layout.place_of(block);
        if length == 0 || object.kind != Kind::File {
            return;
        }
        let place = (id, segment, position);
        let mut content = inner
            .disk
            .get(&place)
            .map(|content| content.to_vec())
            .unwrap_or_default();
        content.resize(length as usize, 0);
        write(&mut content);
        inner.disk.insert(place, content.into());
        inner.dirty.insert(place, ());
    }

    /// The catalog reads what is dirty.
    pub fn settle(&self) {
        let places: Vec<_> = self.lock().dirty.keys().copied().collect();
        for place in places {
            self.enter(place);
        }
    }

    /// The newest state is exact, and from the first time on sites get no others.
    pub fn mark(&self) {
        {
            let mut inner = self.lock();
            let head = inner.head;
            inner.marks.get_or_insert_default().insert(head);
        }
        self.head.send_modify(|_| {});
    }

    pub fn unfollowed(&self) -> u64 {
        self.lock().unfollowed
    }

    /// Does something that a client might do.
    pub fn act(&self, random: &mut Random) {
        let (files, names) = {
            let inner = self.lock();
            let files: Vec<_> = inner
                .model
                .objects
                .iter()
                .filter(|(_, o)| o.kind == Kind::File)
                .map(|(id, _)| *id)
                .collect();
            let names: Vec<_> = inner
                .model
                .entries
                .keys()
                .map(|(_, name)| String::from_utf8_lossy(name).into_owned())
                .collect();
            (files, names)
        };
        let file = random.pick(&files).copied();
        match (random.below(10), file) {
            (0 | 1, _) => {
                let name = format!("file{}", random.below(30));
                self.unlink(&name);
                let blocks = random.below(12) as u32;
                self.create(&name, blocks, random);
            }
            (2, _) => {
                let name = format!("dir{}", random.below(10));
                if !names.contains(&name) {
                    self.put_new(Kind::Directory, 0, ObjectId::ROOT, &name);
                }
            }
            (3, _) => {
                let to = format!("file{}", random.below(30));
                if let Some(from) = random.pick(&names) {
                    self.rename(from, &to);
                }
            }
            (4, _) => {
                if let Some(name) = random.pick(&names) {
                    self.unlink(name);
                }
            }
            (5, Some(id)) => {
                let size = random.below(12 * u64::from(BLOCK));
                self.resize(id, size);
            }
            (6, Some(id)) => {
                let name = format!("user.{}", random.below(3)).into_bytes();
                let op = match random.chance(300) {
                    true => Op::DropAttribute { id, name },
                    false => Op::PutAttribute {
                        id,
                        name,
                        value: vec![random.below(256) as u8],
                    },
                };
                self.log([op]);
            }
            (7, _) => self.settle(),
            (8, Some(id)) => {
                let block = random.below(12);
                self.scribble(id, block, random);
            }
            (_, Some(id)) => {
                let block = random.below(12);
                self.edit(id, block, random);
            }
            (_, None) => {}
        }
    }

    fn unlink(&self, name: &str) {
        let child = self
            .lock()
            .model
            .entries
            .get(&(ObjectId::ROOT, name.into()))
            .copied();
        if let Some(id) = child {
            self.log([
                Op::DropEntry {
                    dir: ObjectId::ROOT,
                    name: name.into(),
                },
                Op::DropObject { id },
            ]);
        }
    }

    /// Cuts the last block on disk, too, as a file system does.
    fn resize(&self, id: ObjectId, size: u64) {
        let (old, object) = {
            let inner = self.lock();
            let Some(object) = inner.model.objects.get(&id) else {
                return;
            };
            (
                object.size,
                Object {
                    size,
                    ..object.clone()
                },
            )
        };
        let layout = object.layout;
        self.log([Op::PutObject { id, object }]);
        let mut inner = self.lock();
        inner
            .disk
            .retain(|place, _| place.0 != id || layout.offset_of(layout.block_at(place.1, place.2)) < size);
        inner
            .dirty
            .retain(|place, ()| place.0 != id || layout.offset_of(layout.block_at(place.1, place.2)) < size);
        // The block at the old or the new end has another length now.
        for end in [old, size] {
            let (segment, position) = layout.place_of(layout.block_of(end));
            let place = (id, segment, position);
            let length = layout.expected_length(layout.block_of(end), size) as usize;
            if let Some(content) = inner.disk.get(&place).filter(|c| c.len() != length).cloned() {
                let mut content = content.to_vec();
                content.resize(length, 0);
                inner.disk.insert(place, content.into());
                inner.dirty.insert(place, ());
            }
        }
    }

    fn put_new(&self, kind: Kind, size: u64, dir: ObjectId, name: &str) -> ObjectId {
        let id = {
            let mut inner = self.lock();
            // Far apart, so that there are many groups.
            inner.next_object += 300;
            ObjectId(inner.next_object)
        };
        let object = object(kind, size);
        self.log([
            Op::PutObject { id, object },
            Op::PutEntry {
                dir,
                name: name.into(),
                child: id,
            },
        ]);
        id
    }

    /// Brings one dirty block into the catalog.
    fn enter(&self, place: Place) -> Option<(BlockRef, Bytes)> {
        let (id, segment, position) = place;
        let content = {
            let mut inner = self.lock();
            inner.dirty.remove(&place);
            inner.disk.get(&place).cloned()?
        };
        let block = hash_block(&content, HashAlgorithm::Blake3);
        let mut inner = self.lock();
        let since = inner.difference(place, &content);
        inner.contents.insert(block.key, content.clone());
        let op = Op::PutBlocks {
            id,
            segment,
            blocks: vec![(position, Some(block))],
        };
        inner.push(op, since.map(|since| (position, since)).into_iter().collect());
        self.head.send_replace(inner.head);
        Some((block, content))
    }

    /// As one transaction of the catalog.
    pub fn log(&self, ops: impl IntoIterator<Item = Op>) {
        let mut inner = self.lock();
        for op in ops {
            inner.push(op, Vec::new());
        }
        self.head.send_replace(inner.head);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, op: Op, since: Vec<(u32, Difference)>) {
        self.model.apply(&op);
        self.head += 1;
        if let Op::DropObject { id } = &op {
            self.disk.retain(|place, _| place.0 != *id);
            self.dirty.retain(|place, ()| place.0 != *id);
        }
        self.log.push_back(Change {
            sequence: self.head,
            journal: self.head,
            time_ns: now_ns(),
            op,
            since,
        });
    }

    /// How new content differs from the block that the catalog has at the place.
    fn difference(&self, (id, segment, position): Place, content: &[u8]) -> Option<Difference> {
        let base = self.model.segments.get(&(id, segment))?.get(&position)?.key;
        let mut ranges = differing(self.contents.get(&base)?, content);
        if self.head.is_multiple_of(WRONG) {
            ranges.pop();
        }
        Some(Difference::new(base, ranges))
    }
}

fn object(kind: Kind, size: u64) -> Object {
    Object {
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size,
        mtime: Time::default(),
        atime: Time::default(),
        btime: Time::default(),
        layout: Layout {
            block_size: BLOCK,
            segment_blocks: SEGMENT_BLOCKS,
            ..Layout::default()
        },
    }
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

#[async_trait]
impl ChangeSource for FakeSource {
    fn source_id(&self) -> String {
        self.name.clone()
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    async fn changes(&self, after: u64, limits: BatchLimits) -> Result<Batch, SourceError> {
        tokio::task::yield_now().await;
        let inner = self.lock();
        if after < inner.trimmed {
            return Err(SourceError::TooOld {
                asked: after + 1,
                oldest: inner.trimmed + 1,
            });
        }
        let marks = inner.marks.as_ref().filter(|_| limits.whole);
        // As many as the limit says, and up to a mark.
        let end = marks.map(|marks| {
            let wanted = after.saturating_add(limits.max_ops as u64);
            let mut marks = marks.range(limits.trusted_from.max(after + 1)..);
            let first = marks.next()?;
            let more = marks.take_while(|mark| **mark <= wanted);
            more.last().or(Some(first))
        });
        let (end, most) = match end {
            None => (u64::MAX, limits.max_ops),
            Some(end) => (end.copied().unwrap_or(after), usize::MAX),
        };
        let changes: Vec<_> = inner
            .log
            .iter()
            .filter(|c| c.sequence > after && c.sequence <= end)
            .take(most)
            .cloned()
            .collect();
        let last = changes.last().map_or(after, |change| change.sequence);
        Ok(Batch {
            exact: match &inner.marks {
                Some(marks) => last >= limits.trusted_from && marks.contains(&last),
                None => inner.dirty.is_empty(),
            },
            whole: marks.is_some(),
            changes,
        })
    }

    async fn newest(&self) -> Result<u64, SourceError> {
        Ok(self.head_now())
    }

    fn cannot_follow(&self, _site: &str) {
        self.lock().unfollowed += 1;
    }

    async fn read_block(
        &self,
        object: ObjectId,
        segment: u64,
        position: u32,
        expected: BlockRef,
    ) -> Result<ReadBlock, SourceError> {
        tokio::task::yield_now().await;
        let place = (object, segment, position);
        let content = {
            let inner = self.lock();
            if !inner.model.objects.contains_key(&object) {
                return Ok(ReadBlock::Gone);
            }
            match inner.disk.get(&place) {
                None => return Ok(ReadBlock::Hole),
                Some(content) => content.clone(),
            }
        };
        if hash_block(&content, HashAlgorithm::Blake3) == expected {
            return Ok(ReadBlock::Same(content));
        }
        match self.enter(place) {
            Some((block, content)) => Ok(ReadBlock::Newer(block, content)),
            None => Ok(ReadBlock::Hole),
        }
    }

    async fn load_cursor(&self, site: &str) -> Result<Option<Cursor>, SourceError> {
        Ok(self.cursor(site))
    }

    async fn save_cursor(&self, site: &str, cursor: Cursor) -> Result<(), SourceError> {
        let mut inner = self.lock();
        if let Some(there) = inner.sites.get(site).and_then(|site| site.durable_position())
            && cursor.epoch > 0
            && (there.epoch != cursor.epoch || there.sequence < cursor.sequence)
        {
            inner
                .violations
                .push(format!("cursor {cursor:?} of {site}, which is at {there:?}"));
        }
        inner.cursors.insert(site.into(), cursor);
        Ok(())
    }

    async fn digest(&self) -> Result<(u64, Digest), SourceError> {
        let inner = self.lock();
        Ok((inner.head, inner.model.digest()))
    }

    async fn groups(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, Digest)>, SourceError> {
        let groups = self.lock().model.groups().into_iter();
        Ok(groups
            .filter(|(group, _)| after.is_none_or(|after| *group > after))
            .take(limit)
            .collect())
    }

    async fn rows(
        &self,
        group: u64,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, SourceError> {
        let rows = self.lock().model.group_rows(group).into_iter();
        Ok(rows
            .filter(|(row, _)| after.as_ref().is_none_or(|after| row > after))
            .take(limit)
            .collect())
    }

    async fn ops_for(&self, rows: Vec<RowKey>) -> Result<Vec<Op>, SourceError> {
        tokio::task::yield_now().await;
        let inner = self.lock();
        Ok(rows.iter().map(|row| inner.model.op_for(row)).collect())
    }
}
