//! Frames: a 4-byte little-endian length and a postcard body; no checksum, a Unix socket neither loses nor reorders.

use crate::event::{Event, Stamped};
use serde::{Serialize, de::DeserializeOwned};

/// Longest body in bytes. A rename carries four names and paths of at most 4 KiB, a dirty list is split by its
/// sender, so a longer one is an error of the peer.
pub const MAX_FRAME: usize = 256 * 1024;
const PREFIX: usize = 4;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("frame of {length} bytes is longer than the limit of {MAX_FRAME}")]
    TooLong { length: usize },
    #[error("frame cannot be decoded: {0}")]
    Malformed(String),
    #[error("frame has {left} bytes after its message")]
    Trailing { left: usize },
}

/// Appends one frame to `out`. On an error `out` is as before.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    let result = append(message, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// In place: smbd encodes several messages for each file that a client makes.
fn append<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    postcard::serialize_with_flavor(message, Appended(out))
        .map_err(|e| FrameError::Malformed(e.to_string()))?;
    let length = out.len() - start - PREFIX;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong { length });
    }
    if let Some(prefix) = out.get_mut(start..start + PREFIX) {
        prefix.copy_from_slice(&(length as u32).to_le_bytes());
    }
    Ok(())
}

/// The same for [`ToDaemon::Events`] of one [`Stamped`], which is what a module notes: the same bytes, and nothing is moved for them.
///
/// [`ToDaemon::Events`]: crate::ToDaemon::Events
/// [`Stamped`]: crate::Stamped
pub fn encode_event(
    sequence: u64,
    time_ns: i64,
    began_ns: u64,
    event: &Event,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    const EVENTS: u8 = 1;
    const ONE: u8 = 1;
    encode(
        &(EVENTS, ONE, Stamped::head(sequence, time_ns, began_ns), event),
        out,
    )
}

/// Bytes at the end of a vector.
struct Appended<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appended<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Decodes the body of one frame.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (message, rest) =
        postcard::take_from_bytes(body).map_err(|e| FrameError::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing { left: rest.len() });
    }
    Ok(message)
}

/// Collects bytes as they arrive and gives out whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` when more bytes are needed. After an error the connection is unusable.
    #[expect(
        clippy::should_implement_trait,
        reason = "generic in the message, so it cannot be an iterator"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let pending = &self.buffer[self.start..];
        let Some(prefix) = pending.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong { length });
        }
        let Some(body) = pending.get(PREFIX..PREFIX + length) else {
            return Ok(None);
        };
        let message = decode(body)?;
        self.start += PREFIX + length;
        Ok(Some(message))
    }

    /// Bytes of an unfinished frame.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}
