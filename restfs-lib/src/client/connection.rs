//! One WebSocket: a task that writes, a task that reads, and the calls that wait for answers.

use super::Endpoint;
use super::wire_count::{Life, Pulse, SILENT_INTERVALS, WireCount};
use crate::wire::{Encoding, Id, Message, Payload, RpcError};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;

type Answer = Result<Payload, RpcError>;

/// Messages handed to the writer; the permits of calls bound them already, pings come beside.
const QUEUE: usize = 16;

#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Frame>,
    permits: Semaphore,
    encoding: Encoding,
    last_id: AtomicI64,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<Calls>,
    /// Bytes handed over and not yet with the socket.
    queued: AtomicU64,
    /// The writer waits for the socket to take more.
    writing: AtomicBool,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: HashMap<i64, oneshot::Sender<Answer>>,
    /// Why there will be no more answers.
    closed: Option<String>,
}

impl Connection {
    pub(super) fn start<S>(websocket: WebSocketStream<S>, count: WireCount, endpoint: &Endpoint) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared::default());
        let (queue, frames) = mpsc::channel(QUEUE);
        let (sink, stream) = websocket.split();
        let reader = Reader {
            stream,
            shared: shared.clone(),
            encoding: endpoint.encoding,
            keepalive: endpoint.limits.keepalive,
            count,
            pings: queue.downgrade(),
        };
        let writer = tokio::spawn(write(sink, frames, shared.clone()));
        tokio::spawn(async move {
            let reason = reader.run().await;
            // The writer may hang in a socket that takes nothing any more.
            writer.abort();
            reason
        });
        Self {
            shared,
            queue,
            permits: Semaphore::new(endpoint.limits.in_flight),
            encoding: endpoint.encoding,
            last_id: AtomicI64::new(0),
        }
    }

    pub(super) fn next_id(&self) -> i64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.shared.queued.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.calls().closed.is_some()
    }

    /// Sends a request and waits for its answer. The error says why the connection is gone. Dropped early, an answer
    /// that comes later is thrown away.
    pub(super) async fn exchange(&self, id: i64, bytes: Vec<u8>) -> Result<Answer, String> {
        let _permit = self.permits.acquire().await.map_err(|_| "closed".to_owned())?;
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting::register(&self.shared, id, sender)?;
        let length = bytes.len() as u64;
        let frame = match self.encoding {
            Encoding::Bson => Frame::Binary(bytes.into()),
            Encoding::Json => match String::from_utf8(bytes) {
                Ok(text) => Frame::Text(text.into()),
                Err(_) => return Err("JSON that is not UTF-8".to_owned()),
            },
        };
        let place = self.queue.reserve().await.map_err(|_| self.shared.reason())?;
        self.shared.queued.fetch_add(length, Ordering::Relaxed);
        place.send(frame);
        let answer = answer.await.map_err(|_| self.shared.reason());
        drop(waiting);
        answer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close("the client was closed");
    }
}

/// Takes the call out again, however it ends.
struct Waiting<'a> {
    shared: &'a Shared,
    id: i64,
}

