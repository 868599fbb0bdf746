//! Reading a file's blocks.

use super::before::Before;
use super::cache::Cache;
use super::clones::{Clones, is_short};
use super::{FoundBlock, Job, Part, Sink, Slice, Stopped};
use crate::catalog::CatalogError;
use crate::catalog::applier::{ReachError, reach};
use crate::catalog::dirt::Dirt;
use crate::catalog::share::{Share, Type, open_pinned};
use bytes::Bytes;
use restfs_lib::content::hash_block;
use restfs_lib::kv::Kv;
use restfs_lib::model::{BlockRef, Layout, Object, ObjectId};
use rustix::fd::AsFd;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of content that one part speaks of: what one transaction of the applier takes in at most of one file.
const PART_BYTES: u64 = 64 << 20;
/// Bytes of a file that one part covers, holes included.
const PART_EXTENT: u64 = 16 << 30;

/// What reading takes.
pub(in crate::catalog) struct Context<'a> {
    pub(in crate::catalog) kv: &'a dyn Kv,
    pub(in crate::catalog) share: &'a Share,
    pub(in crate::catalog) cache: &'a Cache,
    pub(in crate::catalog) clones: &'a Clones,
    pub(in crate::catalog) bytes_read: &'a AtomicU64,
}

pub(super) enum ReadError {
    Stopped,
    Failed(String),
}

impl From<io::Error> for ReadError {
    fn from(e: io::Error) -> Self {
        Self::Failed(e.to_string())
    }
}

impl From<CatalogError> for ReadError {
    fn from(e: CatalogError) -> Self {
        Self::Failed(e.to_string())
    }
}

impl From<Stopped> for ReadError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Reads what is dirty of a file, once or several times.
pub(super) struct Pass<'a> {
    context: &'a Context<'a>,
    pub(super) object: ObjectId,
    flight: u64,
    layout: Layout,
    /// Of the file as the catalog has it.
    known: u64,
    /// What is to be read: what the job asked for, and what a changed size adds.
    pub(super) dirt: Dirt,
    before: Before,
    /// Bytes of the file.
    size: u64,
    /// The file is a clone.
    clone: bool,
    /// Bytes of content in the part that is being filled, and bytes of the file that it covers.
    content: u64,
    extent: u64,
}

impl<'a> Pass<'a> {
    pub(super) fn new(context: &'a Context<'a>, job: &Job, object: &Object) -> Self {
        Self {
            context,
            object: job.object,
            flight: job.flight,
            layout: object.layout,
            known: object.size,
            dirt: job.dirt.clone(),
            before: Before::new(job.object),
            size: 0,
            clone: false,
            content: 0,
            extent: 0,
        }
    }

    /// Bytes of a block.
    fn block(&self) -> u64 {
        self.layout.block_size.into()
    }

    /// Bytes to be read of a file that is this long.
    pub(super) fn bytes(&self, size: u64) -> u64 {
        let mut dirt = self.dirt.clone();
        add_moved_end(&mut dirt, self.known, size);
        let blocks = dirt.blocks(self.block()).into_iter();
        blocks
            .map(|range| range.end.min(size).saturating_sub(range.start))
            .sum()
    }

    /// Sends all parts but the last, whose slice it returns.
    pub(super) fn read(
        &mut self,
        file: &File,
        size: u64,
        send: &mut Sink<'_>,
    ) -> Result<Option<Slice>, ReadError> {
        self.size = size;
        (self.content, self.extent) = (0, 0);
        add_moved_end(&mut self.dirt, self.known, size);
        let mut slice = self.slice();
        for range in self.dirt.blocks(self.block()) {
            self.read_range(file, range.start..range.end.min(size), &mut slice, send)?;
        }
        Ok((!slice.covered.is_empty()).then_some(slice))
    }

    /// As [`Self::read`], with an end when clients may soon lack the space that the clone takes from them.
    pub(super) fn read_clone(
        &mut self,
        clone: &File,
        size: u64,
        send: &mut Sink<'_>,
    ) -> Result<Option<Slice>, ReadError> {
        self.clone = true;
        let read = self.read(clone, size, send);
        self.clone = false;
        read
    }

