//! Which files damaged blocks belong to. A segment of the head that lacks a block counts as another one when trees are
//! compared, so its source sees the difference and sends the block again; and no site is called in sync that cannot give
//! back what it has.

use crate::service::Service;
use restfs_lib::kv::KvRead;
use restfs_lib::model::{BlockKey, BucketId, Digest, ObjectId};
use restfs_lib::tree::blocks::{After, SegmentRevision, revisions};
use restfs_lib::tree::bucket::{self, Bucket};
use restfs_lib::tree::{At, Row, Tree, purge, row_digest};
use restfs_lib::wire::method::ScrubObject;
use restfs_lib::wire::{Name, RpcError};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::PoisonError;

/// Segments looked at in one read transaction: others write meanwhile, and SQLite's log must not grow behind it.
const PAGE: usize = 500;
/// Buckets read at a time.
const BUCKETS: usize = 1000;
/// Segments of heads, and blocks, that are kept in mind. When these have been mended, the others are found.
const MAX_ROWS: usize = 10_000;
const MAX_BLOCKS: usize = 10_000;
/// Files in a report.
const MAX_OBJECTS: usize = 1000;
/// Files that are told in the log, each time.
const MAX_LOGGED: u64 = 100;

/// What was lost when it was looked for last.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Segments of heads that lacked a block.
    rows: BTreeMap<BucketId, BTreeSet<(ObjectId, u64)>>,
    /// Blocks that any point names.
    pub(super) blocks: BTreeMap<BucketId, BTreeSet<BlockKey>>,
    /// There were more.
    pub(super) cut: bool,
}

#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: u64,
    pub(super) objects: Vec<ScrubObject>,
}

/// A look under way.
#[derive(Default)]
struct Look {
    found: Found,
    lost: Lost,
    rows: usize,
    blocks: usize,
}

impl Look {
    fn note(&mut self, bucket: BucketId, revision: &SegmentRevision, keys: &BTreeSet<BlockKey>) {
        if revision.newest && self.rows < MAX_ROWS {
            self.rows += 1;
            let row = (revision.object, revision.number);
            self.lost.rows.entry(bucket).or_default().insert(row);
        } else if revision.newest {
            self.lost.cut = true;
        }
        let blocks = self.lost.blocks.entry(bucket).or_default();
        for key in keys {
            if self.blocks < MAX_BLOCKS {
                self.blocks += usize::from(blocks.insert(*key));
            } else if !blocks.contains(key) {
                self.lost.cut = true;
            }
        }
    }
}

/// A file under way.
struct Concerned {
    object: ObjectId,
    keys: BTreeSet<BlockKey>,
    head: bool,
    from: u64,
}

impl Service {
    /// As [`Service::find_lost`], when a read has found damage.
    pub(super) fn look_for_lost(&self) {
        match self.find_lost() {
            Ok(found) if found.files > 0 => {
                tracing::error!(
                    "{} files have damaged blocks; `restfs scrub` lists them",
                    found.files
                );
            }
            Ok(_) => {}
            Err(error) => tracing::error!("looking for the files that damaged blocks belong to: {error}"),
        }
    }