impl<'a> Waiting<'a> {
    fn register(shared: &'a Shared, id: i64, sender: oneshot::Sender<Answer>) -> Result<Self, String> {
        let mut calls = shared.calls();
        match &calls.closed {
            Some(reason) => Err(reason.clone()),
            None => {
                calls.waiting.insert(id, sender);
                Ok(Self { shared, id })
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.calls().waiting.remove(&self.id);
    }
}

impl Shared {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        // Nothing panics while holding it; if something did, the map is still whole.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first reason stays. Waiting calls end.
    fn close(&self, reason: &str) {
        let mut calls = self.calls();
        calls.closed.get_or_insert_with(|| reason.to_owned());
        calls.waiting.clear();
    }

    fn reason(&self) -> String {
        self.calls()
            .closed
            .clone()
            .unwrap_or_else(|| "the connection is closed".to_owned())
    }

    fn answer(&self, id: Option<Id>, answer: Answer) -> Result<(), String> {
        let Some(Id::Number(id)) = id else {
            return match answer {
                Err(error) => Err(format!("the server could not read a message: {}", error.message)),
                Ok(_) => Err("the server answered a call that was not made".to_owned()),
            };
        };
        // A call that ran out of time is not waiting any more.
        if let Some(sender) = self.calls().waiting.remove(&id) {
            let _ = sender.send(answer);
        }
        Ok(())
    }
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Frame>,
    mut frames: mpsc::Receiver<Frame>,
    shared: Arc<Shared>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(first) = frames.recv().await {
        shared.writing.store(true, Ordering::Relaxed);
        let mut next = Some(first);
        let mut length = 0;
        let mut result = Ok(());
        while let Some(frame) = next {
            if !matches!(frame, Frame::Ping(_)) {
                length += frame.len() as u64;
            }
            result = sink.feed(frame).await;
            next = if result.is_ok() {
                frames.try_recv().ok()
            } else {
                None
            };
        }
        if result.is_ok() {
            result = sink.flush().await;
        }
        shared.queued.fetch_sub(length, Ordering::Relaxed);
        shared.writing.store(false, Ordering::Relaxed);
        if let Err(error) = result {
            shared.close(&format!("sending failed: {error}"));
            return;
        }
    }
    // All clients are gone. The reader ends when the server has closed its side, or by silence.
    let _ = sink.close().await;
}

struct Reader<S> {
    stream: SplitStream<WebSocketStream<S>>,
    shared: Arc<Shared>,
    encoding: Encoding,
    keepalive: Duration,
    count: WireCount,
    /// Weak, so that the writer ends when the last client is gone.
    pings: mpsc::WeakSender<Frame>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    async fn run(mut self) {
        let reason = match self.read().await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        self.shared.close(&reason);
    }

    async fn read(&mut self) -> Result<std::convert::Infallible, String> {
        let mut pulse = Pulse::new(self.count.clone());
        let mut look = tokio::time::interval(self.keepalive);
        // A process that stood still has not listened meanwhile: what it missed is not silence.
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = self.stream.next() => match frame {
                    Some(Ok(frame)) => self.take(frame)?,
                    Some(Err(error)) => return Err(format!("receiving failed: {error}")),
                    None => return Err("the server closed the connection".to_owned()),
                },
                _ = look.tick() => match pulse.look(self.shared.writing.load(Ordering::Relaxed)) {
                    Life::Moving => {}
                    Life::Silent => self.ping()?,
                    Life::Gone => {
                        let seconds = (self.keepalive * SILENT_INTERVALS).as_secs_f32();
                        return Err(format!("nothing came from the server for {seconds} s"));
                    }
                },
            }
        }
    }

    fn ping(&self) -> Result<(), String> {
        match self.pings.upgrade() {
            // A full queue means that messages are on their way, which say the same.
            Some(pings) => {
                let _ = pings.try_send(Frame::Ping(Default::default()));
                Ok(())
            }
            None => Err("the client was closed".to_owned()),
        }
    }

    fn take(&self, frame: Frame) -> Result<(), String> {
        let decoded = match (&frame, self.encoding) {
            (Frame::Text(text), Encoding::Json) => Message::decode(Encoding::Json, text.as_bytes()),
            (Frame::Binary(bytes), Encoding::Bson) => Message::decode(Encoding::Bson, bytes),
            (Frame::Text(_) | Frame::Binary(_), _) => {
                return Err("the server changed the encoding".to_owned());
            }
            (Frame::Close(_), _) => return Err("the server closed the connection".to_owned()),
            (Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_), _) => return Ok(()),
        };
        match decoded.map_err(|error| format!("the server's message cannot be read: {}", error.message))? {
            Message::Response { id, result } => self.shared.answer(Some(id), Ok(result)),
            Message::Error { id, error } => self.shared.answer(id, Err(error)),
            // For later versions' news; an answer never depends on one.
            Message::Notification { .. } => Ok(()),
            Message::Request { .. } => Err("the server sent a request".to_owned()),
        }
    }
}
