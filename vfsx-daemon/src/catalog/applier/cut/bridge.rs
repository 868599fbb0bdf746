//! What was read of the disk, made what it was at the end of the round.
//!
//! Who is not touched by later records is on disk as the round left it. Of the others what is on disk may be newer: for
//! them count the tree of before and what the round's records say is new. Where these do not know, the round cannot be
//! told exactly, and the next one has to.

use super::super::work::{BUCKET, Work};
use super::round::{Piece, Roll, lay};
use super::window::{Touched, Window};
use crate::catalog::CatalogError;
use crate::catalog::dirt::Dirt;
use crate::catalog::reader::{Ending, FoundBlock, Part, Slice};
use crate::catalog::share::{Details, Doubt, Seen, Stamp, Type};
use bytes::Bytes;
use rangemap::RangeSet;
use restfs_lib::content::{Difference, differing, hash_block};
use restfs_lib::model::{BlockKey, BlockRef, Kind, Object, ObjectId};
use restfs_lib::tree::Tree;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Blocks of one file that are made from what is known: more are not worth the memory, and a read that is not touched
/// comes with the next round.
const BLOCKS: u64 = 1024;
/// Directories on the way up in which a rename may explain why something is not found.
const ABOVE: usize = 64;

/// What readers found of one object.
pub(in crate::catalog::applier) struct Found {
    pub(in crate::catalog::applier) object: ObjectId,
    pub(in crate::catalog::applier) flight: u64,
    pub(in crate::catalog::applier) slices: Vec<Slice>,
    pub(in crate::catalog::applier) ending: Ending,
}

/// Parts by object; `None` for the parts of a read that has not ended.
pub(in crate::catalog::applier) fn gather(parts: &mut Vec<Part>) -> Vec<Found> {
    let ended: HashSet<(ObjectId, u64)> = parts
        .iter()
        .filter(|part| part.ending.is_some())
        .map(|part| (part.object, part.flight))
        .collect();
    let mut found: Vec<Found> = Vec::new();
    let mut slices: HashMap<(ObjectId, u64), Vec<Slice>> = HashMap::new();
    let mut left = Vec::new();
    for part in parts.drain(..) {
        let read = (part.object, part.flight);
        if !ended.contains(&read) {
            left.push(part);
            continue;
        }
        slices.entry(read).or_default().extend(part.slice);
        if let Some(ending) = part.ending {
            found.push(Found {
                object: part.object,
                flight: part.flight,
                slices: slices.remove(&read).unwrap_or_default(),
                ending,
            });
        }
    }
    *parts = left;
    found
}

impl Found {
    /// As it came.
    pub(in crate::catalog::applier) fn into_parts(self) -> impl Iterator<Item = Part> {
        let (object, flight) = (self.object, self.flight);
        let part = move |slice, ending| Part {
            object,
            flight,
            slice,
            ending,
        };
        self.slices
            .into_iter()
            .map(move |slice| part(Some(slice), None))
            .chain([part(None, Some(self.ending))])
    }
}

/// An object as of the end of the round.
pub(in crate::catalog::applier) enum Bridged {
    /// What was found.
    AsFound,
    /// Made, at least partly, from what is known: it is to be read again.
    Made(Box<Part>),
}

/// Or why it cannot be told.
pub(in crate::catalog::applier) type Told<T> = Result<Result<T, &'static str>, CatalogError>;

const AWAY: &str = "cannot be found, and no record says why";
const DOUBTFUL: &str = "was to be read since before, and has changed again";
const VAGUE: &str = "was changed in a way that only the disk knows";
const LONGER: &str = "may have become longer by a write that failed";
const OTHER_KIND: &str = "is of another kind by now";
const MUCH: &str = "changed in many places while it was read";
const NO_BASE: &str = "changed while it was read, in a block whose content before is not at hand";
const NOT_CACHED: &str = "changed while it was read, in a block that is not at hand any more";