    /// Looks whether every block that any point names is here and good, as far as is known.
    pub(super) fn find_lost(&self) -> Result<Found, RpcError> {
        let mut look = Look::default();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .metadata
                .read(|kv| Ok(bucket::list(kv, after.as_deref(), BUCKETS)?))?;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            for bucket in &page {
                self.find_in(bucket, &mut look)?;
            }
        }
        *self.upkeep.lost.write().unwrap_or_else(PoisonError::into_inner) = look.lost;
        Ok(look.found)
    }

    fn find_in(&self, bucket: &Bucket, look: &mut Look) -> Result<(), RpcError> {
        let mut after: Option<After> = None;
        let mut concerned: Option<Concerned> = None;
        loop {
            let (page, next) = self
                .metadata
                .read(|kv| Ok(revisions(kv, bucket.id, after.as_ref(), PAGE)?))?;
            let missing = self.lost_of(&page)?;
            for revision in page.iter().filter(|_| !missing.is_empty()) {
                let keys: BTreeSet<BlockKey> = revision.keys().filter(|key| missing.contains(key)).collect();
                if keys.is_empty() {
                    continue;
                }
                look.note(bucket.id, revision, &keys);
                if concerned.as_ref().is_some_and(|c| c.object != revision.object) {
                    self.report(bucket, concerned.take(), &mut look.found)?;
                }
                let concerned = concerned.get_or_insert_with(|| Concerned {
                    object: revision.object,
                    keys: BTreeSet::new(),
                    head: false,
                    from: revision.point,
                });
                concerned.keys.extend(keys);
                concerned.head |= revision.newest;
                concerned.from = concerned.from.min(revision.point);
            }
            match next {
                Some(next) => after = Some(next),
                None => return self.report(bucket, concerned, &mut look.found),
            }
        }
    }

    /// Those of the segments' blocks that are not here, or no good. From now on they are asked for.
    fn lost_of(&self, page: &[SegmentRevision]) -> Result<HashSet<BlockKey>, RpcError> {
        let keys: HashSet<BlockKey> = page.iter().flat_map(SegmentRevision::keys).collect();
        let keys: Vec<BlockKey> = keys.into_iter().collect();
        let missing = self.blocks.missing(&keys)?;
        for key in &missing {
            self.blocks.mark_lost(*key)?;
        }
        Ok(missing.into_iter().collect())
    }

    fn report(
        &self,
        bucket: &Bucket,
        concerned: Option<Concerned>,
        found: &mut Found,
    ) -> Result<(), RpcError> {
        let Some(concerned) = concerned else { return Ok(()) };
        found.files += 1;
        if found.objects.len() >= MAX_OBJECTS {
            return Ok(());
        }
        let (from, path) = self.metadata.read(|kv| {
            // What wrote the row may be below what can be read.
            let from = concerned.from.max(purge::oldest(kv, bucket.id)?);
            let at = match concerned.head {
                true => At::Head,
                false => At::Point(from),
            };
            Ok((from, Tree::new(kv, bucket.id, at).path_of(concerned.object)?))
        })?;
        let path = path.map(|path| [b"/", &path[..]].concat());
        if found.files <= MAX_LOGGED {
            tracing::error!(
                bucket = bucket.name,
                object = concerned.object.0,
                path = path
                    .as_deref()
                    .map(|path| String::from_utf8_lossy(path).into_owned()),
                blocks = concerned.keys.len(),
                newest_tree = concerned.head,
                from,
                "a file lacks blocks"
            );
        }
        found.objects.push(ScrubObject {
            bucket: bucket.name.clone(),
            object: concerned.object.0,
            path: path.map(Name),
            blocks: concerned.keys.len() as u64,
            head: concerned.head,
            from,
        });
        Ok(())
    }

    /// Segments of the bucket's head that lack a block now, with the digest that they have when they are whole.
    pub(in crate::service) fn lost_rows(
        &self,
        kv: &dyn KvRead,
        bucket: BucketId,
    ) -> Result<BTreeMap<(ObjectId, u64), Digest>, RpcError> {
        let known = self.upkeep.lost.read().unwrap_or_else(PoisonError::into_inner);
        let rows: Vec<(ObjectId, u64)> = known.rows.get(&bucket).into_iter().flatten().copied().collect();
        drop(known);
        let tree = Tree::head(kv, bucket);
        let mut lost = BTreeMap::new();
        for (id, number) in rows {
            let Some((segment, _)) = tree.segment(id, number)? else {
                continue;
            };
            let keys: Vec<BlockKey> = segment.blocks.iter().map(|(_, block, _)| block.key).collect();
            if !self.blocks.missing(&keys)?.is_empty() {
                let row = Row::Segment {
                    id,
                    number,
                    segment: &segment,
                };
                lost.insert((id, number), row_digest(&row));
            }
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use restfs_lib::model::Segment;

    fn key(number: usize) -> BlockKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        BlockKey(key)
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded_and_that_there_was_more_is_known() {
        let mut look = Look::default();
        let mut note = |bucket, number: usize, newest| {
            let revision = SegmentRevision {
                object: ObjectId(1),
                number: number as u64,
                point: 1,
                newest,
                segment: Segment::default(),
            };
            look.note(BucketId(bucket), &revision, &BTreeSet::from([key(number)]));
            (look.rows, look.blocks, look.lost.cut)
        };
        for number in 0..MAX_BLOCKS {
            note(1, number, false);
        }
        assert_eq!(
            note(1, 0, true),
            (1, MAX_BLOCKS, false),
            "nothing new but the row"
        );
        assert_eq!(note(2, 0, false), (1, MAX_BLOCKS, true));
        assert_eq!(look.lost.blocks[&BucketId(1)].len(), MAX_BLOCKS);
    }
}
