//! Restores from a tree in memory.

mod hostile;
mod options;
mod whole;

use super::*;
use bytes::Bytes;
use restfs_lib::content::hash_block;
use restfs_lib::model::{BlockKey, HashAlgorithm, Kind, Layout, Object, ObjectId, Segment, Time};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

const BLOCK: usize = 4096;

/// A tree whose pages are as small as can be, so that every list has several.
#[derive(Default)]
struct Tree {
    objects: BTreeMap<u64, Object>,
    entries: BTreeMap<u64, Vec<(Vec<u8>, u64)>>,
    attributes: HashMap<u64, Vec<Attribute>>,
    segments: HashMap<u64, Vec<(u64, Segment)>>,
    blocks: HashMap<BlockKey, Bytes>,
}

const ROOT: u64 = 1;

fn object(kind: Kind) -> Object {
    Object {
        kind,
        mode: 0o640,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        size: 0,
        mtime: Time {
            seconds: 1_500_000_000,
            nanoseconds: 123_456_789,
        },
        atime: Time {
            seconds: 1_400_000_000,
            nanoseconds: 987_654_321,
        },
        btime: Time::default(),
        layout: Layout {
            block_size: BLOCK as u32,
            segment_blocks: 4,
            ..Layout::default()
        },
    }
}

impl Tree {
    fn new() -> Self {
        let mut tree = Self::default();
        tree.objects.insert(ROOT, object(Kind::Directory));
        tree
    }

    /// Adds a name; `change` the object's properties.
    fn add(&mut self, dir: u64, name: &str, kind: Kind, change: impl FnOnce(&mut Object)) -> u64 {
        let id = self.objects.keys().last().copied().unwrap_or(0) + 1;
        let mut object = object(kind);
        change(&mut object);
        self.objects.insert(id, object);
        self.name(dir, name.as_bytes(), id);
        id
    }

    fn dir(&mut self, dir: u64, name: &str) -> u64 {
        self.add(dir, name, Kind::Directory, |_| ())
    }

    fn name(&mut self, dir: u64, name: &[u8], id: u64) {
        let entries = self.entries.entry(dir).or_default();
        entries.push((name.to_vec(), id));
        entries.sort();
    }

    /// A file of blocks; `None` is a hole.
    fn file(&mut self, dir: u64, name: &str, size: u64, blocks: &[Option<&[u8]>]) -> u64 {
        let id = self.add(dir, name, Kind::File, |object| object.size = size);
        for (index, content) in blocks.iter().enumerate() {
            let Some(content) = content else { continue };
            let block = hash_block(content, HashAlgorithm::Blake3);
            self.blocks.insert(block.key, Bytes::copy_from_slice(content));
            let segments = self.segments.entry(id).or_default();
            let number = index as u64 / 4;
            if segments.last().is_none_or(|(last, _)| *last != number) {
                segments.push((number, Segment::default()));
            }
            segments
                .last_mut()
                .unwrap()
                .1
                .blocks
                .push((index as u32 % 4, block, 1));
        }
        id
    }

    fn text(&mut self, dir: u64, name: &str, content: &str) -> u64 {
        let blocks: Vec<Option<&[u8]>> = content.as_bytes().chunks(BLOCK).map(Some).collect();
        self.file(dir, name, content.len() as u64, &blocks)
    }

    fn attribute(&mut self, id: u64, name: &str, value: &[u8]) {
        self.attributes
            .entry(id)
            .or_default()
            .push((name.into(), value.to_vec()));
    }

    fn restore(&self, dest: &Path) -> Result<Summary, RestoreError> {
        restore(self, dest, &Options::default(), &())
    }
}

impl ContentSource for Tree {
    fn resolve(&self, path: &[u8]) -> Result<ObjectId, SourceError> {
        let mut id = ROOT;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let entries = self.entries.get(&id).map(Vec::as_slice).unwrap_or_default();
            let found = entries.iter().find(|(n, _)| n == name);
            id = found
                .ok_or_else(|| SourceError::Missing(name.escape_ascii().to_string()))?
                .1;
        }
        Ok(ObjectId(id))
    }

    fn object(&self, id: ObjectId) -> Result<Object, SourceError> {
        self.objects
            .get(&id.0)
            .cloned()
            .ok_or(SourceError::Missing(format!("object {}", id.0)))
    }

    fn entries(&self, dir: ObjectId, after: Option<&[u8]>, limit: usize) -> Result<Page<Entry>, SourceError> {
        let all = self.entries.get(&dir.0).map(Vec::as_slice).unwrap_or_default();
        let rest: Vec<_> = all
            .iter()
            .filter(|(name, _)| after.is_none_or(|after| name.as_slice() > after))
            .collect();
        let items = rest.iter().take(limit.min(2)).map(|(name, id)| {
            Ok(Entry {
                name: name.clone(),
                child: ObjectId(*id),
                object: self.object(ObjectId(*id))?,
            })
        });
        Ok(Page {
            items: items.collect::<Result<_, SourceError>>()?,
            more: rest.len() > 2,
        })
    }

    fn attributes(&self, id: ObjectId) -> Result<Vec<Attribute>, SourceError> {
        Ok(self.attributes.get(&id.0).cloned().unwrap_or_default())
    }

    fn segments(&self, id: ObjectId, from: u64, limit: usize) -> Result<Page<(u64, Segment)>, SourceError> {
        let all = self.segments.get(&id.0).map(Vec::as_slice).unwrap_or_default();
        let rest: Vec<_> = all
            .iter()
            .filter(|(number, _)| *number >= from)
            .cloned()
            .collect();
        Ok(Page {
            more: rest.len() > limit.min(1),
            items: rest.into_iter().take(limit.min(1)).collect(),
        })
    }

    fn block(&self, key: BlockKey) -> Result<Bytes, SourceError> {
        self.blocks
            .get(&key)
            .cloned()
            .ok_or_else(|| SourceError::Missing("block".to_owned()))
    }
}

/// A destination that does not exist yet, and its scratch directory.
fn dest() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let dest = scratch.path().join("dest");
    (scratch, dest)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[derive(Default)]
struct Counter {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Progress for Counter {
    fn advanced(&self, objects: u64, bytes: u64) {
        self.objects.fetch_add(objects, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