impl Work<'_> {
    pub(in crate::catalog::applier) fn bridge(&self, found: &Found, window: &Window) -> Told<Bridged> {
        let id = found.object;
        let (Some(row), Some(object)) = (self.node_row(id)?, self.object(id)?) else {
            // Dropped: there is nothing to tell.
            return Ok(Ok(Bridged::AsFound));
        };
        let touched = window.of_node(&row.node);
        let (seen, read) = match &found.ending {
            Ending::Read { .. } if touched.is_none() => return Ok(Ok(Bridged::AsFound)),
            Ending::Read { seen, read, .. } => (Some(*seen), read.clone()),
            Ending::Away | Ending::Later(_) | Ending::Failed(_) if self.is_on_the_move(id, window)? => {
                match self.unread(id)? {
                    Some(unread) => (None, unread.dirt),
                    None => return Ok(Err(AWAY)),
                }
            }
            Ending::Away | Ending::Later(_) | Ending::Failed(_) => return Ok(Err(AWAY)),
        };
        let nothing = Touched::default();
        let made = self.make(found, &object, seen, read, touched.unwrap_or(&nothing))?;
        Ok(made.map(|part| Bridged::Made(Box::new(part))))
    }

    fn make(
        &self,
        found: &Found,
        object: &Object,
        seen: Option<Seen>,
        mut read: Dirt,
        touched: &Touched,
    ) -> Told<Part> {
        let id = found.object;
        let Some(round) = self
            .memory
            .round
            .as_ref()
            .filter(|round| !round.known.doubtful.contains(&id))
        else {
            return Ok(Err(DOUBTFUL));
        };
        // One that the round does not change is read for the last word on what was made before.
        let unchanged = Roll::of(object);
        let roll = round.known.rolls.get(&id).unwrap_or(&unchanged);
        if roll.vague {
            return Ok(Err(VAGUE));
        }
        // A write that failed may not have extended the file.
        if roll.size > roll.sure && touched.untold.iter().any(|range| range.end > roll.sure) {
            return Ok(Err(LONGER));
        }
        if object.kind == Kind::File && roll.size != object.size {
            // The block that holds the nearer end changes its length.
            let nearer = roll.size.min(object.size);
            read.add(nearer..u64::MAX);
        }
        let Some((seen, details)) = self.metadata_of(id, object, seen, roll)? else {
            return Ok(Err(OTHER_KIND));
        };
        let slice = match object.kind {
            Kind::File if read.has_ranges() => {
                let on_disk = matches!(found.ending, Ending::Read { .. });
                let sources = Sources::new(object, roll, touched, &found.slices, on_disk);
                match self.content_of(id, &sources, &read)? {
                    Ok(slice) => Some(slice),
                    Err(why) => return Ok(Err(why)),
                }
            }
            _ => None,
        };
        Ok(Ok(Part {
            object: id,
            flight: found.flight,
            slice,
            ending: Some(Ending::Read {
                seen,
                details,
                read,
                unsteady: false,
            }),
        }))
    }

    /// The metadata that the round leaves, in the form in which it is read. `None`: of another kind than the object.
    fn metadata_of(
        &self,
        id: ObjectId,
        object: &Object,
        seen: Option<Seen>,
        roll: &Roll,
    ) -> Result<Option<(Seen, Details)>, CatalogError> {
        let Some(row) = self.node_row(id)? else {
            return Ok(None);
        };
        let Some(kind) = seen.map(|seen| seen.kind).or_else(|| type_of(&object.kind)) else {
            return Ok(None);
        };
        if !kind.is(&object.kind) {
            return Ok(None);
        }
        let new = roll.metadata.as_ref();
        let target = match &object.kind {
            Kind::Symlink { target } => target.clone(),
            _ => Vec::new(),
        };
        let mut attributes = match new {
            Some(new) => new.xattrs.clone(),
            None => self.tree().attributes(id)?,
        };
        attributes.sort();
        let time = |of: fn(&crate::journal::Metadata) -> (i64, u32)| {
            new.and_then(|new| {
                let (seconds, nanoseconds) = of(new);
                restfs_lib::model::Time::new(seconds, nanoseconds)
            })
        };
        let stamp = Stamp {
            size: if object.kind == Kind::File { roll.size } else { 0 },
            mtime: roll.mtime.unwrap_or(object.mtime),
            // Never that of a file, so that a scan reads it again unless it is read before.
            ctime: Default::default(),
        };
        let seen = Seen {
            node: row.node,
            kind,
            mode: new.map_or(object.mode, |new| new.mode),
            uid: new.map_or(object.uid, |new| new.uid),
            gid: new.map_or(object.gid, |new| new.gid),
            links: seen.map_or(row.names, |seen| seen.links),
            atime: time(|new| new.atime).unwrap_or(object.atime),
            btime: object.btime,
            stamp,
            doubt: Doubt::Content,
        };
        Ok(Some((seen, Details { attributes, target })))
    }

    /// What is dirty of a file's content, as the round leaves it.
    fn content_of(&self, id: ObjectId, sources: &Sources<'_>, read: &Dirt) -> Told<Slice> {
        let (layout, size) = (sources.object.layout, sources.roll.size);
        let block = u64::from(layout.block_size);
        let mut slice = Slice {
            size,
            covered: Vec::new(),
            blocks: Vec::new(),
        };
        for range in read.blocks(block) {
            let range = range.start..range.end.min(size);
            if range.start < range.end {
                slice.covered.push(range);
            }
        }
        let untold = sources.untold(&slice.covered);
        if untold.iter().map(|r| r.end - r.start).sum::<u64>() > BLOCKS {
            return Ok(Err(MUCH));
        }
        let is_untold = |index: u64| untold.contains(&index);
        for (index, found) in sources.slices.iter().flat_map(|slice| &slice.blocks) {
            if !is_untold(*index) && layout.offset_of(*index) < size {
                slice.blocks.push((*index, found.clone()));
            }
        }
        for index in untold.iter().flat_map(|range| range.clone()) {
            match self.block_of(id, sources, index)? {
                Ok(found) => slice.blocks.extend(found.map(|block| (index, block))),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(slice))
    }

    /// A block as the round leaves it; `None`: a hole.
    fn block_of(&self, id: ObjectId, sources: &Sources<'_>, index: u64) -> Told<Option<FoundBlock>> {
        let layout = sources.object.layout;
        let start = layout.offset_of(index);
        let length = layout.expected_length(index, sources.roll.size) as usize;
        let pieces = self
            .memory
            .round
            .as_ref()
            .and_then(|round| round.known.pieces.get(&(id, index)))
            .map_or(&[][..], Vec::as_slice);
        let base = self.base(id, sources, index)?;
        let (was_hole, known_base) = (matches!(&base, Some(None)), base.is_some());
        let base = base.flatten();
        let mut rolled = base.as_ref().map_or_else(Vec::new, |(_, bytes)| bytes.to_vec());
        let set = lay(pieces, &mut rolled, length);
        let mut known = match known_base {
            true => RangeSet::from_iter(std::iter::once(0..length)),
            false => set.clone(),
        };
        let block = start..start + length as u64;
        // What only the disk knows is in no piece that came before it.
        for vague in sources.roll.vague_content.overlapping(&block) {
            forget(&mut known, within(vague, start, length));
        }
        for untold in sources.touched.untold.overlapping(&block) {
            for range in set.overlapping(&within(untold, start, length)) {
                forget(&mut known, range.clone());
            }
        }
        let wanted = match sources.disk_block(index) {
            Some(_) => sources.changed_in(start, length),
            None => RangeSet::from_iter(std::iter::once(0..length)),
        };
        if wanted.iter().any(|range| known.gaps(range).next().is_some()) {
            return Ok(Err(NO_BASE));
        }
        let content = match sources.disk_block(index) {
            None => rolled,
            Some(on_disk) => {
                let on_disk = match on_disk {
                    None => Bytes::new(),
                    Some(block) => match self.cache.get(&block.key) {
                        Some(content) => content,
                        None if known.gaps(&(0..length)).next().is_none() => Bytes::from(rolled.clone()),
                        None => return Ok(Err(NOT_CACHED)),
                    },
                };
                let mut content = on_disk.to_vec();
                content.resize(length, 0);
                for range in wanted {
                    if let (Some(to), Some(from)) = (content.get_mut(range.clone()), rolled.get(range)) {
                        to.copy_from_slice(from);
                    }
                }
                content
            }
        };
        let written = pieces.iter().any(|piece| matches!(piece, Piece::Data { .. }));
        let disk_is_hole = matches!(sources.disk_block(index), None | Some(None));
        if was_hole && !written && disk_is_hole {
            return Ok(Ok(None));
        }
        let content = Bytes::from(content);
        let block = hash_block(&content, layout.hash);
        let since = base.and_then(|(key, before)| {
            let since = Difference::new(key, differing(&before, &content));
            (key != block.key && since.bytes() < u64::from(block.length)).then_some(since)
        });
        self.cache.put(block.key, content);
        Ok(Ok(Some(FoundBlock { block, since })))
    }

    /// The block before the round. `None`: its content is not at hand; inner `None`: there was none, or nothing of it is left.
    fn base(
        &self,
        id: ObjectId,
        sources: &Sources<'_>,
        index: u64,
    ) -> Result<Option<Option<(BlockKey, Bytes)>>, CatalogError> {
        let layout = sources.object.layout;
        if layout.offset_of(index) >= sources.roll.least {
            return Ok(Some(None));
        }
        let (segment, position) = layout.place_of(index);
        let row = Tree::head(&*self.kv, BUCKET).segment(id, segment)?;
        match row.and_then(|(row, _)| row.block_at(position)) {
            None => Ok(Some(None)),
            Some(block) => Ok(self
                .cache
                .get(&block.key)
                .map(|content| Some((block.key, content)))),
        }
    }

    /// Whether a rename or removal that is not applied yet explains that the object was not found.
    pub(in crate::catalog::applier) fn is_on_the_move(
        &self,
        id: ObjectId,
        window: &Window,
    ) -> Result<bool, CatalogError> {
        let mut above = vec![id];
        let mut visited = HashSet::new();
        while let Some(id) = above.pop() {
            if !visited.insert(id) || visited.len() > ABOVE {
                continue;
            }
            for (dir, name) in self.tree().names(id)? {
                let Some(row) = self.node_row(dir)? else { continue };
                if window.has_name(&row.node, &name) {
                    return Ok(true);
                }
                above.push(dir);
            }
        }
        Ok(false)
    }
}

