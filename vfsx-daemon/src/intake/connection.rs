//! One connection of a module.

use super::acks::Acks;
use super::handshakes::Handshake;
use super::memory::Memory;
use super::places::{Place, Places};
use super::receive::{Reader, ReceiveError};
use super::share::{Arrival, Registration, ShareIntake};
use super::written::Written;
use crate::journal::{Body, Session};
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Notify, watch};
use vfsx_proto::{Durability, FrameError, Hello, PreambleError, Refusal, ToDaemon, ToModule, Welcome};

/// A module says who it is as soon as it is connected.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A spool file is taken in for so long before it is looked whether the module is still there.
const SPOOL_TURN: Duration = Duration::from_secs(1);
/// Until it is tried again.
const SPOOL_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("no hello within {HELLO_WITHIN:?}")]
    Silent,
    #[error("the peer sent something else than a hello first")]
    NoHello,
    #[error("the peer said hello twice")]
    SecondHello,
    #[error("refused: {0}")]
    Refused(String),
    #[error("the peer closed the connection before it was welcomed")]
    Closed,
    #[error("all places for sessions are taken")]
    NoPlace,
    #[error("taking in a spool file panicked")]
    Panicked,
}

impl ConnectionError {
    /// This end does not go on; the module will connect again.
    fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Frame(_) | Self::Receive(ReceiveError::Frame(_)) | Self::SecondHello
        )
    }
}

/// Who has said hello.
struct Greeted {
    session: Session,
    memory: Option<Arc<Memory>>,
    /// Nobody waits for what it is told.
    rests: bool,
}

/// What a connection needs of the intake.
pub(super) struct Door {
    pub(super) shares: Vec<Arc<ShareIntake>>,
    pub(super) allow_uids: Vec<u32>,
    pub(super) places: Places,
}

/// Serves the connection until either end closes it.
pub(super) async fn serve(stream: UnixStream, door: Arc<Door>, handshake: Handshake, greeting: Place) {
    let id = handshake.id;
    let uid = stream.peer_cred().map(|c| c.uid());
    let (read, write) = stream.into_split();
    let mut reader = Reader::new(read);
    let welcomed = welcome(&mut reader, write, &door, uid, id, greeting).await;
    let (share, greeted, writer, place) = match welcomed {
        Ok(welcomed) => welcomed,
        Err(error) => {
            tracing::debug!(%error, "a connection was not taken");
            return;
        }
    };
    drop(handshake);
    let Greeted { session, memory, .. } = greeted;
    let mut written = Written::new(session, memory);
    let waits = Arc::clone(&writer.waits);
    let outcome = tokio::select! {
        outcome = take_events(&mut reader, &share, (session, id), &mut written, &waits) => outcome,
        () = writer.run() => Ok(()),
    };
    // Nothing when it was superseded, or when the share made everyone connect anew.
    match &outcome {
        Err(error) if error.is_ours() => blocking(|| share.lost(session, id)),
        _ => blocking(|| {
            written.take_rest(&share, id);
            share.closed(session, id);
        }),
    }
    if let Err(error) = outcome {
        tracing::warn!(share = share.name(), %error, "a module's connection has ended");
    }
    drop(place);
}

/// Greeting, what is in the session's spool file, and its registration, with nothing to wait for after it: whoever is registered is closed.
async fn welcome(
    reader: &mut Reader,
    mut write: OwnedWriteHalf,
    door: &Door,
    uid: io::Result<u32>,
    id: u64,
    place: Place,
) -> Result<(Arc<ShareIntake>, Greeted, Writer, Place), ConnectionError> {
    let greeting = tokio::time::timeout(HELLO_WITHIN, greet(reader, &mut write, door, uid));
    let (share, hello) = greeting.await.unwrap_or(Err(ConnectionError::Silent))?;
    drop(place);
    let Some(place) = door.places.for_session(share.name()) else {
        // Without a word: to the module that is as if vfsxd were away, and it tries again within two seconds.
        blocking(|| share.turned_away(Session::from(hello.session)));
        return Err(ConnectionError::NoPlace);
    };
    let spooled = hello.spooled;
    if spooled > 0 {
        take_spooled(reader, &share, &hello).await?;
    }
    let (greeted, registration) = register(&share, hello, reader.descriptor(), id);
    let writer = Writer {
        write,
        registration,
        acks: Acks::new(greeted.rests),
        waits: Arc::default(),
        spooled,
        memory: greeted.memory.is_some(),
    };
    Ok((share, greeted, writer, place))
}

/// Until it is in the journal, or the module does not wait for that any more.
async fn take_spooled(
    reader: &mut Reader,
    share: &Arc<ShareIntake>,
    hello: &Hello,
) -> Result<(), ConnectionError> {
    loop {
        let (taker, hello) = (Arc::clone(share), hello.clone());
        let until = Instant::now() + SPOOL_TURN;
        let taken = tokio::task::spawn_blocking(move || taker.take_spool_of(&hello, until)).await;
        let taken = taken.map_err(|_| ConnectionError::Panicked)?;
        let pause = if taken { Duration::ZERO } else { SPOOL_PAUSE };
        // It has nothing to say before it is welcomed.
        if let Ok(filled) = tokio::time::timeout(pause, reader.fill()).await
            && !filled?
        {
            return Err(ConnectionError::Closed);
        }
        if taken {
            return Ok(());
        }
    }
}

