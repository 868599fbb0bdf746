//! Blocks read lately, for the replicator: most are shipped within a second, without another read.

use bytes::Bytes;
use lru::LruCache;
use restfs_lib::model::BlockKey;
use std::sync::{Mutex, PoisonError};

pub(in crate::catalog) struct Cache {
    inner: Mutex<Inner>,
    limit: usize,
}

struct Inner {
    blocks: LruCache<BlockKey, Bytes>,
    bytes: usize,
}

impl Cache {
    pub(in crate::catalog) fn new(limit: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                blocks: LruCache::unbounded(),
                bytes: 0,
            }),
            limit,
        }
    }

    /// Bytes of blocks that it holds.
    pub(in crate::catalog) fn limit(&self) -> usize {
        self.limit
    }

    pub(in crate::catalog) fn put(&self, key: BlockKey, content: Bytes) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes += content.len();
        if let Some(old) = inner.blocks.put(key, content) {
            inner.bytes -= old.len();
        }
        while inner.bytes > self.limit {
            let Some((_, oldest)) = inner.blocks.pop_lru() else {
                return;
            };
            inner.bytes -= oldest.len();
        }
    }

    pub(in crate::catalog) fn get(&self, key: &BlockKey) -> Option<Bytes> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocks
            .get(key)
            .cloned()
    }

    /// As [`Self::get`], but it stays no longer for it.
    pub(super) fn peek(&self, key: &BlockKey) -> Option<Bytes> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocks
            .peek(key)
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_never_holds_more_bytes_than_its_limit() {
        let cache = Cache::new(100);
        for i in 0..50u8 {
            cache.put(BlockKey([i; 32]), Bytes::from(vec![i; 30]));
        }
        assert_eq!(cache.get(&BlockKey([49; 32])), Some(Bytes::from(vec![49; 30])));
        assert_eq!(cache.get(&BlockKey([46; 32])), None);
        cache.put(BlockKey([49; 32]), Bytes::from(vec![49; 30]));
        assert!(cache.get(&BlockKey([47; 32])).is_some());
        cache.put(BlockKey([1; 32]), Bytes::from(vec![0; 101]));
        assert_eq!(cache.inner.lock().unwrap().bytes, 0);
    }
}
