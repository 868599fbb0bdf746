//! The port: answers `GET /metrics`, one request per connection.

use super::page;
use crate::engine::{self, ShareEngine};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Head of a request; a browser's is a tenth of it.
const REQUEST_MAX: u64 = 16 * 1024;
const WITHIN: Duration = Duration::from_secs(10);
/// Requests at once; more wait.
const AT_ONCE: usize = 8;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
#[error("metrics {address}: {source}; is another program at that port?")]
pub struct MetricsError {
    address: SocketAddr,
    source: io::Error,
}

/// Answers until it is dropped.
pub struct MetricsServer {
    _tasks: JoinSet<()>,
}

impl MetricsServer {
    pub async fn start(address: SocketAddr, shares: &[Arc<ShareEngine>]) -> Result<Self, MetricsError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| MetricsError { address, source })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shares.to_vec().into()));
        Ok(Self { _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, shares: Arc<[Arc<ShareEngine>]>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shares = Arc::clone(&shares);
                connections.spawn(async move {
                    let served = tokio::time::timeout(WITHIN, serve(stream, &shares)).await;
                    if !matches!(served, Ok(Ok(()))) {
                        tracing::debug!(?served, "a request for metrics has ended early");
                    }
                    drop(turn);
                });
            }
            Err(error) => {
                tracing::error!(%error, "a request for metrics cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shares: &[Arc<ShareEngine>]) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(REQUEST_MAX)).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    // To the end of the head: who is answered before may not read the answer.
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let mut words = request.split(' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => ("200 OK", page(&engine::report(shares).await)),
        (Some("GET"), _) => ("404 Not Found", "it is at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    write.write_all(head.as_bytes()).await?;
    write.write_all(body.as_bytes()).await?;
    write.shutdown().await
}