/// Where a file's content comes from.
struct Sources<'a> {
    object: &'a Object,
    roll: &'a Roll,
    /// What later records may have changed.
    touched: &'a Touched,
    slices: &'a [Slice],
    /// What was read of it, and what was found there; of some files these are thousands of places.
    read: RangeSet<u64>,
    blocks: HashMap<u64, BlockRef>,
    /// It was read at all.
    on_disk: bool,
}

impl<'a> Sources<'a> {
    fn new(
        object: &'a Object,
        roll: &'a Roll,
        touched: &'a Touched,
        slices: &'a [Slice],
        on_disk: bool,
    ) -> Self {
        let covered = slices.iter().flat_map(|slice| &slice.covered);
        let blocks = slices.iter().flat_map(|slice| &slice.blocks);
        Self {
            object,
            roll,
            touched,
            slices,
            read: covered.filter(|range| range.start < range.end).cloned().collect(),
            blocks: blocks.map(|(index, found)| (*index, found.block)).collect(),
            on_disk,
        }
    }

    /// Blocks in `covered` that are not on disk as the round leaves them.
    fn untold(&self, covered: &[Range<u64>]) -> RangeSet<u64> {
        let layout = self.object.layout;
        let blocks = |range: &Range<u64>| {
            layout.block_of(range.start)..range.end.div_ceil(u64::from(layout.block_size))
        };
        let mut untold = RangeSet::new();
        let mut insert = |range: Range<u64>| {
            if range.start < range.end {
                untold.insert(range);
            }
        };
        for range in covered {
            if !self.on_disk {
                insert(blocks(range));
                continue;
            }
            for touched in self.touched.content.overlapping(range) {
                insert(blocks(
                    &(touched.start.max(range.start)..touched.end.min(range.end)),
                ));
            }
            // Cut at another end than the round's.
            for slice in self.slices.iter().filter(|slice| slice.size != self.roll.size) {
                let nearer = slice.size.min(self.roll.size);
                let nearer = nearer - nearer % u64::from(layout.block_size);
                insert(blocks(&(nearer.max(range.start)..range.end.max(nearer))));
            }
            for unread in self.unread(range) {
                insert(blocks(&unread));
            }
        }
        untold
    }

