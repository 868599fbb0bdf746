//! The methods of the RPC, apart from how calls come in: sockets and commands use [`Service::call`] alike.

mod access;
mod admin;
mod attribute;
mod block;
mod bucket;
mod content;
mod dispatch;
mod edit;
mod failure;
mod held;
mod need;
mod object;
mod point;
mod purge;
mod replication;
mod space;
mod token;
mod tree;
mod upkeep;
mod verify;

use crate::auth::Auth;
use crate::metadata::Metadata;
use crate::storage::BlockStore;
use restfs_lib::kv::Kv;
use restfs_lib::model::Time;
use restfs_lib::wire::{Code, RpcError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, RwLock, Semaphore};

pub(crate) use point::fuzz as fuzz_point;
pub use space::Space;
pub use upkeep::{GcOptions, ScrubOptions, Upkeep};

/// A data directory's metadata and blocks, and all that can be asked of them.
pub struct Service {
    metadata: Metadata,
    blocks: Arc<dyn BlockStore>,
    auth: Auth,
    started: Time,
    upkeep: Arc<Upkeep>,
    space: Space,
    sent: held::Sent,
    connections: AtomicU64,
    /// Threads that serve sockets and may do small reads themselves.
    on_the_spot: Semaphore,
    /// Read by who names blocks, from before it looks whether they are here until its transaction has ended. A collection
    /// writes: then all are through that it did not see.
    naming: Arc<RwLock<()>>,
    /// Held by who removes the rows of purged points.
    sweeping: Mutex<()>,
}

impl Service {
    pub fn new(
        kv: Arc<dyn Kv>,
        blocks: Arc<dyn BlockStore>,
        upkeep: Upkeep,
        space: Space,
    ) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            metadata: Metadata::new(kv)?,
            blocks,
            auth: Auth::default(),
            started: now(),
            upkeep: Arc::new(upkeep),
            space,
            sent: held::Sent::default(),
            connections: AtomicU64::new(0),
            on_the_spot: Semaphore::new(threads().saturating_sub(1).max(1)),
            naming: Arc::default(),
            sweeping: Mutex::default(),
        }))
    }

    /// Who sends this `Authorization` header.
    pub fn authenticate(&self, header: Option<&str>) -> Result<crate::auth::Identity, RpcError> {
        self.metadata.read(|kv| self.auth.authenticate(kv, header))
    }

    /// Connections open now, for `server.info`.
    pub fn connections(&self) -> &AtomicU64 {
        &self.connections
    }

    /// Removes the rows of deleted buckets, in pieces between which others write.
    pub async fn purge_deleted(self: &Arc<Self>) -> Result<(), RpcError> {
        bucket::purge_deleted(self).await
    }

    /// Removes the rows that only purged points needed, in pieces between which others write.
    pub async fn finish_purges(self: &Arc<Self>) {
        purge::finish(Arc::downgrade(self)).await;
    }

    /// Ends what was begun on the side: it goes on at the next start. To be called before the stores are closed.
    pub async fn end(self: &Arc<Self>) {
        let service = self.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || service.end_upkeep()).await {
            tracing::error!("ending the upkeep: {error}");
        }
        // Whoever holds it sees that this is the end.
        drop(self.sweeping.lock().await);
    }

    /// Runs work that blocks, off the threads that serve the sockets.
    async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T, RpcError>
    where
        F: FnOnce(&Service) -> Result<T, RpcError> + Send + 'static,
        T: Send + 'static,
    {
        let service = self.clone();
        tokio::task::spawn_blocking(move || work(&service))
            .await
            .unwrap_or_else(|e| Err(RpcError::new(Code::Internal, format!("the call broke off: {e}"))))
    }

    fn open_connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// That the runtime serves sockets with.
fn threads() -> usize {
    tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers())
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_ns(i128::try_from(since.as_nanos()).unwrap_or(i128::MAX))
}

/// Nanoseconds since the epoch, as records keep them.
fn now_ns() -> i64 {
    i64::try_from(now().ns()).unwrap_or(i64::MAX)
}
