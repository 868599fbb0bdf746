//! The metadata manager: one store, reads as of a moment, writes that share their fsync.

pub mod commits;

use restfs_lib::kv::{GroupCommit, GroupOptions, Kv, KvRead, KvWrite};
use restfs_lib::wire::RpcError;
use std::sync::Arc;

pub struct Metadata {
    kv: Arc<dyn Kv>,
    group: GroupCommit,
}

impl Metadata {
    pub fn new(kv: Arc<dyn Kv>) -> std::io::Result<Self> {
        let group = GroupCommit::new(kv.clone(), GroupOptions::default())?;
        Ok(Self { kv, group })
    }

    /// Sees one moment. Blocks.
    pub fn read<T>(&self, work: impl FnOnce(&dyn KvRead) -> Result<T, RpcError>) -> Result<T, RpcError> {
        let snapshot = self.kv.read()?;
        work(&*snapshot)
    }

    /// As [`Self::write`], for threads that may block.
    pub fn write_blocking<T, F>(&self, work: F) -> Result<T, RpcError>
    where
        F: FnMut(&mut dyn KvWrite) -> Result<T, RpcError> + Send + 'static,
        T: Send + 'static,
    {
        self.group.write(work)
    }

    /// Durable when it returns. The closure may run more than once.
    pub async fn write<T, F>(&self, work: F) -> Result<T, RpcError>
    where
        F: FnMut(&mut dyn KvWrite) -> Result<T, RpcError> + Send + 'static,
        T: Send + 'static,
    {
        self.group.write_async(work).await
    }
}
