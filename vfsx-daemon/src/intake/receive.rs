//! What comes in on a connection: bytes, and with the first of them a descriptor.

use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use vfsx_proto::{Decoder, FrameError, PREAMBLE, ToDaemon};

/// Bytes taken from the socket at once; events in it become one append.
const READ_BYTES: usize = 64 * 1024;
/// Of the first messages.
const FIRST_BYTES: usize = 4 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the peer closed the connection before it said what it speaks")]
    Closed,
}

pub(super) struct Reader {
    read: OwnedReadHalf,
    decoder: Decoder,
    descriptor: Option<OwnedFd>,
    /// The peer has said hello: descriptors are not taken any more.
    greeted: bool,
}

impl Reader {
    pub(super) fn new(read: OwnedReadHalf) -> Self {
        Self {
            read,
            decoder: Decoder::default(),
            descriptor: None,
            greeted: false,
        }
    }

    /// What the peer says first.
    pub(super) async fn preamble(&mut self) -> Result<[u8; PREAMBLE], ReceiveError> {
        let mut begun = Vec::new();
        loop {
            if let Some((preamble, rest)) = begun.split_first_chunk() {
                self.decoder.push(rest);
                return Ok(*preamble);
            }
            let more = self.receive().await?;
            if more.is_empty() {
                return Err(ReceiveError::Closed);
            }
            begun.extend(more);
        }
    }

    /// The first message; `None` when the peer has closed. What comes after it brings no descriptors.
    pub(super) async fn first(&mut self) -> Result<Option<ToDaemon>, ReceiveError> {
        loop {
            if let Some(message) = self.next()? {
                self.greeted = true;
                return Ok(Some(message));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The first descriptor that came, once.
    pub(super) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// The next message of those that are here.
    pub(super) fn next(&mut self) -> Result<Option<ToDaemon>, FrameError> {
        self.decoder.next()
    }

    /// False at the end of the stream.
    pub(super) async fn fill(&mut self) -> Result<bool, ReceiveError> {
        let bytes = self.receive().await?;
        self.decoder.push(&bytes);
        Ok(!bytes.is_empty())
    }

    /// Most connections are idle most of the time, so none keeps a buffer.
    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            self.read.readable().await?;
            let received = if self.greeted {
                let mut buffer = vec![0; READ_BYTES];
                self.read.try_read(&mut buffer).map(|n| {
                    buffer.truncate(n);
                    buffer
                })
            } else {
                self.receive_first()
            };
            match received {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }

    fn receive_first(&mut self) -> io::Result<Vec<u8>> {
        let socket: &UnixStream = self.read.as_ref();
        let (bytes, descriptor) = socket.try_io(Interest::READABLE, || receive_with_descriptor(socket))?;
        // The kernel has closed all others but the first.
        self.descriptor = self.descriptor.take().or(descriptor);
        Ok(bytes)
    }
}

fn receive_with_descriptor(socket: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = vec![0; FIRST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.flatten().next();
    buffer.truncate(received.bytes);
    Ok((buffer, descriptor))
}
