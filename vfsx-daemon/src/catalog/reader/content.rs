//! Reading a file's blocks.

use super::cache::Cache;
use super::{Ending, Job, Part, Slice};
use crate::catalog::CatalogError;
use crate::catalog::applier::{ReachError, reach};
use crate::catalog::dirt::Dirt;
use crate::catalog::share::{Details, Seen, Share, Type, details, open_pinned};
use bytes::Bytes;
use restfs_lib::content::hash_block;
use restfs_lib::kv::Kv;
use restfs_lib::model::{BlockRef, Layout, Object, ObjectId};
use restfs_lib::tree::Tree;
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
    pub(in crate::catalog) bytes_read: &'a AtomicU64,
}

/// The receiver is gone: the catalog stops.
pub(super) struct Stopped;

/// Reads what the job asks for and sends it.
pub(super) fn run(
    context: &Context<'_>,
    job: Job,
    send: &mut dyn FnMut(Part) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let (object, flight) = (job.object, job.flight);
    let ending = match start(context, &job) {
        Ok(Some((found, file))) => {
            let size = found.seen.size();
            let mut reading = Reading {
                context,
                object,
                flight,
                file,
                size,
                content: 0,
                extent: 0,
                send,
            };
            match reading.run(found, job.dirt) {
                Ok(last) => return (reading.send)(last),
                Err(ReadError::Stopped) => return Err(Stopped),
                Err(ReadError::Io(e)) => Ending::Failed(e.to_string()),
            }
        }
        Ok(None) => Ending::Away,
        Err(e) => Ending::Failed(e.to_string()),
    };
    send(Part {
        object,
        flight,
        slice: None,
        ending: Some(ending),
    })
}

struct Found {
    seen: Seen,
    details: Details,
    object: Object,
}

/// The object as it is now, with its content open when it is a file.
fn start(context: &Context<'_>, job: &Job) -> Result<Option<(Found, Option<File>)>, ReachError> {
    let kv = context.kv.read().map_err(CatalogError::from)?;
    let Some((pin, ..)) = reach(&*kv, context.share, job.object)? else {
        return Ok(None);
    };
    let tree = Tree::head(&*kv, crate::catalog::applier::BUCKET);
    let Some((object, _)) = tree.object(job.object).map_err(CatalogError::from)? else {
        return Ok(None);
    };
    drop(kv);
    let seen = context.share.see_handle(pin.as_fd())?;
    if !seen.kind.is(&object.kind) {
        return Ok(None);
    }
    let details = details(pin.as_fd(), seen.kind == Type::Symlink)?;
    let file = match seen.kind {
        Type::File if job.dirt.has_ranges() || seen.size() != object.size => {
            Some(open_pinned(pin.as_fd(), false)?)
        }
        _ => None,
    };
    Ok(Some((
        Found {
            seen,
            details,
            object,
        },
        file,
    )))
}

enum ReadError {
    Stopped,
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<Stopped> for ReadError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

struct Reading<'a, 'b> {
    context: &'a Context<'a>,
    object: ObjectId,
    flight: u64,
    file: Option<File>,
    size: u64,
    /// Bytes of content in the part that is being filled, and bytes of the file that it covers.
    content: u64,
    extent: u64,
    send: &'b mut dyn FnMut(Part) -> Result<(), Stopped>,
}

impl Reading<'_, '_> {
    /// Sends all parts but the last and returns that one.
    fn run(&mut self, found: Found, mut dirt: Dirt) -> Result<Part, ReadError> {
        let Found {
            seen,
            details,
            object,
        } = found;
        let block = u64::from(object.layout.block_size);
        if seen.kind == Type::File && seen.size() != object.size {
            // The block that holds the nearer end changes its length, and what is beyond it is new or gone.
            dirt.add(seen.size().min(object.size)..u64::MAX, block);
        }
        let mut slice = self.slice();
        let mut unsteady = false;
        if let Some(file) = self.file.take() {
            for range in dirt.ranges().collect::<Vec<_>>() {
                let aligned = range.start - range.start % block..range.end.min(self.size);
                self.read_range(&file, &object.layout, aligned, &mut slice)?;
            }
            unsteady = self.context.share.see_handle(file.as_fd())?.stamp != seen.stamp;
        }
        let ending = Ending::Read {
            seen,
            details,
            read: dirt,
            unsteady,
        };
        Ok(self.part(slice, Some(ending)))
    }

    fn slice(&self) -> Slice {
        Slice {
            size: self.size,
            covered: Vec::new(),
            blocks: Vec::new(),
        }
    }

    fn part(&self, slice: Slice, ending: Option<Ending>) -> Part {
        let slice = (!slice.covered.is_empty()).then_some(slice);
        Part {
            object: self.object,
            flight: self.flight,
            slice,
            ending,
        }
    }

    fn read_range(
        &mut self,
        file: &File,
        layout: &Layout,
        range: Range<u64>,
        slice: &mut Slice,
    ) -> Result<(), ReadError> {
        let block = u64::from(layout.block_size);
        let mut at = range.start;
        while at < range.end {
            let hole_end = hole_end(file, at, range.end)?;
            let hole_end = if hole_end >= range.end {
                range.end
            } else {
                hole_end - hole_end % block
            };
            if hole_end > at {
                let end = hole_end.min(at.saturating_add(PART_EXTENT));
                self.cover(slice, at..end)?;
                at = end;
                continue;
            }
            let index = layout.block_of(at);
            if let Some(found) = self.read_block(file, layout, index)? {
                self.content += u64::from(found.length);
                slice.blocks.push((index, found));
            }
            let end = at.saturating_add(block).min(range.end);
            self.cover(slice, at..end)?;
            at = end;
        }
        Ok(())
    }

    fn cover(&mut self, slice: &mut Slice, range: Range<u64>) -> Result<(), ReadError> {
        self.extent = self.extent.saturating_add(range.end - range.start);
        match slice.covered.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => slice.covered.push(range),
        }
        if self.content >= PART_BYTES || self.extent >= PART_EXTENT {
            (self.content, self.extent) = (0, 0);
            let full = std::mem::replace(slice, self.slice());
            let part = self.part(full, None);
            (self.send)(part)?;
        }
        Ok(())
    }

    fn read_block(&self, file: &File, layout: &Layout, index: u64) -> Result<Option<BlockRef>, ReadError> {
        let length = layout.expected_length(index, self.size) as usize;
        let content = read_at(self.context, file, layout.offset_of(index), length)?;
        if content.is_empty() {
            return Ok(None);
        }
        let found = hash_block(&content, layout.hash);
        self.context.cache.put(found.key, content);
        Ok(Some(found))
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
    if hole_end(&file, start, end)? >= end {
        return Ok(Some(None));
    }
    let content = read_at(context, &file, start, length as usize)?;
    if content.is_empty() {
        return Ok(Some(None));
    }
    let found = hash_block(&content, layout.hash);
    context.cache.put(found.key, content.clone());
    Ok(Some(Some((found, content))))
}

/// Where the next data begins, at `at` or behind it; `limit` when that is further or there is none.
fn hole_end(file: &File, at: u64, limit: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data.clamp(at, limit)),
        Err(Errno::NXIO) => Ok(limit),
        // A file system without holes.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(at),
        Err(e) => Err(e.into()),
    }
}

/// Up to `length` bytes; fewer when the file has become shorter.
fn read_at(context: &Context<'_>, file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
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
