//! Takes in what the modules report: one connection per tree connect of each smbd process, whose events go into the
//! share's journal and are acknowledged when they are on disk.
//!
//! Reading from a module never waits for anything but the append to the journal, and when that fails the events are
//! read and dropped: a slow or broken disk here never blocks smbd.

mod acks;
mod activation;
mod arrivals;
mod barrier;
mod capture;
mod commits;
mod connection;
mod flags;
#[doc(hidden)]
pub mod fuzzing;
mod handshakes;
mod memory;
mod moments;
mod outbox;
mod pace;
mod pending_gap;
mod places;
mod rarely;
mod receive;
mod share;
mod socket;
mod spool;
mod tend;
mod written;

#[cfg(test)]
pub(crate) mod tests;

pub use activation::{ActivationError, handed_over};
pub use barrier::BarrierError;
pub use capture::{CaptureMode, Demand};
pub use commits::DurabilityFacts;
pub use moments::IntakeSessions;
pub use pending_gap::PendingGap;
pub use places::PlacesFacts;
pub use share::{COMES_BACK_WITHIN, Left, ShareIntake, now_ns};
pub use socket::{BindError, bind};
pub use spool::prepare_spool;

use connection::Door;
use handshakes::Handshakes;
use places::{Place, Places};
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vfsx_proto::{Hello, ToDaemon};

/// How often a share is tended.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Modules that were connected to a vfsxd before this one, or to none, try again within two seconds. A barrier made
/// earlier after the start would miss what they hold.
const ALL_CONNECTED_AFTER: Duration = Duration::from_millis(2_500);
/// Pause after a failed accept (no file descriptors): the queue of the socket holds the others meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const ONLY_ROOT: u32 = 0;

/// The running intake. Dropping it closes the socket and all connections; what is not acknowledged stays with the
/// modules.
pub struct Intake {
    barriers: Barriers,
    /// Nobody listens there after this.
    is_ours: bool,
    tasks: JoinSet<()>,
    /// `None` while it is dropped.
    runtime: Option<Runtime>,
}

impl Intake {
    /// Listens at `path`, or takes over the socket there that somebody else has opened and keeps ([`handed_over`]). On a thread of
    /// its own: see [`pace`].
    pub fn start(
        path: &Path,
        handed_over: Option<StdListener>,
        allow_uids: &[u32],
        sessions_max: usize,
        shares: Vec<Arc<ShareIntake>>,
    ) -> Result<Self, BindError> {
        // The peer's user is checked on each connection; the mode only keeps others from trying.
        let mode = if allow_uids.iter().all(|uid| *uid == ONLY_ROOT) {
            0o600
        } else {
            0o666
        };
        let is_ours = handed_over.is_none();
        let listener = handed_over.map_or_else(|| bind(path, mode), Ok)?;
        let runtime = pace::runtime().map_err(|source| BindError::Io {
            path: path.display().to_string(),
            what: "start a thread for it",
            source,
        })?;
        let entered = runtime.enter();
        let listener = UnixListener::from_std(listener).map_err(|source| BindError::Io {
            path: path.display().to_string(),
            what: "wait on it",
            source,
        })?;
        let handshakes = Handshakes::new();
        let mut tasks = JoinSet::new();
        for share in &shares {
            tasks.spawn(Arc::clone(share).acknowledge_synced());
            tasks.spawn(tend(Arc::clone(share)));
        }
        let door = Arc::new(Door {
            shares,
            allow_uids: allow_uids.to_vec(),
            places: Places::new(sessions_max),
        });
        tasks.spawn(accept(listener, Arc::clone(&door), handshakes.clone()));
        let barriers = Barriers {
            path: path.to_owned(),
            handshakes,
            door,
            from: Instant::now() + ALL_CONNECTED_AFTER,
        };
        drop(entered);
        Ok(Self {
            barriers,
            is_ours,
            tasks,
            runtime: Some(runtime),
        })
    }

    pub fn barriers(&self) -> Barriers {
        self.barriers.clone()
    }

    /// Takes no more connections and closes all.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        if self.is_ours {
            // Nobody listens there any more; a file left behind would be taken for stale.
            let _ = std::fs::remove_file(&self.barriers.path);
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Drops what still runs, without waiting for it.
            runtime.shutdown_background();
        }
    }
}

/// Makes barriers; for those who do not hold the intake.
#[derive(Clone)]
pub struct Barriers {
    path: PathBuf,
    handshakes: Handshakes,
    door: Arc<Door>,
    /// All modules have had the time to connect.
    from: Instant,
}

impl Barriers {
    /// Whether all modules have had the time to connect since the start: before that, one may hold changes that nobody here
    /// has heard of, in a session that nobody here knows.
    pub fn all_connected(&self) -> bool {
        Instant::now() >= self.from
    }

    /// How many sessions there are, of all shares, and may be.
    pub fn places(&self) -> PlacesFacts {
        self.door.places.facts()
    }

    /// Waits until everything that clients did on the share before this call is in its journal; returns the newest record then.
    pub async fn barrier(&self, share: &Arc<ShareIntake>, deadline: Instant) -> Result<u64, BarrierError> {
        tokio::time::sleep_until(self.from.min(deadline)).await;
        self.registered(share, deadline).await?;
        share.barrier(deadline).await
    }

    /// Waits until the modules that were connected before this call are registered.
    async fn registered(&self, share: &ShareIntake, deadline: Instant) -> Result<(), BarrierError> {
        let timeout = |_| BarrierError::Timeout {
            share: share.name().to_owned(),
            waiting: 1,
        };
        tokio::time::timeout_at(deadline, probe(&self.path))
            .await
            .map_err(timeout)?
            .map_err(BarrierError::OwnSocket)?;
        tokio::time::timeout_at(deadline, self.handshakes.ended_before_now())
            .await
            .map_err(timeout)
    }
}

/// Connections are accepted in their order, so when this one is answered all earlier ones are accepted.
async fn probe(path: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(path).await?;
    let mut hello = vfsx_proto::preamble().to_vec();
    let nobody = Hello {
        pid: std::process::id(),
        ..Hello::default()
    };
    vfsx_proto::encode(&ToDaemon::Hello(nobody), &mut hello).map_err(io::Error::other)?;
    stream.write_all(&hello).await?;
    let mut answer = [0; 64];
    while stream.read(&mut answer).await? > 0 {}
    Ok(())
}

async fn accept(listener: UnixListener, door: Arc<Door>, handshakes: Handshakes) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept_one(&listener, &door.places) => match accepted {
                Ok((stream, place)) => {
                    let handshake = handshakes.begin();
                    connections.spawn(connection::serve(stream, Arc::clone(&door), handshake, place));
                }
                Err(error) => {
                    door.places.note_accept_failure(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept_one(listener: &UnixListener, places: &Places) -> io::Result<(UnixStream, Place)> {
    let place = places.for_greeting().await?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn tend(share: Arc<ShareIntake>) {
    loop {
        let tended = Arc::clone(&share);
        if tokio::task::spawn_blocking(move || tended.tend()).await.is_err() {
            tracing::error!(share = share.name(), "tending the share panicked");
        }
        // Also when it is not its time.
        let _ = tokio::time::timeout(TEND_EVERY, share.hurried.notified()).await;
    }
}
