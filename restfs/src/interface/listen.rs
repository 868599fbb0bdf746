//! Sockets that connections come from.

use super::connection::{Peer, serve, serve_counted};
use super::{DRAIN, Hub, handshake};
use restfs_lib::client::{Counted, WireCount};
use restfs_lib::disk::is_full;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// After an accept that failed for want of descriptors: until some connection has ended.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("listening on {address}: {source}; {advice}")]
    Tcp {
        address: SocketAddr,
        source: io::Error,
        advice: &'static str,
    },
    #[error("socket {path}: {source}; {advice}")]
    Unix {
        path: String,
        source: io::Error,
        advice: &'static str,
    },
}

/// A socket that is bound.
pub enum Bound {
    Tcp(TcpListener, Option<TlsAcceptor>),
    Unix(UnixListener),
}

impl Bound {
    /// Where it listens; the port that the system chose for port 0.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

pub async fn bind_tcp(address: SocketAddr, tls: Option<TlsAcceptor>) -> Result<Bound, ListenError> {
    let listener = TcpListener::bind(address).await.map_err(|source| {
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port: stop it, or set `listen` to another one"
            }
            io::ErrorKind::AddrNotAvailable => {
                "set `listen` to an address of this machine, or 0.0.0.0 for all"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 are root's: set `listen` to a higher one",
            _ => "check `listen`",
        };
        ListenError::Tcp {
            address,
            source,
            advice,
        }
    })?;
    Ok(Bound::Tcp(listener, tls))
}

/// Replaces a socket that an earlier run left behind: the data directory's lock is held, so nobody listens there.
pub fn bind_unix(path: &Path) -> Result<Bound, ListenError> {
    let failed = |source: io::Error| {
        let advice = match source.kind() {
            io::ErrorKind::InvalidInput => {
                "the path of a socket is limited to 107 bytes: set `data_dir` to a shorter one"
            }
            _ if is_full(&source) => "free space, enlarge the file system, or raise the quota",
            _ => "check that the data directory belongs to the user that runs restfs",
        };
        ListenError::Unix {
            path: path.display().to_string(),
            source,
            advice,
        }
    };
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Bound::Unix(listener))
}

/// Takes connections until the server ends, then waits for them.
pub(super) async fn accept(hub: Arc<Hub>, listener: Bound) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = hub.ended() => break,
            accepted = accept_one(&hub, &listener) => match accepted {
                Ok((socket, permit)) => {
                    connections.spawn(start(hub.clone(), socket, permit));
                }
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // Each ends its calls within the same time, then its writer.
    let _ = tokio::time::timeout(3 * DRAIN, all_ended).await;
}

enum Socket {
    Tcp(TcpStream, SocketAddr, Option<TlsAcceptor>),
    Unix(UnixStream),
}

/// With all places taken, further clients wait in the listener's queue.
async fn accept_one(hub: &Hub, listener: &Bound) -> io::Result<(Socket, OwnedSemaphorePermit)> {
    let places = match listener {
        Bound::Tcp(..) => &hub.connections,
        Bound::Unix(_) => &hub.local_connections,
    };
    let permit = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let socket = match listener {
        Bound::Tcp(listener, tls) => {
            let (stream, peer) = listener.accept().await?;
            // An answer must not wait for the acknowledgement of the packet before it.
            stream.set_nodelay(true)?;
            Socket::Tcp(stream, peer, tls.clone())
        }
        Bound::Unix(listener) => Socket::Unix(listener.accept().await?.0),
    };
    Ok((socket, permit))
}

async fn start(hub: Arc<Hub>, socket: Socket, _permit: OwnedSemaphorePermit) {
    match socket {
        Socket::Tcp(stream, peer, None) => serve_counted(hub, stream, Peer::Address(peer)).await,
        Socket::Tcp(stream, peer, Some(tls)) => {
            let count = WireCount::default();
            let shaking = tls.accept(Counted::new(stream, count.clone()));
            match tokio::time::timeout(handshake::TIME_LIMIT, shaking).await {
                Ok(Ok(stream)) => serve(hub, stream, count, Peer::Address(peer)).await,
                Ok(Err(error)) => tracing::info!(%peer, "TLS handshake failed: {error}"),
                Err(_) => tracing::info!(%peer, "no TLS handshake in time"),
            }
        }
        Socket::Unix(stream) => {
            let peer = if is_own(&stream) {
                Peer::Own
            } else {
                Peer::OtherUser
            };
            serve_counted(hub, stream, peer).await;
        }
    }
}

/// Root and the server's own user administer it; others need a token here too.
fn is_own(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}
