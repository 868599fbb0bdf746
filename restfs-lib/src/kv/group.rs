//! Many small write closures -> one transaction.

use super::{Kv, KvError, KvWrite};
use std::sync::Arc;

#[derive(Debug, Clone, Copy)]
pub struct GroupOptions {
    /// Writes that may wait; further callers wait for a place.
    pub queue: usize,
    /// Writes in one transaction.
    pub writes: usize,
    /// Pending bytes after which a transaction takes no further write.
    pub bytes: usize,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self { queue: 1024, writes: 256, bytes: 16 * 1024 * 1024 }
    }
}

/// A thread that runs writes from many callers in shared transactions. A write that fails leaves no trace and disturbs
/// no other; when the shared commit fails, all of its writes are answered with that error.
pub struct GroupCommit {}

impl GroupCommit {
    pub fn new(kv: Arc<dyn Kv>, options: GroupOptions) -> std::io::Result<Self> {
        let _ = (kv, options);
        todo!()
    }

    /// Blocks until the write is durable. Not for async code. The closure may run more than once.
    pub fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnMut(&mut dyn KvWrite) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<KvError> + Send + 'static,
    {
        let _ = work;
        todo!()
    }

    /// As [`Self::write`], for async code. A future that is dropped may leave its write done or not done.
    pub async fn write_async<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnMut(&mut dyn KvWrite) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<KvError> + Send + 'static,
    {
        let _ = work;
        todo!()
    }
}
