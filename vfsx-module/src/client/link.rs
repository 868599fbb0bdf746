//! One connection to vfsxd: greeting, frames in, when to try again.

use crate::os;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use vfsx_proto::{Decoder, PREAMBLE, ToModule, check_preamble};

/// First pause before a new attempt. A refused attempt costs microseconds.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Longest pause: what a restart of vfsxd adds to the age of the newest change.
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Pause after vfsxd refused this share: only a change of its configuration helps.
const REFUSED_RETRY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Link {
    /// No connection until `retry`.
    Down { retry: Instant, pause: Duration },
    /// Preamble and `Hello` are on their way; `pause` is for the case that this fails too.
    Greeting {
        socket: OwnedFd,
        input: Input,
        pause: Duration,
    },
    /// `Welcome` came.
    Up { socket: OwnedFd, input: Input },
}

impl Link {
    /// Down, to be tried at once.
    pub(super) fn new() -> Self {
        Link::Down {
            retry: Instant::now(),
            pause: FIRST_RETRY,
        }
    }

    pub(super) fn socket(&self) -> Option<&OwnedFd> {
        match self {
            Link::Down { .. } => None,
            Link::Greeting { socket, .. } | Link::Up { socket, .. } => Some(socket),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self, Link::Up { .. })
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self {
            Link::Down { retry, .. } => Some(*retry),
            _ => None,
        }
    }

    pub(super) fn greet(&mut self, socket: OwnedFd) {
        let pause = self.next_pause();
        *self = Link::Greeting {
            socket,
            input: Input::default(),
            pause,
        };
    }

    /// `Welcome` came: only now the pauses start from the beginning again.
    pub(super) fn welcome(&mut self) {
        *self = match std::mem::replace(self, Link::new()) {
            Link::Greeting { socket, input, .. } => Link::Up { socket, input },
            other => other,
        };
    }

    /// Ends the connection and gives its socket, which the event loop may still watch.
    pub(super) fn end(&mut self, refused: bool) -> Option<OwnedFd> {
        let pause = if refused { REFUSED_RETRY } else { self.next_pause() };
        let retry = Instant::now() + pause;
        match std::mem::replace(self, Link::Down { retry, pause }) {
            Link::Down { .. } => None,
            Link::Greeting { socket, .. } | Link::Up { socket, .. } => Some(socket),
        }
    }

    /// Receives what is there. An error ends the connection.
    pub(super) fn receive(&mut self) -> Result<Vec<ToModule>, LinkError> {
        match self {
            Link::Down { .. } => Ok(Vec::new()),
            Link::Greeting { socket, input, .. } | Link::Up { socket, input } => input.receive(socket),
        }
    }

    fn next_pause(&self) -> Duration {
        match self {
            Link::Down { pause, .. } | Link::Greeting { pause, .. } => (*pause * 2).min(LAST_RETRY),
            Link::Up { .. } => FIRST_RETRY,
        }
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum LinkError {
    /// vfsxd stopped, or was never there.
    Closed(io::Error),
    /// What came is not what vfsxd of this release sends.
    Protocol(String),
}

/// Bytes from vfsxd become messages.
#[derive(Debug, Default)]
pub(super) struct Input {
    preamble: Vec<u8>,
    decoder: Decoder,
}

impl Input {
    fn receive(&mut self, socket: &OwnedFd) -> Result<Vec<ToModule>, LinkError> {
        let mut messages = Vec::new();
        // An acknowledgement takes a few bytes.
        let mut buffer = [0; 512];
        loop {
            let got = match os::receive(socket, &mut buffer) {
                Ok(n) if n > 0 => buffer.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(messages),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // What came before the end counts, such as a refusal. The end is seen again at the next call.
                Ok(_) | Err(_) if !messages.is_empty() => return Ok(messages),
                Ok(_) => return Err(LinkError::Closed(io::ErrorKind::UnexpectedEof.into())),
                Err(e) => return Err(LinkError::Closed(e)),
            };
            let frames = self.preamble(got)?;
            self.decoder.push(frames);
            let is_all = got.len() < buffer.len();
            while let Some(message) = self
                .decoder
                .next()
                .map_err(|e| LinkError::Protocol(e.to_string()))?
            {
                messages.push(message);
            }
            // What comes after this, its end among it, wakes the event loop again.
            if is_all {
                return Ok(messages);
            }
        }
    }

    /// Takes the preamble off the front; gives what follows it.
    fn preamble<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], LinkError> {
        let missing = PREAMBLE - self.preamble.len();
        if missing == 0 {
            return Ok(bytes);
        }
        let (head, rest) = bytes.split_at(missing.min(bytes.len()));
        self.preamble.extend_from_slice(head);
        if let Ok(whole) = <&[u8; PREAMBLE]>::try_from(self.preamble.as_slice()) {
            check_preamble(whole).map_err(|e| LinkError::Protocol(e.to_string()))?;
        }
        Ok(rest)
    }
}
