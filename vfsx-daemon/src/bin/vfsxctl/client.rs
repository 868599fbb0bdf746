//! One request to vfsxd.

use crate::outcome::Failure;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use vfsx_daemon::control::{Done, Progress, Reply, Request};
use vfsx_daemon::status::StatusReport;

pub(crate) struct Client {
    replies: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn ask(socket: &Path, request: &Request) -> Result<Self, Failure> {
        let mut stream = UnixStream::connect(socket).map_err(|e| unreachable(socket, &e))?;
        let mut line = serde_json::to_vec(request).map_err(|e| Failure::failed(e.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(|e| lost(&e))?;
        Ok(Self {
            replies: BufReader::new(stream),
        })
    }

    /// Reads to the last line.
    pub(crate) fn outcome(mut self, mut progress: impl FnMut(Progress)) -> Result<Done, Failure> {
        loop {
            let mut line = String::new();
            if self.replies.read_line(&mut line).map_err(|e| lost(&e))? == 0 {
                return Err(Failure::failed(
                    "vfsxd: the connection was closed: it is stopping".into(),
                ));
            }
            let reply = serde_json::from_str(&line).map_err(|e| {
                Failure::failed(format!(
                    "vfsxd: the answer is not understood: {e}; install one release of both"
                ))
            })?;
            match reply {
                Reply::Progress(told) => progress(told),
                Reply::Done(done) => return Ok(done),
                Reply::Error { text, usage: true } => return Err(Failure::usage(text)),
                Reply::Error { text, usage: false } => return Err(Failure::failed(text)),
            }
        }
    }

    pub(crate) fn status(self) -> Result<StatusReport, Failure> {
        match self.outcome(|_| ())? {
            Done::Status(report) => Ok(report),
            other => Err(Failure::failed(format!(
                "vfsxd: an answer to something else: {other:?}"
            ))),
        }
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let help = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "vfsxd does not run there; start it, or name its socket with --socket"
        }
        io::ErrorKind::PermissionDenied => "only root may control vfsxd",
        _ => "is it vfsxd's control socket?",
    };
    Failure::failed(format!("control socket {}: {error}; {help}", socket.display()))
}

fn lost(error: &io::Error) -> Failure {
    Failure::failed(format!("vfsxd: the connection was lost: {error}"))
}
