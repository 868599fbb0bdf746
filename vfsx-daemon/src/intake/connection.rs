//! One connection of a module.

use super::handshakes::Handshake;
use super::share::{Registration, ShareIntake};
use crate::journal::{Body, Session};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use vfsx_proto::{Decoder, FrameError, Hello, PREAMBLE, PreambleError, Refusal, ToDaemon, ToModule, Welcome};

/// A module says who it is as soon as it is connected.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Bytes taken from the socket at once; events in it become one append.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("no hello within {HELLO_WITHIN:?}")]
    Silent,
    #[error("the peer sent something else than a hello first")]
    NoHello,
    #[error("the peer said hello twice")]
    SecondHello,
    #[error("refused: {0}")]
    Refused(String),
}

/// What a connection needs of the intake.
pub(super) struct Door {
    pub(super) shares: Vec<Arc<ShareIntake>>,
    pub(super) allow_uids: Vec<u32>,
}

/// Serves the connection until either end closes it.
pub(super) async fn serve(stream: UnixStream, door: Arc<Door>, handshake: Handshake) {
    let id = handshake.id;
    let uid = stream.peer_cred().map(|c| c.uid());
    let (read, write) = stream.into_split();
    let mut reader = Reader {
        read,
        decoder: Decoder::default(),
    };
    let greeted = tokio::time::timeout(HELLO_WITHIN, greet(&mut reader, write, &door, uid, id)).await;
    let (share, session, writer) = match greeted.unwrap_or(Err(ConnectionError::Silent)) {
        Ok(greeted) => greeted,
        Err(error) => {
            tracing::debug!(%error, "a connection was not taken");
            return;
        }
    };
    drop(handshake);
    let outcome = tokio::select! {
        outcome = reader.events(&share, session, id) => outcome,
        () = writer.run() => Ok(()),
    };
    if let Err(error) = outcome {
        tracing::warn!(share = share.name(), %error, "a module's connection has ended");
    }
    // Nothing when it was superseded, or when the share made everyone connect anew.
    blocking(|| share.closed(session, id));
}

/// Preamble, hello, and the session's registration, with nothing to wait for after it: whoever is registered is closed.
async fn greet(
    reader: &mut Reader,
    mut write: OwnedWriteHalf,
    door: &Door,
    uid: io::Result<u32>,
    id: u64,
) -> Result<(Arc<ShareIntake>, Session, Writer), ConnectionError> {
    write.write_all(&vfsx_proto::preamble()).await?;
    let mut peer = [0; PREAMBLE];
    reader.read.read_exact(&mut peer).await?;
    let uid = uid?;
    if !door.allow_uids.contains(&uid) {
        tracing::warn!(
            uid,
            "a process without permission connected to the module's socket"
        );
        return Err(refuse(&mut write, Refusal::NotAllowed { uid }).await);
    }
    vfsx_proto::check_preamble(&peer).inspect_err(|error| {
        tracing::error!(%error, "a connection on the module's socket is refused");
    })?;
    let Some(ToDaemon::Hello(hello)) = reader.message().await? else {
        return Err(ConnectionError::NoHello);
    };
    let Some(share) = door
        .shares
        .iter()
        .find(|s| s.name().eq_ignore_ascii_case(&hello.share))
    else {
        if !hello.share.is_empty() {
            tracing::warn!(
                share = hello.share,
                pid = hello.pid,
                "smbd has vfsx on a share that is not configured"
            );
        }
        return Err(refuse(&mut write, Refusal::UnknownShare { share: hello.share }).await);
    };
    let (session, registration) = register(share, hello, id);
    Ok((Arc::clone(share), session, Writer { write, registration }))
}

fn register(share: &ShareIntake, hello: Hello, id: u64) -> (Session, Registration) {
    let (session, durability) = (Session::from(hello.session), hello.durability);
    share.note_exclude(hello.exclude);
    let started = Body::SessionStarted {
        pid: hello.pid,
        samba: hello.samba,
        module: hello.module,
    };
    (
        session,
        blocking(|| share.register(session, id, durability, started)),
    )
}