    /// Whole blocks in the range that were not read.
    fn unread(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let block = u64::from(self.object.layout.block_size);
        self.read
            .gaps(range)
            .map(|gap| gap.start.next_multiple_of(block)..gap.end)
            .filter(|gap| gap.start < gap.end)
            .collect()
    }

    /// The block as it was read. `None`: it was not; inner `None`: a hole.
    fn disk_block(&self, index: u64) -> Option<Option<BlockRef>> {
        let start = self.object.layout.offset_of(index);
        self.read
            .contains(&start)
            .then(|| self.blocks.get(&index).copied())
    }

    /// Bytes of a block that may not be on disk as the round leaves them.
    fn changed_in(&self, start: u64, length: usize) -> RangeSet<usize> {
        let block = start..start.saturating_add(length as u64);
        let mut changed: RangeSet<usize> = self
            .touched
            .content
            .overlapping(&block)
            .map(|range| within(range, start, length))
            .filter(|range| range.start < range.end)
            .collect();
        // Beyond the end that it had when it was read.
        for slice in self.slices {
            let beyond = within(&(slice.size..u64::MAX), start, length);
            if beyond.start < beyond.end {
                changed.insert(beyond);
            }
        }
        changed
    }
}

fn forget(known: &mut RangeSet<usize>, range: Range<usize>) {
    if range.start < range.end {
        known.remove(range);
    }
}

/// A range of the file as a range of the block that begins at `start`.
fn within(range: &Range<u64>, start: u64, length: usize) -> Range<usize> {
    let clip = |at: u64| at.saturating_sub(start).min(length as u64) as usize;
    clip(range.start)..clip(range.end)
}

fn type_of(kind: &Kind) -> Option<Type> {
    match kind {
        Kind::File => Some(Type::File),
        Kind::Directory => Some(Type::Directory),
        Kind::Symlink { .. } => Some(Type::Symlink),
        _ => None,
    }
}
