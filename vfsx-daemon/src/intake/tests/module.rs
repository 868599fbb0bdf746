//! A fake module.

use super::PATIENCE;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use vfsx_proto::{
    Decoder, Durability, Event, Exclude, Hello, NodeRef, PREAMBLE, SessionId, Stamped, ToDaemon, ToModule,
    check_preamble, encode, preamble,
};

pub(crate) struct Module {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
    /// What was told last.
    pub(crate) copy: bool,
}

pub(crate) fn session(n: u8) -> SessionId {
    SessionId([n; 16])
}

pub(crate) fn greeting(share: &str, n: u8) -> Hello {
    Hello {
        session: session(n),
        share: share.into(),
        pid: 4,
        samba: "4.17".into(),
        module: "0".into(),
        durability: Durability::Noted,
        exclude: Exclude::default(),
        ring: None,
        spooled: 0,
    }
}

/// Event `sequence` of a session.
pub(crate) fn event(sequence: u64) -> Stamped {
    let node = NodeRef {
        dev: 1,
        ino: sequence,
        btime_ns: 0,
    };
    Stamped {
        sequence,
        time_ns: 1_000 + sequence as i64,
        began_ns: sequence,
        event: Event::Closed {
            handle: sequence,
            node,
        },
    }
}

impl Module {
    /// Preambles only.
    pub(crate) async fn connect(socket: &Path) -> Self {
        let mut module = Self::connect_bare(socket).await;
        module.stream.write_all(&preamble()).await.expect("writes");
        module
    }

    /// Nothing is said yet, but vfsxd's preamble is read.
    pub(crate) async fn connect_bare(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).await.expect("connects");
        let mut peer = [0; PREAMBLE];
        stream.read_exact(&mut peer).await.expect("the daemon's preamble");
        check_preamble(&peer).expect("the same version");
        Self {
            stream,
            decoder: Decoder::default(),
            copy: false,
        }
    }

    /// Connects and says hello; the answer to it.
    pub(crate) async fn hello(socket: &Path, share: &str, n: u8) -> (Self, ToModule) {
        let mut module = Self::connect(socket).await;
        module.say_hello(share, n).await;
        let answer = module.receive().await;
        (module, answer)
    }

    /// Connects for share `data`; what is acknowledged.
    pub(crate) async fn welcome(socket: &Path, n: u8) -> (Self, u64) {
        match Self::hello(socket, "data", n).await {
            (module, ToModule::Welcome(welcome)) => (module, welcome.acknowledged),
            (_, other) => panic!("no welcome: {other:?}"),
        }
    }

    pub(crate) async fn say_hello(&mut self, share: &str, n: u8) {
        self.send(&ToDaemon::Hello(greeting(share, n))).await;
    }

    pub(crate) async fn events(&mut self, sequences: std::ops::RangeInclusive<u64>) {
        self.send(&ToDaemon::Events(sequences.map(event).collect())).await;
    }

    pub(crate) async fn send(&mut self, message: &ToDaemon) {
        let mut frame = Vec::new();
        encode(message, &mut frame).expect("encodes");
        self.stream.write_all(&frame).await.expect("the daemon reads");
    }

    /// The next message; the test fails when none comes.
    pub(crate) async fn receive(&mut self) -> ToModule {
        tokio::time::timeout(PATIENCE, self.next())
            .await
            .expect("a message in time")
            .expect("a message")
    }

    /// The next message, `None` when the daemon has closed.
    pub(crate) async fn next(&mut self) -> Option<ToModule> {
        loop {
            if let Some(message) = self.decoder.next().expect("whole frames") {
                return Some(message);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.decoder.push(&buffer[..n]),
            }
        }
    }

    pub(crate) async fn acknowledged(&mut self, sequence: u64) {
        loop {
            match self.receive().await {
                ToModule::Ack { sequence: up_to } if up_to >= sequence => {
                    assert_eq!(up_to, sequence, "acknowledged more than was sent");
                    return;
                }
                ToModule::Ack { .. } => {}
                other => panic!("expected an acknowledgement, got {other:?}"),
            }
        }
    }

    /// Like `acknowledged`, with what else comes meanwhile.
    pub(crate) async fn acknowledged_in_passing(&mut self, sequence: u64) {
        loop {
            match self.receive().await {
                ToModule::Ack { sequence: up_to } if up_to >= sequence => return,
                ToModule::Copy { on } => self.copy = on,
                _ => {}
            }
        }
    }

    /// That nothing comes cannot be waited for; this long is enough for what would be wrong.
    pub(crate) async fn assert_nothing_comes(&mut self) {
        let came = tokio::time::timeout(Duration::from_millis(150), self.next()).await;
        assert!(came.is_err(), "got {came:?}");
    }

    /// The daemon closes the connection.
    pub(crate) async fn assert_closed(&mut self) {
        let closed = async { while self.next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, closed)
            .await
            .expect("closed in time");
    }
}

/// Preamble and message, with a descriptor.
pub(crate) async fn send_with_descriptor(stream: &UnixStream, message: &ToDaemon, descriptor: OwnedFd) {
    let mut bytes = preamble().to_vec();
    encode(message, &mut bytes).expect("encodes");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(
        stream,
        &[IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::empty(),
    );
    assert_eq!(sent.expect("room in the socket"), bytes.len());
}