async fn refuse(write: &mut OwnedWriteHalf, refusal: Refusal) -> ConnectionError {
    let text = format!("{refusal:?}");
    match send(write, &ToModule::Refused(refusal)).await {
        Ok(()) => ConnectionError::Refused(text),
        Err(error) => error,
    }
}

struct Reader {
    read: OwnedReadHalf,
    decoder: Decoder,
}

impl Reader {
    /// The next message; `None` when the peer has closed.
    async fn message(&mut self) -> Result<Option<ToDaemon>, ConnectionError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(Some(message));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// False at the end of the stream. Most connections are idle most of the time, so none keeps a buffer.
    async fn fill(&mut self) -> Result<bool, ConnectionError> {
        loop {
            self.read.readable().await?;
            let mut buffer = vec![0; READ_BYTES];
            match self.read.try_read(&mut buffer) {
                Ok(n) => {
                    self.decoder.push(buffer.get(..n).unwrap_or_default());
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes events until the peer closes or the connection is superseded.
    async fn events(
        &mut self,
        share: &ShareIntake,
        session: Session,
        id: u64,
    ) -> Result<(), ConnectionError> {
        loop {
            let mut events = Vec::new();
            let mut tokens = Vec::new();
            let mut awaited = None;
            while let Some(message) = self.decoder.next()? {
                match message {
                    ToDaemon::Events(more) => events.extend(more),
                    ToDaemon::Sent { token } => tokens.push(token),
                    ToDaemon::Await { sequence } => awaited = awaited.max(Some(sequence)),
                    ToDaemon::Waits(waits) => share.note_waits(session, id, waits),
                    ToDaemon::Hello(_) => return Err(ConnectionError::SecondHello),
                }
            }
            if !events.is_empty() && blocking(|| share.take(session, id, events)).is_err() {
                return Ok(());
            }
            if let Some(sequence) = awaited {
                share.await_commit(session, id, sequence);
            }
            for token in tokens {
                share.sent(session, id, token);
            }
            if !self.fill().await? {
                return Ok(());
            }
        }
    }
}

/// Tells the module what is synced and what is committed, and asks it to send what it holds back.
struct Writer {
    write: OwnedWriteHalf,
    registration: Registration,
}

impl Writer {
    /// Ends when the registration does. A module that does not read holds up nothing but this, and one that has closed
    /// is not told any more: what it sent before is still to be read.
    async fn run(mut self) {
        if let Err(error) = self.tell().await {
            tracing::debug!(%error, "a module has closed its end");
            while self.registration.ask.recv().await.is_some() {}
        }
    }

    async fn tell(&mut self) -> Result<(), ConnectionError> {
        let acknowledged = *self.registration.acknowledged.borrow_and_update();
        send(&mut self.write, &ToModule::Welcome(Welcome { acknowledged })).await?;
        loop {
            let message = tokio::select! {
                changed = self.registration.acknowledged.changed() => match changed {
                    Ok(()) => ToModule::Ack { sequence: *self.registration.acknowledged.borrow_and_update() },
                    Err(_) => return Ok(()),
                },
                changed = self.registration.committed.changed() => match changed {
                    Ok(()) => ToModule::Committed { sequence: *self.registration.committed.borrow_and_update() },
                    Err(_) => return Ok(()),
                },
                asked = self.registration.ask.recv() => match asked {
                    Some(token) => ToModule::SendNow { token },
                    None => return Ok(()),
                },
            };
            send(&mut self.write, &message).await?;
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, message: &ToModule) -> Result<(), ConnectionError> {
    let mut frame = Vec::new();
    vfsx_proto::encode(message, &mut frame)?;
    Ok(write.write_all(&frame).await?)
}

/// Appending writes to files, and now and then syncs one.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
