//! Listening on the control socket.

use super::commands::Commands;
use super::protocol::{Reply, Request};
use crate::engine::ShareEngine;
use crate::intake::{BindError, bind};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Longest request.
const REQUEST_MAX: u64 = 64 * 1024;
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Commands at once; more wait for their turn.
const AT_ONCE: usize = 64;
/// Replies that wait for a slow reader; then the command waits too.
const REPLIES: usize = 16;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Only the daemon's own user may give orders.
const MODE: u32 = 0o600;

/// Answers until it is dropped.
pub struct ControlServer {
    path: PathBuf,
    _tasks: JoinSet<()>,
}

impl ControlServer {
    pub fn start(path: &Path, shares: &[Arc<ShareEngine>]) -> Result<Self, BindError> {
        let listener = bind(path, MODE)?;
        let listener = UnixListener::from_std(listener).map_err(|source| BindError::Io {
            path: path.display().to_string(),
            what: "wait on it",
            source,
        })?;
        let commands = Arc::new(Commands::new(shares.to_vec()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, commands));
        Ok(Self {
            path: path.to_owned(),
            _tasks: tasks,
        })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // A file left behind would be taken for stale.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, commands: Arc<Commands>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let commands = Arc::clone(&commands);
                connections.spawn(async move {
                    if let Err(error) = serve(stream, commands).await {
                        tracing::debug!(%error, "a control connection has ended early");
                    }
                    drop(turn);
                });
            }
            Err(error) => {
                tracing::error!(%error, "a control connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, commands: Arc<Commands>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    let mut limited = (&mut read).take(REQUEST_MAX);
    tokio::time::timeout(REQUEST_WITHIN, limited.read_line(&mut line)).await??;
    // Only now: a peer that is still writing would not see the answer.
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return tell(&mut write, &usage("only root may control vfsxd".into())).await;
    }
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return tell(&mut write, &usage(format!("request: {error}"))).await,
    };
    tracing::debug!(?request, "control");
    let (replies, mut told) = mpsc::channel(REPLIES);
    let work = commands.run(request, replies);
    let deliver = async {
        while let Some(reply) = told.recv().await {
            tell(&mut write, &reply).await?;
        }
        Ok(())
    };
    // Whoever closes the connection gives the command up.
    let mut more = [0; 1];
    tokio::select! {
        ((), outcome) = async { tokio::join!(work, deliver) } => outcome,
        _ = read.read(&mut more) => Ok(()),
    }
}

fn usage(text: String) -> Reply {
    Reply::Error { text, usage: true }
}

async fn tell(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}
