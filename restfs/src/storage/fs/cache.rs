//! Verified blocks, the least recently read ones leave first. Bounded by bytes.

use bytes::Bytes;
use lru::LruCache;
use restfs_lib::model::BlockKey;

/// What an entry costs beside its content.
const OVERHEAD: usize = 128;

pub(super) struct BlockCache {
    blocks: LruCache<BlockKey, Bytes>,
    bytes: usize,
    limit: usize,
}

impl BlockCache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            blocks: LruCache::unbounded(),
            bytes: 0,
            limit,
        }
    }

    pub(super) fn get(&mut self, key: BlockKey) -> Option<Bytes> {
        self.blocks.get(&key).cloned()
    }

    pub(super) fn put(&mut self, key: BlockKey, content: Bytes) {
        let cost = content.len() + OVERHEAD;
        if cost > self.limit {
            return;
        }
        self.bytes += cost;
        if let Some(old) = self.blocks.put(key, content) {
            self.bytes -= old.len() + OVERHEAD;
        }
        while self.bytes > self.limit {
            let Some((_, old)) = self.blocks.pop_lru() else {
                break;
            };
            self.bytes -= old.len() + OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_holds_more_than_its_limit() {
        let mut cache = BlockCache::new(10 * 1024);
        for i in 0..100_u8 {
            cache.put(BlockKey([i; 32]), Bytes::from(vec![i; 1000]));
            cache.put(BlockKey([i; 32]), Bytes::from(vec![i; 1000]));
            let held: usize = cache.blocks.iter().map(|(_, b)| b.len() + OVERHEAD).sum();
            assert_eq!(held, cache.bytes);
            assert!(held <= 10 * 1024);
        }
        assert!(cache.get(BlockKey([99; 32])).is_some());
        assert!(cache.get(BlockKey([0; 32])).is_none());
        cache.put(BlockKey([200; 32]), Bytes::from(vec![0; 20 * 1024]));
        assert!(cache.get(BlockKey([200; 32])).is_none());
    }
}
