//! Client of a RestFS server: one connection, many calls under way.
//!
//! [`Client`] is a handle: cloning it shares the connection, which closes when the last clone is gone. A broken
//! connection stays broken; whoever needs it connects again, at its own pace.

mod blocks;
mod calls;
mod connect;
mod connection;
mod endpoint;
mod error;
mod log;
mod replication;
mod tls;
mod verify;
mod wire_count;

pub use blocks::Block;
pub use calls::Entry;
pub use endpoint::{DEFAULT_PORT, Endpoint, Limits, Trust, Url};
pub use error::ClientError;
pub use log::may_be_logged;
pub use replication::Commit;
pub use verify::Recounted;
pub use wire_count::{Counted, Life, Pulse, SILENT_INTERVALS, WireCount};

use crate::wire::{Encoding, Id, Message, Method, Payload};
use connection::Connection;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Slowest link that calls are sized for: a call's time limit grows by what is to be sent before its answer can come.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 * 1024;

/// A connection to a server.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: String,
    encoding: Encoding,
    limits: Limits,
    wire: WireCount,
    connection: Connection,
    /// The server does not know `block.patch`.
    without_patches: AtomicBool,
    /// The server takes no numbers of a comparison's parts.
    without_parts: AtomicBool,
}

impl Client {
    /// Connects, within `limits.connect`.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        connect::connect(endpoint).await
    }

    /// Talks to the server at the other end of a stream: a pipe to one in the same process. `endpoint.url` is used in
    /// texts only.
    pub async fn over<S>(stream: S, endpoint: &Endpoint) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        connect::over(stream, endpoint).await
    }

    /// Calls a method. Waits for its turn when `limits.in_flight` calls are under way.
    pub async fn call<M: Method>(&self, params: &M::Params) -> Result<M::Result, ClientError> {
        let inner = &*self.0;
        let id = inner.connection.next_id();
        let encoded = Payload::encode(inner.encoding, params).and_then(|params| {
            let method = M::NAME.to_owned();
            Message::Request {
                id: Id::Number(id),
                method,
                params,
            }
            .encode(inner.encoding)
        });
        let bytes = encoded.map_err(|error| ClientError::TooLarge {
            method: M::NAME,
            reason: error.message,
        })?;
        let ahead = inner.connection.queued_bytes() + bytes.len() as u64;
        let limit = inner.limits.call + Duration::from_secs(ahead / SLOWEST_BYTES_PER_SECOND);
        let answer = tokio::time::timeout(limit, inner.connection.exchange(id, bytes))
            .await
            .map_err(|_| ClientError::Timeout {
                url: inner.url.clone(),
                method: M::NAME,
                seconds: limit.as_secs(),
            })?
            .map_err(|reason| ClientError::Unreachable {
                url: inner.url.clone(),
                reason,
            })?;
        let result = answer.map_err(|error| ClientError::remote(M::NAME, error))?;
        result.decode().map_err(|error| ClientError::Protocol {
            url: inner.url.clone(),
            reason: format!("answer to {} cannot be read: {}", M::NAME, error.message),
        })
    }

    /// The connection is gone: every further call fails.
    pub fn is_closed(&self) -> bool {
        self.0.connection.is_closed()
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Bytes of all connections made from the endpoint and its clones.
    pub fn wire(&self) -> &WireCount {
        &self.0.wire
    }

    fn new(endpoint: &Endpoint, connection: Connection) -> Self {
        Self(Arc::new(Inner {
            url: endpoint.url.to_string(),
            encoding: endpoint.encoding,
            limits: endpoint.limits,
            wire: endpoint.wire.clone(),
            connection,
            without_patches: AtomicBool::new(false),
            without_parts: AtomicBool::new(false),
        }))
    }
}
