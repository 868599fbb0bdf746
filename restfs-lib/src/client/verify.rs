//! Calls of a source that verifies its copy.

use super::{Client, ClientError};
use crate::model::{BlockKey, Digest, ObjectId};
use crate::wire::Code;
use crate::wire::limits::{MAX_BLOCKS, MAX_RECOUNTED};
use crate::wire::method::*;
use crate::wire::values::ObjectAt;

/// A group's digest as the server keeps it, and as its rows add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recounted {
    pub group: u64,
    pub kept: Digest,
    pub counted: Digest,
}

impl Client {
    /// Has the server read and check blocks. Those of the keys that are no good.
    pub async fn check_blocks(&self, keys: &[BlockKey]) -> Result<Vec<(BlockKey, BlockFault)>, ClientError> {
        let mut faults = Vec::new();
        let mut rest = keys;
        while !rest.is_empty() {
            let (part, _) = rest.split_at(rest.len().min(MAX_BLOCKS));
            let params = BlockKeys {
                keys: part.iter().map(|key| (*key).into()).collect(),
            };
            let result = self.call::<BlockCheck>(&params).await?;
            let checked = result.checked as usize;
            if checked == 0 || checked > part.len() {
                return Err(
                    self.odd("block.check: it says that it checked none, or more than were asked for")
                );
            }
            faults.extend(result.faults.iter().map(|f| (BlockKey::from(f.key), f.fault)));
            rest = rest.split_at(checked).1;
        }
        Ok(faults)
    }

    /// Blocks that the bucket lacks, after `after`, by rising key; fewer than `limit` only at the end. A server of a version that
    /// does not tell lacks none.
    pub async fn wanted(
        &self,
        bucket: &str,
        after: Option<BlockKey>,
        limit: usize,
    ) -> Result<Vec<BlockKey>, ClientError> {
        let mut wanted: Vec<BlockKey> = Vec::new();
        while wanted.len() < limit {
            let last = wanted.last().copied().or(after);
            let params = BlockWantedParams {
                bucket: bucket.to_owned(),
                after: last.map(Into::into),
                limit: (limit - wanted.len()).min(MAX_BLOCKS) as u32,
            };
            let result = match self.call::<BlockWanted>(&params).await {
                Err(error) if error.code() == Some(Code::MethodNotFound) => break,
                result => result?,
            };
            let keys: Vec<BlockKey> = result.keys.into_iter().map(Into::into).collect();
            let in_order = last.iter().chain(&keys).is_sorted_by(|a, b| a < b);
            if !in_order || keys.len() > limit - wanted.len() || (keys.is_empty() && result.more) {
                return Err(self.odd("block.wanted: out of order, or another number than was asked for"));
            }
            wanted.extend(keys);
            if !result.more {
                break;
            }
        }
        Ok(wanted)
    }

    /// Groups after `after`, counted anew from their rows, and whether there are more.
    pub async fn recount(
        &self,
        bucket: &str,
        after: Option<u64>,
    ) -> Result<(Vec<Recounted>, bool), ClientError> {
        let params = TreeGroupsParams {
            bucket: bucket.to_owned(),
            after,
            limit: MAX_RECOUNTED as u32,
        };
        let result = self.call::<TreeRecount>(&params).await?;
        if result.groups.is_empty() && result.more {
            return Err(self.odd("tree.recount: more groups promised, none sent"));
        }
        let numbers = after.into_iter().chain(result.groups.iter().map(|g| g.group));
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(self.odd("tree.recount: the groups are out of order"));
        }
        let groups = result.groups.iter().map(|g| Recounted {
            group: g.group,
            kept: g.kept.into(),
            counted: g.counted.into(),
        });
        Ok((groups.collect(), result.more))
    }

    /// Where an object is in the bucket's head. `None`: it is not there, or has no name.
    pub async fn path_of(&self, bucket: &str, id: ObjectId) -> Result<Option<Vec<u8>>, ClientError> {
        match self.stat(bucket, ObjectAt::Id(id.0), None).await {
            Ok(found) => Ok(found.paths.into_iter().next().map(|path| path.0)),
            Err(error) if error.code() == Some(crate::wire::Code::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
