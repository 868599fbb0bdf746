//! A file's content against the blocks that the catalog has of it.

use super::Reading;
use crate::catalog::CatalogError;
use crate::catalog::applier::BUCKET;
use crate::catalog::reader::{Context, hole_end, is_zero, read_at};
use restfs_lib::content::hash_block;
use restfs_lib::model::{BlockRef, Layout, ObjectId};
use restfs_lib::tree::Tree;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

/// Segments of the catalog read at once.
const SEGMENTS: usize = 16;

/// Where content differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Other {
    /// First byte of the first block that differs.
    pub(super) first: u64,
    pub(super) blocks: u64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ContentError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// `None`: it is the same. A hole is the same as zeros.
pub(super) fn compare(
    context: &Context<'_>,
    object: ObjectId,
    (file, size): (&File, u64),
    layout: Layout,
    reading: &Reading<'_>,
) -> Result<Option<Other>, ContentError> {
    let mut known = Known::new(context, object, layout);
    let count = layout.blocks_in(size);
    let (mut index, mut other) = (0, None::<Other>);
    while index < count {
        let block = known.behind(index)?;
        let next = match block {
            Some((at, _)) if at == index => index,
            // Is there content that the catalog has not? To be asked as seldom as can be: it holds up who writes.
            _ => {
                let data = hole_end(file, layout.offset_of(index), size)?;
                let data = if data < size { layout.block_of(data) } else { count };
                block.map_or(count, |(at, _)| at).min(data)
            }
        };
        if next >= count {
            break;
        }
        let start = layout.offset_of(next);
        let content = read_at(context, file, start, layout.expected_length(next, size) as usize)?;
        let same = match block.filter(|(at, _)| *at == next) {
            Some((_, block)) => hash_block(&content, layout.hash) == block,
            None => is_zero(&content),
        };
        if !same {
            let found = other.get_or_insert(Other {
                first: start,
                blocks: 0,
            });
            found.blocks += 1;
        }
        (reading.pace)(content.len() as u64);
        if reading.stop.load(Ordering::Relaxed) {
            return Err(CatalogError::Stopped.into());
        }
        index = next + 1;
    }
    Ok(other)
}

/// The catalog's blocks of an object, in order.
struct Known<'a> {
    context: &'a Context<'a>,
    object: ObjectId,
    layout: Layout,
    read: VecDeque<(u64, BlockRef)>,
    /// `None`: there are no more.
    segment: Option<u64>,
}

impl<'a> Known<'a> {
    fn new(context: &'a Context<'a>, object: ObjectId, layout: Layout) -> Self {
        Self {
            context,
            object,
            layout,
            read: VecDeque::new(),
            segment: Some(0),
        }
    }

    /// The first block at `index` or behind it.
    fn behind(&mut self, index: u64) -> Result<Option<(u64, BlockRef)>, CatalogError> {
        loop {
            while let Some((at, block)) = self.read.front() {
                if *at >= index {
                    return Ok(Some((*at, *block)));
                }
                self.read.pop_front();
            }
            let Some(segment) = self.segment else {
                return Ok(None);
            };
            let kv = self.context.kv.read()?;
            let rows = Tree::head(&*kv, BUCKET).segments(self.object, segment, SEGMENTS)?;
            self.segment = rows.last().and_then(|(newest, ..)| newest.checked_add(1));
            for (number, row, _) in rows {
                let blocks = row.blocks.into_iter();
                self.read.extend(
                    blocks.map(|(position, block, _)| (self.layout.block_at(number, position), block)),
                );
            }
        }
    }
}
