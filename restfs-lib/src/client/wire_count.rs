//! Counts the bytes that really cross a socket, beneath TLS and WebSocket, and tells from them whether the other end
//! is still there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Totals since the start; clones share them.
#[derive(Debug, Clone, Default)]
pub struct WireCount(Arc<Totals>);

#[derive(Debug, Default)]
struct Totals {
    sent: AtomicU64,
    received: AtomicU64,
    whole: Option<WireCount>,
}

impl WireCount {
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    pub fn total(&self) -> u64 {
        self.sent() + self.received()
    }

    /// A count of its own whose bytes count here too.
    pub fn part(&self) -> Self {
        Self(Arc::new(Totals {
            whole: Some(self.clone()),
            ..Totals::default()
        }))
    }

    fn add(&self, sent: u64, received: u64) {
        self.0.sent.fetch_add(sent, Ordering::Relaxed);
        self.0.received.fetch_add(received, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.add(sent, received);
        }
    }
}

/// Silent intervals after which the other end is taken for gone.
pub const SILENT_INTERVALS: u32 = 3;

/// Looked at in regular intervals: does the other end live?
#[derive(Debug)]
pub struct Pulse {
    count: WireCount,
    sent: u64,
    received: u64,
    silent: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Moving,
    /// Nothing came since the last look: time for a ping.
    Silent,
    /// Nothing came for [`SILENT_INTERVALS`].
    Gone,
}

impl Pulse {
    /// `count` is this connection's alone.
    pub fn new(count: WireCount) -> Self {
        Self {
            count,
            sent: 0,
            received: 0,
            silent: 0,
        }
    }

    /// `writing`: the socket has not yet taken all that there is to send. On a slow link a long message is a sign of
    /// life as long as the socket takes more of it.
    pub fn look(&mut self, writing: bool) -> Life {
        let (sent, received) = (self.count.sent(), self.count.received());
        let moving = received > self.received || (writing && sent > self.sent);
        (self.sent, self.received) = (sent, received);
        self.silent = if moving { 0 } else { self.silent + 1 };
        match self.silent {
            0 => Life::Moving,
            SILENT_INTERVALS.. => Life::Gone,
            _ => Life::Silent,
        }
    }
}

/// A socket whose bytes are counted.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    count: WireCount,
}

impl<S> Counted<S> {
    pub fn new(stream: S, count: WireCount) -> Self {
        Self { stream, count }
    }

    fn note_sent(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = result {
            self.count.add(*bytes as u64, 0);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.count.add(0, (buf.filled().len() - before) as u64);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_sent(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_sent(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_upload_is_life_and_a_dead_end_is_noticed() {
        let count = WireCount::default();
        let mut pulse = Pulse::new(count.clone());
        for _ in 0..10 {
            count.add(1, 0);
            assert_eq!(pulse.look(true), Life::Moving);
        }
        // The ping went into the socket's buffer, nothing comes back.
        count.add(8, 0);
        assert_eq!(pulse.look(false), Life::Silent);
        assert_eq!(pulse.look(true), Life::Silent);
        assert_eq!(pulse.look(true), Life::Gone);
    }

    #[test]
    fn connections_of_one_endpoint_count_together() {
        let whole = WireCount::default();
        let (a, b) = (whole.part(), whole.part());
        a.add(3, 5);
        b.add(7, 0);
        assert_eq!((whole.sent(), whole.received(), whole.total()), (10, 5, 15));
        assert_eq!(a.total(), 8);
    }
}
