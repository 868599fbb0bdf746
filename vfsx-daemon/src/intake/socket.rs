//! Making a Unix socket to listen on, in place of a stale one but never of a living one.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("socket {path}: another process listens there; stop it, or set another path")]
    InUse { path: String },
    #[error("socket {path}: something that is no socket is there; remove it, or set another path")]
    NotASocket { path: String },
    #[error("socket {path}: cannot {what}: {source}")]
    Io {
        path: String,
        what: &'static str,
        source: io::Error,
    },
}

/// Listens at `path` with these permission bits. The directory is made when only it is missing. Non-blocking.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    let shown = path.display().to_string();
    let fail = |what| {
        let path = shown.clone();
        move |source| BindError::Io { path, what, source }
    };
    if let Some(parent) = path.parent().filter(|p| !p.exists()) {
        fs::create_dir(parent).map_err(fail("make its directory"))?;
    }
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(fail("listen"))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(fail("set its permissions"))?;
    listener.set_nonblocking(true).map_err(fail("configure it"))?;
    Ok(listener)
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let shown = || path.display().to_string();
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(BindError::Io {
                path: shown(),
                what: "look at it",
                source,
            });
        }
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { path: shown() });
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| BindError::Io {
                path: shown(),
                what: "remove the stale one",
                source,
            })
        }
        // Answers, or its queue is full.
        _ => Err(BindError::InUse { path: shown() }),
    }
}
