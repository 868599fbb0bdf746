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
/// Segments of heads that are kept in mind. When these have been mended, the others are found.
const MAX_ROWS: usize = 10_000;
/// Files in a report.
const MAX_OBJECTS: usize = 1000;

/// Segments of heads that lacked a block when they were looked at.
pub(super) type LostRows = BTreeMap<BucketId, BTreeSet<(ObjectId, u64)>>;

#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: u64,
    pub(super) objects: Vec<ScrubObject>,
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
                    "{} files have damaged blocks; see `restfs scrub --status`",
                    found.files
                );
            }
            Ok(_) => {}
            Err(error) => tracing::error!("looking for the files that damaged blocks belong to: {error}"),
        }
    }

    /// Looks whether every block that any point names is here and good, as far as is known.
    pub(super) fn find_lost(&self) -> Result<Found, RpcError> {
        let buckets = self.metadata.read(|kv| Ok(bucket::list(kv, None, BUCKETS)?))?;
        let (mut found, mut rows) = (Found::default(), LostRows::new());
        let mut room = MAX_ROWS;
        for bucket in buckets {
            self.find_in(&bucket, &mut found, &mut rows, &mut room)?;
        }
        *self.upkeep.lost.write().unwrap_or_else(PoisonError::into_inner) = rows;
        Ok(found)
    }

    fn find_in(
        &self,
        bucket: &Bucket,
        found: &mut Found,
        rows: &mut LostRows,
        room: &mut usize,
    ) -> Result<(), RpcError> {
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
                if revision.newest && *room > 0 {
                    *room -= 1;
                    rows.entry(bucket.id)
                        .or_default()
                        .insert((revision.object, revision.number));
                }
                if concerned.as_ref().is_some_and(|c| c.object != revision.object) {
                    self.report(bucket, concerned.take(), found)?;
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
                None => return self.report(bucket, concerned, found),
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
        found.objects.push(ScrubObject {
            bucket: bucket.name.clone(),
            object: concerned.object.0,
            path: path.map(|path| Name([b"/", &path[..]].concat())),
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
        let rows: Vec<(ObjectId, u64)> = known.get(&bucket).into_iter().flatten().copied().collect();
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
