//! Names that are not replicated: never entered, and gone when they become one.

use super::work::Work;
use crate::catalog::CatalogError;
use crate::catalog::exclude::Exclude;
use crate::catalog::share::{Components, components};
use crate::catalog::store::{ExcludeRow, Key, delete, put};
use crate::journal::{DirRef, NodeRef};
use restfs_lib::model::ObjectId;

/// Inodes remembered to lie in others; far more than come and go between two looks. Forgetting them costs a scan at most.
const WITHIN: usize = 16_384;
/// Before all others.
const FIRST: NodeRef = NodeRef {
    dev: 0,
    ino: 0,
    btime_ns: i64::MIN,
};

/// In the place of the scan that tells whether a displaced object is somewhere else: nothing has to tell, it is excluded.
pub(super) const EXCLUDED: u64 = 0;

impl Work<'_> {
    /// Takes other patterns over, and has a scan bring the catalog in line with them. What an older tree connect says than the
    /// one whose patterns are in force does not count.
    pub(super) fn set_exclude(&mut self, row: ExcludeRow) -> Result<(), CatalogError> {
        if !row.replaces(&self.memory.exclude_row, self.now_ns) {
            return Ok(());
        }
        put(self.kv, &Key::meta("exclude"), &row)?;
        self.memory.exclude = Exclude::new(&row);
        self.memory.exclude_row = row;
        self.request_scan().map(drop)
    }

    pub(super) fn is_excluded(&self, name: &[u8]) -> bool {
        self.memory.exclude.matches(name)
    }

    /// A directory that is not known is no riddle: it is excluded, or lies in one that is, as far as the module knew its path, or
    /// it was removed or excluded lately.
    pub(super) fn is_beyond(&self, dir: &DirRef) -> bool {
        self.memory.graves.contains(&dir.node) || self.leads_through_excluded(dir)
    }

    pub(super) fn leads_through_excluded(&self, dir: &DirRef) -> bool {
        let is_excluded = |path: Components| path.iter().any(|name| self.is_excluded(name));
        components(&dir.path_hint).is_some_and(is_excluded)
    }

    /// An event says that the inode came into the directory. One that was not found there may have left with it: where the
    /// directory becomes excluded, it is, too, and nothing else says so.
    pub(super) fn note_within(&mut self, dir: &DirRef, node: &NodeRef) -> Result<(), CatalogError> {
        if let Some(id) = self.known(node)?
            && self.has_names(id)?
        {
            return Ok(());
        }
        let within = &mut self.memory.within;
        if within.len() >= WITHIN {
            within.clear();
        }
        within.insert((dir.node, *node));
        Ok(())
    }

    /// What was done in the directory concerns nobody, nor in those that came into it and were not seen.
    pub(super) fn bury_whole(&mut self, node: &NodeRef) -> Result<(), CatalogError> {
        let mut gone = vec![*node];
        while let Some(dir) = gone.pop() {
            self.bury(&dir)?;
            let inside = self.memory.within.range((dir, FIRST)..);
            let inside: Vec<_> = inside.take_while(|(d, _)| *d == dir).copied().collect();
            for pair in inside {
                self.memory.within.remove(&pair);
                match self.known(&pair.1)? {
                    Some(id) => self.exclude(id)?,
                    None => gone.push(pair.1),
                }
            }
        }
        Ok(())
    }

    /// The object has got an excluded name, or lost one that has become excluded: without another name it is gone, and all that
    /// is in it. Should it come back, it is another object; the site has its blocks.
    pub(super) fn exclude(&mut self, id: ObjectId) -> Result<(), CatalogError> {
        if self.has_names(id)? {
            return Ok(());
        }
        let Some(row) = self.node_row(id)? else {
            return Ok(());
        };
        if self.known(&row.node)? == Some(id) {
            delete(self.kv, &Key::Node(row.node))?;
        }
        if self.is_directory(id)? {
            // What is still told of names in it is no riddle.
            self.bury_whole(&row.node)?;
        }
        self.displace_until(id, true, EXCLUDED)
    }
}
