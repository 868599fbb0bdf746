//! One connection: requests run side by side, answers go out as they are ready.

use super::handshake::{self, Accepted};
use super::memory::Room;
use super::{DRAIN, Hub};
use crate::auth::Identity;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use restfs_lib::client::{Counted, Life, Pulse, WireCount};
use restfs_lib::wire::limits::MAX_IN_FLIGHT;
use restfs_lib::wire::{Code, Encoding, Message, RpcError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message as Frame, frame::Utf8Bytes};

/// Between two looks at whether the other end lives.
const LOOK: Duration = Duration::from_secs(20);
/// Answers that wait for the socket.
const QUEUE: usize = 8;

/// Who is at the other end, as the socket tells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// This process, root or the server's own user: may do everything.
    Own,
    /// On the Unix socket; needs a token as from afar.
    OtherUser,
    Address(SocketAddr),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("local"),
            Self::OtherUser => f.write_str("another user"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// A frame to send, and the memory it holds until then.
struct Outgoing(Frame, Option<Room>);

/// Serves the other end of a pipe in this process, which may do everything.
pub async fn serve_local<S>(hub: Arc<Hub>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    serve_counted(hub, stream, Peer::Own).await;
}

/// `count` counts the socket's bytes, beneath TLS: by them the other end is known to live.
pub(super) async fn serve<S>(hub: Arc<Hub>, stream: S, count: WireCount, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let known = matches!(peer, Peer::Own).then(Identity::local);
    let accepting = handshake::accept(stream, &hub.service, known);
    let accepted = match tokio::time::timeout(handshake::TIME_LIMIT, accepting).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::info!(%peer, "connection refused: {error}"),
        Err(_) => return tracing::info!(%peer, "connection closed: no handshake in time"),
    };
    hub.service.connections().fetch_add(1, Ordering::Relaxed);
    run(&hub, accepted, count).await;
    hub.service.connections().fetch_sub(1, Ordering::Relaxed);
}

/// As [`serve`], counting the stream itself.
pub(super) async fn serve_counted<S>(hub: Arc<Hub>, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let count = WireCount::default();
    serve(hub, Counted::new(stream, count.clone()), count, peer).await;
}

async fn run<S>(hub: &Arc<Hub>, accepted: Accepted<S>, count: WireCount)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Accepted {
        websocket,
        identity,
        encoding,
    } = accepted;
    tracing::debug!(who = identity.name, role = identity.role.name(), "connected");
    let (sink, stream) = websocket.split();
    let (queue, outgoing) = mpsc::channel(QUEUE);
    let writing = Arc::new(AtomicBool::new(false));
    let mut writer = tokio::spawn(write(sink, outgoing, writing.clone()));
    let mut reader = Reader {
        hub: hub.clone(),
        identity: Arc::new(identity),
        encoding,
        stream,
        in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        queue,
        writing,
        pulse: Pulse::new(count),
    };
    let why = reader.run().await;
    tracing::debug!(who = reader.identity.name, "disconnected: {why}");
    if reader.drain(why).await.is_none() || tokio::time::timeout(DRAIN, &mut writer).await.is_err() {
        writer.abort();
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Closed,
    Broken(String),
    Gone,
    WrongEncoding,
    Revoked,
    ServerEnds,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the client"),
            Self::Broken(error) => f.write_str(error),
            Self::Gone => f.write_str("the client is silent"),
            Self::WrongEncoding => f.write_str("a message in another encoding than agreed"),
            Self::Revoked => f.write_str("the token was revoked"),
            Self::ServerEnds => f.write_str("the server ends"),
        }
    }
}

