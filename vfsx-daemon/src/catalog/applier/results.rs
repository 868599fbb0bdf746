//! What readers found.

use super::unread::{Class, Flight};
use super::work::{Cause, Work};
use super::{Before, BlockAnswer};
use crate::catalog::CatalogError;
use crate::catalog::dirt::Dirt;
use crate::catalog::reader::{Ending, FoundBlock, Part, Slice};
use crate::catalog::share::{Details, Seen};
use crate::catalog::store::Touch;
use restfs_lib::model::{BlockRef, Kind, Layout, Object, ObjectId, Op};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// An object that could not be found for so many tries (about two minutes) is lost: nothing that is on its way explains
/// it any more.
const LOST_AFTER: u32 = 10;
/// Until a file that changed while a scan had it read is read once more.
const ONE_MORE_LOOK: Duration = Duration::from_secs(1);
/// Segments looked through at once, at most.
const PAGE: u64 = 64;

impl Work<'_> {
    /// Takes a part of a read in. One of a read that is not wanted any more counts for nothing.
    pub(super) fn take_part(&mut self, part: Part) -> Result<(), CatalogError> {
        let id = part.object;
        if self
            .memory
            .dirty
            .flight_mut(id)
            .is_none_or(|f| f.id != part.flight)
        {
            return Ok(());
        }
        let Some((journal, time_ns)) = self.unread_since(id)? else {
            return Ok(());
        };
        let class = self
            .memory
            .dirty
            .get(id)
            .map_or(Class::Client, |object| object.class);
        self.cause = Cause {
            journal,
            time_ns,
            class,
        };
        let moved_end = match &part.slice {
            Some(slice) => self.put_slice(id, slice)?,
            None => None,
        };
        match part.ending {
            None => self.keep_flying(id, part.slice.as_ref(), moved_end),
            Some(Ending::Read {
                seen,
                details,
                read,
                unsteady,
            }) => self.finish(id, &seen, details, read, unsteady),
            Some(Ending::Away) => self.away(id),
            Some(Ending::Later(due)) => {
                self.memory.dirty.put_off(id, due);
                Ok(())
            }
            Some(Ending::Failed(text)) => {
                self.memory
                    .note_error(format!("object {id} cannot be read: {text}"));
                self.memory.dirty.fail(id, self.now);
                Ok(())
            }
        }
    }

    /// What the slice covered is clean, but for what became dirty since the read began.
    fn keep_flying(
        &mut self,
        id: ObjectId,
        slice: Option<&Slice>,
        moved_end: Option<Range<u64>>,
    ) -> Result<(), CatalogError> {
        let Some(mut unread) = self.take_unread(id)? else {
            return Ok(());
        };
        let dirt = &mut unread.dirt;
        if let Some(range) = moved_end {
            // The catalog has the new size now, so a read that begins anew could not know.
            dirt.add(range);
        }
        for range in slice.into_iter().flat_map(|s| &s.covered) {
            dirt.remove(range.clone());
        }
        if let Some(flight) = self.memory.dirty.flight_mut(id) {
            dirt.merge(&flight.fresh);
        }
        dirt.touched = dirt.touched.max(Touch::Looked);
        let now = self.now;
        // Whoever wanted it first still does.
        self.put_unread(id, unread, now, Class::Scan);
        Ok(())
    }

    fn finish(
        &mut self,
        id: ObjectId,
        seen: &Seen,
        details: Details,
        read: Dirt,
        unsteady: bool,
    ) -> Result<(), CatalogError> {
        let class = self.cause.class;
        let due = self.due();
        let Some(flight) = self.memory.dirty.end(id, due) else {
            return Ok(());
        };
        let was_again = self.memory.dirty.read_again(id, false);
        let size = seen.size();
        self.forget_dirt(id)?;
        self.put_metadata(id, seen, details, &read)?;
        if !flight.fresh.is_empty() {
            return self.fly_again(id, flight, size);
        }
        if unsteady && !was_again {
            // Whoever changed it says so in an event of its own, usually; one more look in case it does not. Not
            // more, or a file that is always being written would never be done.
            let cause = Cause::client(self.memory.head.applied + 1, self.now_ns);
            let due = match class {
                Class::Client => due,
                // A scan waits for it.
                Class::Scan => due.min(self.now + ONE_MORE_LOOK),
            };
            self.cause = Cause { class, ..cause };
            self.add_dirt(id, &read, size, due)?;
            self.memory.dirty.read_again(id, true);
        }
        Ok(())
    }

    /// Became dirty again while it was read.
    fn fly_again(&mut self, id: ObjectId, flight: Flight, size: u64) -> Result<(), CatalogError> {
        self.cause = Cause {
            journal: flight.journal,
            time_ns: flight.first_ns,
            class: flight.class,
        };
        // What a scan found is read at once; what clients changed beside it goes along.
        let due = if flight.for_scan { self.now } else { self.due() };
        self.add_dirt(id, &flight.fresh, size, due)?;
        self.cause.time_ns = flight.last_ns;
        self.add_dirt(id, &flight.fresh, size, due)?;
        if let Some(at) = flight.not_before {
            self.memory.dirty.not_before(id, at);
        }
        if flight.urgent {
            self.read_now(id);
        }
        Ok(())
    }

    fn away(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        let failures = self.memory.dirty.fail(id, self.now);
        if failures == LOST_AFTER {
            self.lost_track("a changed file that cannot be found on the share")?;
        }
        self.suspect(id)
    }

    /// The replicator found this at a block's place, cut at the end that the object had then.
    pub(super) fn take_block(
        &mut self,
        id: ObjectId,
        index: u64,
        before: Before,
        found: Option<BlockRef>,
    ) -> Result<BlockAnswer, CatalogError> {
        let Some(object) = self.object(id)?.filter(|o| o.kind == Kind::File) else {
            return Ok(BlockAnswer::Gone);
        };
        let (segment, position) = object.layout.place_of(index);
        let row = self.tree().segment(id, segment)?;
        let block = row.and_then(|(row, _)| row.block_at(position));
        if before
            != (Before {
                size: object.size,
                block,
            })
        {
            return Ok(BlockAnswer::Changed);
        }
        let found = found.map(|block| FoundBlock { block, since: None });
        self.put_blocks(id, segment, BTreeMap::from([(position, found)]))?;
        Ok(BlockAnswer::Taken)
    }

    /// The range that is to be read when the object's end has moved.
    fn put_slice(&mut self, id: ObjectId, slice: &Slice) -> Result<Option<Range<u64>>, CatalogError> {
        let Some(object) = self.object(id)?.filter(|o| o.kind == Kind::File) else {
            return Ok(None);
        };
        let layout = object.layout;
        let mut moved_end = None;
        if object.size != slice.size {
            let nearer = object.size.min(slice.size);
            moved_end = Some(nearer..u64::MAX);
            self.emit(Op::PutObject {
                id,
                object: Object {
                    size: slice.size,
                    ..object
                },
            })?;
        }
        let mut wanted: Wanted = BTreeMap::new();
        for (index, found) in &slice.blocks {
            let (segment, position) = layout.place_of(*index);
            let found = Some(found.clone());
            wanted.entry(segment).or_default().insert(position, found);
        }
        for range in &slice.covered {
            self.find_holes(id, &layout, range, &mut wanted)?;
        }
        for (segment, blocks) in wanted {
            self.put_blocks(id, segment, blocks)?;
        }
        Ok(moved_end)
    }

    /// Blocks that the catalog has in the range and the file has not.
    fn find_holes(
        &self,
        id: ObjectId,
        layout: &Layout,
        range: &Range<u64>,
        wanted: &mut Wanted,
    ) -> Result<(), CatalogError> {
        let blocks = layout.block_of(range.start)..range.end.div_ceil(u64::from(layout.block_size));
        let (mut segment, _) = layout.place_of(blocks.start);
        let (last, _) = layout.place_of(blocks.end.saturating_sub(1));
        let is_found = |index| {
            let (segment, position) = layout.place_of(index);
            wanted
                .get(&segment)
                .is_some_and(|found| found.contains_key(&position))
        };
        if blocks.clone().all(is_found) {
            return Ok(());
        }
        while segment <= last {
            // Most ranges are of one segment, and a row is not cheap.
            let count = (last - segment + 1).min(PAGE);
            let rows = self.tree().segments(id, segment, count as usize)?;
            let Some((newest, ..)) = rows.last() else {
                return Ok(());
            };
            segment = newest.saturating_add(1);
            for (number, row, _) in rows {
                for (position, ..) in row.blocks {
                    if blocks.contains(&layout.block_at(number, position)) {
                        wanted.entry(number).or_default().entry(position).or_insert(None);
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts the positions that differ.
    pub(super) fn put_blocks(
        &mut self,
        id: ObjectId,
        segment: u64,
        wanted: BTreeMap<u32, Option<FoundBlock>>,
    ) -> Result<(), CatalogError> {
        let row = self
            .tree()
            .segment(id, segment)?
            .map(|(row, _)| row)
            .unwrap_or_default();
        let now: BTreeMap<u32, BlockRef> = row.blocks.into_iter().map(|(p, block, _)| (p, block)).collect();
        let (mut blocks, mut differences) = (Vec::new(), Vec::new());
        for (position, found) in wanted {
            let before = now.get(&position);
            let block = found.as_ref().map(|found| found.block);
            if before == block.as_ref() {
                continue;
            }
            blocks.push((position, block));
            // A difference from another block than the one that is there now says nothing to a site.
            let since = found.and_then(|found| found.since);
            differences.extend(
                since
                    .filter(|since| before.is_some_and(|before| before.key == since.base))
                    .map(|since| (position, since)),
            );
        }
        if !blocks.is_empty() {
            self.emit_since(Op::PutBlocks { id, segment, blocks }, differences)?;
        }
        Ok(())
    }
}

/// Segment -> position -> what is to be there.
type Wanted = BTreeMap<u64, BTreeMap<u32, Option<FoundBlock>>>;