/// Preamble and hello.
async fn greet(
    reader: &mut Reader,
    write: &mut OwnedWriteHalf,
    door: &Door,
    uid: io::Result<u32>,
) -> Result<(Arc<ShareIntake>, Hello), ConnectionError> {
    write.write_all(&vfsx_proto::preamble()).await?;
    let peer = reader.preamble().await?;
    let uid = uid?;
    if !door.allow_uids.contains(&uid) {
        tracing::warn!(
            uid,
            "a process without permission connected to the module's socket"
        );
        return Err(refuse(write, Refusal::NotAllowed { uid }).await);
    }
    vfsx_proto::check_preamble(&peer).inspect_err(|error| {
        tracing::error!(%error, "a connection on the module's socket is refused");
    })?;
    let Some(ToDaemon::Hello(hello)) = reader.first().await? else {
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
        return Err(refuse(write, Refusal::UnknownShare { share: hello.share }).await);
    };
    Ok((Arc::clone(share), hello))
}

fn register(
    share: &ShareIntake,
    hello: Hello,
    descriptor: Option<OwnedFd>,
    id: u64,
) -> (Greeted, Registration) {
    let (session, durability) = (Session::from(hello.session), hello.durability);
    share.note_exclude(hello.exclude);
    let memory = hello.ring.map(|ring| Memory::new(descriptor, ring));
    let memory = memory.and_then(|memory| {
        memory
            .inspect_err(|error| {
                let (share, pid) = (share.name(), hello.pid);
                tracing::error!(share, pid, %error, "the memory that smbd shares cannot be used");
            })
            .ok()
            .map(Arc::new)
    });
    let started = Body::SessionStarted {
        pid: hello.pid,
        samba: hello.samba,
        module: hello.module,
    };
    let arrival = Arrival {
        durability,
        started,
        memory: memory.clone(),
    };
    let registration = blocking(|| share.register(session, id, arrival));
    let rests = durability == Durability::Noted && registration.copy.is_none();
    let greeted = Greeted {
        session,
        memory,
        rests,
    };
    (greeted, registration)
}

async fn refuse(write: &mut OwnedWriteHalf, refusal: Refusal) -> ConnectionError {
    let text = format!("{refusal:?}");
    match send(write, &ToModule::Refused(refusal)).await {
        Ok(()) => ConnectionError::Refused(text),
        Err(error) => error,
    }
}

/// Takes events until the peer closes or the connection is superseded.
async fn take_events(
    reader: &mut Reader,
    share: &ShareIntake,
    (session, id): (Session, u64),
    written: &mut Written,
    waits_for_acks: &Notify,
) -> Result<(), ConnectionError> {
    loop {
        let mut events = Vec::new();
        let mut tokens = Vec::new();
        let mut awaited = None;
        while let Some(message) = reader.next()? {
            match message {
                ToDaemon::Events(more) => events.extend(more),
                ToDaemon::Sent { token } => tokens.push(token),
                ToDaemon::Await { sequence } => awaited = awaited.max(Some(sequence)),
                ToDaemon::AckNow => waits_for_acks.notify_one(),
                ToDaemon::Waits(waits) => share.note_waits(session, id, waits),
                ToDaemon::Hello(_) => return Err(ConnectionError::SecondHello),
            }
        }
        if !events.is_empty() && blocking(|| written.take(share, id, events)).is_err() {
            return Ok(());
        }
        if let Some(sequence) = awaited {
            share.await_commit(session, id, sequence);
        }
        for token in tokens {
            share.sent(session, id, token);
        }
        if !reader.fill().await? {
            return Ok(());
        }
    }
}

/// Tells the module what is synced and what is committed, asks it to send what it holds back, and says whether written
/// data is wanted.
struct Writer {
    write: OwnedWriteHalf,
    registration: Registration,
    acks: Acks,
    /// The module waits for acknowledgements.
    waits: Arc<Notify>,
    /// All that was in the session's spool file up to here is in the journal, or a gap is.
    spooled: u64,
    /// The session's memory is read.
    memory: bool,
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
        let acknowledged = acknowledged.max(self.spooled);
        let memory = self.memory;
        let welcome = Welcome { acknowledged, memory };
        send(&mut self.write, &ToModule::Welcome(welcome)).await?;
        self.acks.told(acknowledged);
        // Something is acknowledged that is not told yet.
        let mut untold = false;
        loop {
            let newest = *self.registration.acknowledged.borrow();
            let message = tokio::select! {
                changed = self.registration.acknowledged.changed() => match changed {
                    Ok(()) => {
                        untold = true;
                        continue;
                    }
                    Err(_) => return Ok(()),
                },
                () = tokio::time::sleep_until(self.acks.due(newest).into()), if untold => {
                    untold = false;
                    self.acks.told(newest);
                    ToModule::Ack { sequence: newest }
                }
                () = self.waits.notified() => {
                    self.acks.rest_no_more();
                    continue;
                }
                changed = self.registration.committed.changed() => match changed {
                    Ok(()) => ToModule::Committed { sequence: *self.registration.committed.borrow_and_update() },
                    Err(_) => return Ok(()),
                },
                asked = self.registration.ask.recv() => match asked {
                    Some(token) => ToModule::SendNow { token },
                    None => return Ok(()),
                },
                on = changed_copy(&mut self.registration.copy) => ToModule::Copy { on },
            };
            send(&mut self.write, &message).await?;
        }
    }
}

/// Never for a session without a ring. It knows nothing at first, which is as if it were told that data is not wanted.
async fn changed_copy(copy: &mut Option<watch::Receiver<bool>>) -> bool {
    if let Some(copy) = copy
        && copy.changed().await.is_ok()
    {
        return *copy.borrow_and_update();
    }
    std::future::pending().await
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
