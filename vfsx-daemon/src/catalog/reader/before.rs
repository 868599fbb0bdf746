//! What the catalog had of a file, and how blocks differ from it.

use super::content::Context;
use crate::catalog::CatalogError;
use crate::catalog::applier::BUCKET;
use crate::catalog::dirt::Dirt;
use restfs_lib::content::{Difference, differing};
use restfs_lib::model::{BlockRef, Layout, ObjectId, Segment};
use restfs_lib::tree::Tree;

/// The catalog's blocks of one object, a segment at a time.
pub(super) struct Before {
    object: ObjectId,
    segment: Option<(u64, Segment)>,
}

impl Before {
    pub(super) fn new(object: ObjectId) -> Self {
        Self {
            object,
            segment: None,
        }
    }

    /// How a block that was just read differs from the one that the catalog has in its place. `None`: not known, or in
    /// so much that nothing is won.
    pub(super) fn difference(
        &mut self,
        context: &Context<'_>,
        layout: &Layout,
        index: u64,
        (found, content): (&BlockRef, &[u8]),
        dirt: &Dirt,
    ) -> Result<Option<Difference>, CatalogError> {
        let Some(base) = self
            .block(context, layout, index)?
            .filter(|base| base.key != found.key)
        else {
            return Ok(None);
        };
        let ranges = match context.cache.peek(&base.key) {
            Some(old) => differing(&old, content),
            None => {
                let start = layout.offset_of(index);
                let told = dirt.within(start..start.saturating_add(u64::from(found.length)));
                let told = told.map(|r| (r.start - start) as u32..(r.end - start) as u32);
                let new = base.length.min(found.length)..found.length;
                told.chain(std::iter::once(new)).collect()
            }
        };
        let since = Difference::new(base.key, ranges);
        Ok((since.bytes() < u64::from(found.length)).then_some(since))
    }

    fn block(
        &mut self,
        context: &Context<'_>,
        layout: &Layout,
        index: u64,
    ) -> Result<Option<BlockRef>, CatalogError> {
        let (number, position) = layout.place_of(index);
        if self.segment.as_ref().is_none_or(|(held, _)| *held != number) {
            let kv = context.kv.read()?;
            let row = Tree::head(&*kv, BUCKET).segment(self.object, number)?;
            self.segment = Some((number, row.map(|(row, _)| row).unwrap_or_default()));
        }
        Ok(self.segment.as_ref().and_then(|(_, row)| row.block_at(position)))
    }
}