struct Reader<S> {
    hub: Arc<Hub>,
    identity: Arc<Identity>,
    encoding: Encoding,
    stream: SplitStream<WebSocketStream<S>>,
    in_flight: Arc<Semaphore>,
    queue: mpsc::Sender<Outgoing>,
    writing: Arc<AtomicBool>,
    pulse: Pulse,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    async fn run(&mut self) -> End {
        let hub = self.hub.clone();
        let ended = hub.ended();
        tokio::pin!(ended);
        let mut look = tokio::time::interval(LOOK);
        // A process that stood still has not listened meanwhile: what it missed is not silence.
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = next_frame(&self.in_flight, &mut self.stream) => match next {
                    Ok((permit, frame)) => if let Some(end) = self.take(permit, frame).await {
                        return end;
                    },
                    Err(end) => return end,
                },
                _ = look.tick() => match self.pulse.look(self.writing.load(Ordering::Relaxed)) {
                    Life::Moving => {}
                    // A full queue means that answers are on their way, which say the same.
                    Life::Silent => drop(self.queue.try_send(Outgoing(Frame::Ping(Default::default()), None))),
                    Life::Gone => return End::Gone,
                },
                () = &mut ended => return End::ServerEnds,
            }
        }
    }

    async fn take(&self, permit: OwnedSemaphorePermit, frame: Frame) -> Option<End> {
        let bytes = match (frame, self.encoding) {
            (Frame::Text(text), Encoding::Json) => text.into(),
            (Frame::Binary(bytes), Encoding::Bson) => bytes,
            (Frame::Text(_) | Frame::Binary(_), _) => return Some(End::WrongEncoding),
            (Frame::Close(_), _) => return Some(End::Closed),
            (Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_), _) => return None,
        };
        if !self.identity.is_live() {
            return Some(End::Revoked);
        }
        let room = self.hub.memory.request(bytes.len()).await;
        let call = Call {
            hub: self.hub.clone(),
            identity: self.identity.clone(),
            encoding: self.encoding,
            queue: self.queue.clone(),
        };
        tokio::spawn(async move {
            call.answer(bytes, room).await;
            drop(permit);
        });
        None
    }

    /// Waits for the calls under way, then says good-bye. `None`: the other end takes nothing any more.
    async fn drain(self, why: End) -> Option<()> {
        let close = match why {
            End::Broken(_) | End::Gone => return None,
            End::Closed => None,
            End::WrongEncoding => Some((CloseCode::Unsupported, "the encoding agreed on is another")),
            End::Revoked => Some((CloseCode::Policy, "the token was revoked")),
            End::ServerEnds => Some((CloseCode::Away, "the server ends")),
        };
        let all = u32::try_from(MAX_IN_FLIGHT).unwrap_or(u32::MAX);
        let _idle = tokio::time::timeout(DRAIN, self.in_flight.acquire_many(all))
            .await
            .ok()?
            .ok()?;
        if let Some((code, reason)) = close {
            let frame = CloseFrame {
                code,
                reason: Utf8Bytes::from_static(reason),
            };
            self.queue
                .send_timeout(Outgoing(Frame::Close(Some(frame)), None), DRAIN)
                .await
                .ok()?;
        }
        Some(())
    }
}

/// Reads on only when another request may be under way.
async fn next_frame<S: AsyncRead + AsyncWrite + Unpin>(
    in_flight: &Arc<Semaphore>,
    stream: &mut SplitStream<WebSocketStream<S>>,
) -> Result<(OwnedSemaphorePermit, Frame), End> {
    let permit = in_flight.clone().acquire_owned().await.map_err(|_| End::Closed)?;
    match stream.next().await {
        Some(Ok(frame)) => Ok((permit, frame)),
        Some(Err(error)) => Err(End::Broken(error.to_string())),
        None => Err(End::Closed),
    }
}

struct Call {
    hub: Arc<Hub>,
    identity: Arc<Identity>,
    encoding: Encoding,
    queue: mpsc::Sender<Outgoing>,
}

impl Call {
    async fn answer(self, bytes: bytes::Bytes, room: Room) {
        let decoded = Message::decode(self.encoding, &bytes);
        drop(bytes);
        let (id, result, answer_room) = match decoded {
            Ok(Message::Request { id, method, params }) => {
                let answer_room = self.hub.memory.answer(&method).await;
                let result = self.hub.service.call(&self.identity, &method, params).await;
                (Some(id), result, Some(answer_room))
            }
            // Nobody would learn whether it was done, so nothing is done without an id.
            Ok(Message::Notification { .. }) => return,
            Ok(Message::Response { .. } | Message::Error { .. }) => {
                let error = RpcError::new(Code::InvalidRequest, "the server made no call that this answers");
                (None, Err(error), None)
            }
            Err(error) => (None, Err(error), None),
        };
        drop(room);
        let message = match (id, result) {
            (Some(id), Ok(result)) => Message::Response { id, result },
            (id, Err(error)) => Message::Error { id, error },
            (None, Ok(_)) => return,
        };
        self.send(message, answer_room).await;
    }

    async fn send(&self, message: Message, mut room: Option<Room>) {
        let bytes = match message.encode(self.encoding) {
            Ok(bytes) => bytes,
            Err(error) => {
                let id = match message {
                    Message::Response { id, .. } => Some(id),
                    _ => None,
                };
                let Ok(bytes) = (Message::Error { id, error }).encode(self.encoding) else {
                    return;
                };
                bytes
            }
        };
        if let Some(room) = &mut room {
            room.shrink(bytes.len());
        }
        let frame = match self.encoding {
            Encoding::Bson => Frame::Binary(bytes.into()),
            Encoding::Json => match String::from_utf8(bytes) {
                Ok(text) => Frame::Text(text.into()),
                Err(error) => return tracing::error!("JSON that is not UTF-8: {error}"),
            },
        };
        // Nobody to tell when the connection is gone.
        let _ = self.queue.send(Outgoing(frame, room)).await;
    }
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Frame>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    writing: Arc<AtomicBool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(first) = outgoing.recv().await {
        writing.store(true, Ordering::Relaxed);
        let mut next = Some(first);
        while let Some(Outgoing(frame, room)) = next {
            if sink.feed(frame).await.is_err() {
                return;
            }
            drop(room);
            next = outgoing.try_recv().ok();
        }
        if sink.flush().await.is_err() {
            return;
        }
        writing.store(false, Ordering::Relaxed);
    }
    let _ = sink.close().await;
}
