//! Which blocks a token may know of. Blocks are stored by their content, whatever bucket they came for; so a token that is good for
//! one bucket gets only those that a commit of this bucket named, and those whose content was sent for it. Any other block
//! is to it as one that is not here.

use super::Service;
use crate::auth::Identity;
use restfs_lib::kv::KvRead;
use restfs_lib::model::{BlockKey, BucketId};
use restfs_lib::tree::{bucket, held};
use restfs_lib::wire::RpcError;
use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks of one bucket that were sent and that no commit has named so far: twice this many are remembered at least, which is more
/// than two commits name. What is forgotten is sent once more.
const REMEMBERED: usize = 65_536;

/// Blocks that were sent for a bucket since the start, until a commit names them.
#[derive(Debug, Default)]
pub(super) struct Sent(Mutex<HashMap<BucketId, Generations>>);

#[derive(Debug, Default)]
struct Generations {
    new: HashSet<BlockKey>,
    old: HashSet<BlockKey>,
}

/// What is said of a bucket whose rows are not whole yet, since its commits are of a version that had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsure {
    /// Not its own: it is sent again, which costs nothing else.
    No,
    /// Perhaps its own: nobody could send it again.
    Yes,
}

impl Sent {
    fn note(&self, bucket: BucketId, key: BlockKey) {
        let mut sent = self.lock();
        let of_bucket = sent.entry(bucket).or_default();
        of_bucket.new.insert(key);
        if of_bucket.new.len() > REMEMBERED {
            of_bucket.old = mem::take(&mut of_bucket.new);
        }
    }

    fn has(&self, bucket: BucketId, key: &BlockKey) -> bool {
        let sent = self.lock();
        let of_bucket = sent.get(&bucket);
        of_bucket.is_some_and(|sent| sent.new.contains(key) || sent.old.contains(key))
    }

    /// The bucket's rows have them.
    fn forget(&self, bucket: BucketId, keys: impl IntoIterator<Item = BlockKey>) {
        let mut sent = self.lock();
        let Some(of_bucket) = sent.get_mut(&bucket) else {
            return;
        };
        for key in keys {
            of_bucket.new.remove(&key);
            of_bucket.old.remove(&key);
        }
        if of_bucket.new.is_empty() && of_bucket.old.is_empty() {
            sent.remove(&bucket);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BucketId, Generations>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Who sent it has its content.
    pub(super) fn note_sent(&self, identity: &Identity, key: BlockKey) {
        if let Some(bucket) = identity.bucket {
            self.sent.note(bucket, key);
        }
    }

    /// A commit named them.
    pub(super) fn note_named(&self, identity: &Identity, keys: impl IntoIterator<Item = BlockKey>) {
        if let Some(bucket) = identity.bucket {
            self.sent.forget(bucket, keys);
        }
    }

    /// Those of the blocks that the token may not know of, whether they are here or not.
    pub(super) fn foreign(
        &self,
        identity: &Identity,
        keys: &[BlockKey],
        unsure: Unsure,
    ) -> Result<HashSet<BlockKey>, RpcError> {
        match identity.bucket {
            None => Ok(HashSet::new()),
            Some(bucket) => self.metadata.read(|kv| self.foreign_to(kv, bucket, keys, unsure)),
        }
    }

    fn foreign_to(
        &self,
        kv: &dyn KvRead,
        id: BucketId,
        keys: &[BlockKey],
        unsure: Unsure,
    ) -> Result<HashSet<BlockKey>, RpcError> {
        let record = bucket::get(kv, id)?.filter(|record| !record.deleted);
        let Some(record) = record else {
            return Ok(keys.iter().copied().collect());
        };
        if unsure == Unsure::Yes && !held::is_whole(kv, &record)? {
            return Ok(HashSet::new());
        }
        let mut foreign = HashSet::new();
        for key in keys {
            if !self.sent.has(id, key) && !held::holds(kv, id, key)? {
                foreign.insert(*key);
            }
        }
        Ok(foreign)
    }

    /// Those of the blocks that a `block.put` of this token is needed for, in the order given, each once.
    pub(super) fn missing_for(
        &self,
        identity: &Identity,
        keys: &[BlockKey],
    ) -> Result<Vec<BlockKey>, RpcError> {
        let foreign = self.foreign(identity, keys, Unsure::No)?;
        if foreign.is_empty() {
            return Ok(self.blocks.missing(keys)?);
        }
        let own: Vec<BlockKey> = keys
            .iter()
            .copied()
            .filter(|key| !foreign.contains(key))
            .collect();
        let mut wanted: HashSet<BlockKey> = self.blocks.missing(&own)?.into_iter().collect();
        wanted.extend(foreign);
        Ok(keys.iter().copied().filter(|key| wanted.remove(key)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> BlockKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        BlockKey(key)
    }

    #[test]
    fn what_was_sent_is_remembered_until_it_is_named_or_much_more_was_sent() {
        let (sent, bucket) = (Sent::default(), BucketId(1));
        for number in 0..=REMEMBERED {
            sent.note(bucket, key(number));
        }
        assert!(sent.has(bucket, &key(0)) && sent.has(bucket, &key(REMEMBERED)));
        assert!(!sent.has(BucketId(2), &key(0)), "another bucket's");
        sent.forget(bucket, [key(0)]);
        assert!(!sent.has(bucket, &key(0)) && sent.has(bucket, &key(1)));
        for number in 0..=REMEMBERED {
            sent.note(bucket, key(2 * REMEMBERED + number));
        }
        assert!(!sent.has(bucket, &key(1)));
        let kept = sent.lock();
        let kept = kept[&bucket].new.len() + kept[&bucket].old.len();
        assert!(kept <= 2 * REMEMBERED + 1, "{kept}");
    }

    #[test]
    fn a_bucket_that_has_named_all_takes_no_memory() {
        let sent = Sent::default();
        sent.note(BucketId(1), key(1));
        sent.forget(BucketId(1), [key(1)]);
        assert!(sent.lock().is_empty());
    }
}