    fn slice(&self) -> Slice {
        Slice {
            size: self.size,
            covered: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Where a file has holes the file system knows, under the lock that its writers need: it is asked where there may be one
    /// only. Before several blocks, since preallocated space passes for content once it was read.
    fn read_range(
        &mut self,
        file: &File,
        range: Range<u64>,
        slice: &mut Slice,
        send: &mut Sink<'_>,
    ) -> Result<(), ReadError> {
        let block = self.block();
        let mut at = range.start;
        // A single block is mostly one that a client has written.
        let mut may_be_hole = range.end.saturating_sub(range.start) > block;
        while at < range.end {
            let asked = may_be_hole;
            if asked && self.skip_hole(file, &mut at, range.end, slice, send)? {
                may_be_hole = false;
                continue;
            }
            let index = self.layout.block_of(at);
            let content = self.content_of(file, index)?;
            may_be_hole = is_zero(&content);
            if may_be_hole && !asked && self.skip_hole(file, &mut at, range.end, slice, send)? {
                may_be_hole = false;
                continue;
            }
            if !content.is_empty() {
                let found = self.found(index, content)?;
                self.content += u64::from(found.block.length);
                slice.blocks.push((index, found));
            }
            let end = at.saturating_add(block).min(range.end);
            self.cover(file, slice, at..end, send)?;
            at = end;
        }
        Ok(())
    }

    /// Goes on to the block with the next data, or to the end. Whether there was anything to skip.
    fn skip_hole(
        &mut self,
        file: &File,
        at: &mut u64,
        end: u64,
        slice: &mut Slice,
        send: &mut Sink<'_>,
    ) -> Result<bool, ReadError> {
        let start = *at;
        let hole_end = hole_end(file, start, end)?;
        let hole_end = match hole_end >= end {
            true => end,
            false => hole_end - hole_end % self.block(),
        };
        while *at < hole_end {
            let end = hole_end.min(at.saturating_add(PART_EXTENT));
            self.cover(file, slice, *at..end, send)?;
            *at = end;
        }
        Ok(*at > start)
    }

    fn cover(
        &mut self,
        file: &File,
        slice: &mut Slice,
        range: Range<u64>,
        send: &mut Sink<'_>,
    ) -> Result<(), ReadError> {
        self.extent = self.extent.saturating_add(range.end - range.start);
        match slice.covered.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => slice.covered.push(range),
        }
        if self.content < PART_BYTES && self.extent < PART_EXTENT {
            return Ok(());
        }
        (self.content, self.extent) = (0, 0);
        let full = std::mem::replace(slice, self.slice());
        send(Part {
            object: self.object,
            flight: self.flight,
            slice: Some(full),
            ending: None,
        })?;
        match self.clone && is_short(file) {
            true => Err(ReadError::Failed(
                "space has become too short for a clone".to_owned(),
            )),
            false => Ok(()),
        }
    }

    fn content_of(&self, file: &File, index: u64) -> io::Result<Bytes> {
        let length = self.layout.expected_length(index, self.size) as usize;
        read_at(self.context, file, self.layout.offset_of(index), length)
    }

    fn found(&mut self, index: u64, content: Bytes) -> Result<FoundBlock, ReadError> {
        let (context, layout) = (self.context, self.layout);
        let block = hash_block(&content, layout.hash);
        let found = (&block, &content[..]);
        let since = self
            .before
            .difference(context, &layout, index, found, &self.dirt)?;
        context.cache.put(block.key, content);
        Ok(FoundBlock { block, since })
    }
}

/// The block that holds the nearer end changes its length, and what is beyond it is new or gone.
fn add_moved_end(dirt: &mut Dirt, before: u64, now: u64) {
    if before != now {
        dirt.add(before.min(now)..u64::MAX);
    }
}

/// One block of a file as it is now, cut at `size`. `None`: the object is not where the catalog believes it to be; inner
/// `None`: a hole, or beyond the end.
pub(in crate::catalog) fn read_block(
    context: &Context<'_>,
    object: ObjectId,
    layout: &Layout,
    index: u64,
    size: u64,
) -> Result<Option<Option<(BlockRef, Bytes)>>, ReachError> {
    let kv = context.kv.read().map_err(CatalogError::from)?;
    let Some((pin, seen, _)) = reach(&*kv, context.share, object)? else {
        return Ok(None);
    };
    drop(kv);
    let (start, length) = (layout.offset_of(index), layout.expected_length(index, size));
    if seen.kind != Type::File || length == 0 {
        return Ok(Some(None));
    }
    let file = open_pinned(pin.as_fd(), false)?;
    let end = start.saturating_add(u64::from(length));
    let content = read_at(context, &file, start, length as usize)?;
    if content.is_empty() || is_zero(&content) && hole_end(&file, start, end)? >= end {
        return Ok(Some(None));
    }
    let found = hash_block(&content, layout.hash);
    context.cache.put(found.key, content.clone());
    Ok(Some(Some((found, content))))
}

/// A block of the catalog as the clone has it that the file was read from; `None`: there is none, or it has not.
pub(in crate::catalog) fn read_kept(
    context: &Context<'_>,
    object: ObjectId,
    layout: &Layout,
    index: u64,
    block: BlockRef,
) -> Option<Bytes> {
    let clone = context.clones.kept(object)?;
    let content = read_at(context, &clone, layout.offset_of(index), block.length as usize).ok()?;
    if hash_block(&content, layout.hash) != block {
        return None;
    }
    context.cache.put(block.key, content.clone());
    Some(content)
}

pub(in crate::catalog) fn is_zero(content: &[u8]) -> bool {
    // By pieces, which the compiler makes a few instructions of.
    content
        .chunks(64)
        .all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Where the next data begins, at `at` or behind it; `limit` when that is further or there is none.
pub(in crate::catalog) fn hole_end(file: &File, at: u64, limit: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data.clamp(at, limit)),
        Err(Errno::NXIO) => Ok(limit),
        // A file system without holes.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(at),
        Err(e) => Err(e.into()),
    }
}

/// Up to `length` bytes; fewer when the file has become shorter.
pub(in crate::catalog) fn read_at(
    context: &Context<'_>,
    file: &File,
    offset: u64,
    length: usize,
) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    context.bytes_read.fetch_add(filled as u64, Ordering::Relaxed);
    buffer.truncate(filled);
    Ok(Bytes::from(buffer))
}
