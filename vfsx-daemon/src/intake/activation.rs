//! A socket that the service manager listens on: who connects while vfsxd is not there waits in its queue.

use listenfd::ListenFd;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    #[error("socket activation: {0} sockets were handed over; vfsxd takes one, for modules")]
    Several(usize),
    #[error(
        "socket activation: what was handed over is no Unix stream socket that listens: {0}; check the unit's ListenStream"
    )]
    NoSocket(io::Error),
    #[error(
        "socket activation: the socket that was handed over listens at {listens}, and `socket` is {socket}: make them the same"
    )]
    AnotherPath { listens: String, socket: String },
    #[error(
        "socket activation: the socket that was handed over cannot be reached, since nothing is at {socket} any more; restart its unit"
    )]
    Unreachable { socket: String },
}

/// The socket that was handed to this process, when one was (`LISTEN_FDS`). It has to be at `socket`, where modules connect, and
/// vfsxd itself. To be called once, as long as there is one thread.
pub fn handed_over(socket: &Path) -> Result<Option<UnixListener>, ActivationError> {
    let mut handed = ListenFd::from_env();
    if handed.len() > 1 {
        return Err(ActivationError::Several(handed.len()));
    }
    let taken = handed.take_unix_listener(0);
    let Some(listener) = taken.map_err(ActivationError::NoSocket)? else {
        return Ok(None);
    };
    if !rustix::net::sockopt::socket_acceptconn(&listener).map_err(|e| ActivationError::NoSocket(e.into()))? {
        return Err(ActivationError::NoSocket(io::Error::other("it does not listen")));
    }
    let address = listener.local_addr().map_err(ActivationError::NoSocket)?;
    let listens = address.as_pathname();
    // One of the two may lead through a symbolic link, as /var/run does.
    let is_same = |path: &Path| {
        path == socket
            || path
                .canonicalize()
                .is_ok_and(|path| Some(path) == socket.canonicalize().ok())
    };
    if !listens.is_some_and(is_same) {
        return Err(ActivationError::AnotherPath {
            listens: listens.map_or_else(|| "no path".to_owned(), |path| path.display().to_string()),
            socket: socket.display().to_string(),
        });
    }
    if !socket.exists() {
        return Err(ActivationError::Unreachable {
            socket: socket.display().to_string(),
        });
    }
    listener
        .set_nonblocking(true)
        .map_err(ActivationError::NoSocket)?;
    Ok(Some(listener))
}
