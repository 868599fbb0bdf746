//! How calls come in: WebSocket on TCP, with or without TLS, and on the Unix socket of the data directory.

mod connection;
mod handshake;
mod listen;
mod memory;
mod tls;

pub use connection::serve_local;
pub use listen::{Bound, ListenError, bind_tcp, bind_unix};
pub use tls::{Certificate, TlsError, fingerprint};

use crate::service::Service;
use memory::Memory;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Calls under way when the server ends have this long.
const DRAIN: Duration = Duration::from_secs(20);

/// Connections on the Unix socket.
const LOCAL_CONNECTIONS: usize = 64;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the network.
    pub connections: usize,
    /// Messages under way, bytes.
    pub memory: usize,
}

/// What all connections share.
pub struct Hub {
    service: Arc<Service>,
    memory: Memory,
    connections: Arc<Semaphore>,
    /// Apart, so that an admin gets in when the network has taken all places.
    local_connections: Arc<Semaphore>,
    /// True once the server ends.
    ending: watch::Receiver<bool>,
}

impl Hub {
    pub fn new(service: Arc<Service>, limits: Limits, ending: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self {
            service,
            memory: Memory::new(limits.memory),
            connections: Arc::new(Semaphore::new(limits.connections)),
            local_connections: Arc::new(Semaphore::new(LOCAL_CONNECTIONS)),
            ending,
        })
    }

    /// Serves until `ending` turns true and the calls under way are done.
    pub async fn serve(self: Arc<Self>, listeners: Vec<Bound>) {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(listen::accept(self.clone(), listener));
        }
        while accepting.join_next().await.is_some() {}
    }

    async fn ended(&self) {
        let mut ending = self.ending.clone();
        // A sender that is gone means the same.
        let _ = ending.wait_for(|ending| *ending).await;
    }
}
