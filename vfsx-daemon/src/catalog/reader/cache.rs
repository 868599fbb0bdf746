//! Blocks read lately, for the replicator: most are shipped within a second, without another read.

use bytes::Bytes;
use lru::LruCache;
use restfs_lib::model::BlockKey;
use std::sync::{Mutex, PoisonError};

/// Memory that a block takes beside its content: without it a million small files would take hundreds of megabytes.
const BESIDE: usize = 256;

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

    /// Memory that its blocks take at most.
    pub(in crate::catalog) fn limit(&self) -> usize {
        self.limit
    }

    pub(in crate::catalog) fn put(&self, key: BlockKey, content: Bytes) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes += taken(&content);
        if let Some(old) = inner.blocks.put(key, content) {
            inner.bytes -= taken(&old);
        }
        while inner.bytes > self.limit {
            let Some((_, oldest)) = inner.blocks.pop_lru() else {
                return;
            };
            inner.bytes -= taken(&oldest);
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

fn taken(content: &Bytes) -> usize {
    content.len() + BESIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_never_holds_more_bytes_than_its_limit() {
        let cache = Cache::new(3 * (BESIDE + 30));
        for i in 0..50u8 {
            cache.put(BlockKey([i; 32]), Bytes::from(vec![i; 30]));
        }
        assert_eq!(cache.get(&BlockKey([49; 32])), Some(Bytes::from(vec![49; 30])));
        assert_eq!(cache.get(&BlockKey([46; 32])), None);
        cache.put(BlockKey([49; 32]), Bytes::from(vec![49; 30]));
        assert!(cache.get(&BlockKey([47; 32])).is_some());
        cache.put(BlockKey([1; 32]), Bytes::from(vec![0; 2000]));
        assert_eq!(cache.inner.lock().unwrap().bytes, 0);
    }
}
