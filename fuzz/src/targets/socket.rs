//! Frames between module and daemon, in both directions.

use vfsx_proto::*;

/// The first byte says who reads, and how the stream is cut.
pub(super) fn run(data: &[u8]) {
    let Some((mode, stream)) = data.split_first() else {
        return;
    };
    if let Some((preamble, _)) = stream.split_first_chunk() {
        let _ = check_preamble(preamble);
    }
    let piece = usize::from(mode >> 1).max(1);
    if mode & 1 == 0 {
        read::<ToDaemon>(stream, piece);
    } else {
        read::<ToModule>(stream, piece);
    }
}

/// A frame, cut anywhere, is what it is when it comes in one piece.
fn read<T>(stream: &[u8], piece: usize)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let (cut, cut_error) = messages::<T>(stream.chunks(piece));
    let (whole, whole_error) = messages::<T>(std::iter::once(stream));
    assert_eq!((&cut, cut_error), (&whole, whole_error));
    for message in &whole {
        let mut frame = Vec::new();
        match encode(message, &mut frame) {
            Ok(()) => {
                let (again, error) = messages::<T>(std::iter::once(&frame[..]));
                assert_eq!((again.first(), again.len(), error), (Some(message), 1, None));
            }
            // A number's longer forms are read, and a frame at its bound may be longer the other way.
            Err(error) => assert!(matches!(error, FrameError::TooLong { .. }) && frame.is_empty()),
        }
    }
}

fn messages<'a, T: serde::de::DeserializeOwned>(
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<T>, Option<FrameError>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = to_daemon().iter().map(|m| seed(0, m)).collect();
    seeds.extend(to_module().iter().map(|m| seed(1, m)));
    // All of a connection.
    let mut stream = vec![14];
    for message in to_daemon() {
        encode(&message, &mut stream).expect("fits into a frame");
    }
    seeds.push(stream);
    seeds
}

fn seed<T: serde::Serialize>(mode: u8, message: &T) -> Vec<u8> {
    let mut bytes = vec![mode | 64];
    encode(message, &mut bytes).expect("fits into a frame");
    bytes
}

fn to_daemon() -> Vec<ToDaemon> {
    let hello = Hello {
        session: SessionId([7; 16]),
        share: "data".to_owned(),
        pid: 4711,
        samba: "4.17.12".to_owned(),
        module: "0.1.0".to_owned(),
        durability: Durability::Journal,
        exclude: Exclude {
            patterns: b"/.tmp/*.bak/".to_vec(),
            case_sensitive: false,
            read_ns: 5,
        },
        ring: Some(1 << 20),
        spooled: 300,
    };
    let events = events().into_iter().zip(1..).map(|(event, sequence)| Stamped {
        sequence,
        time_ns: 1_700_000_000_000_000_000,
        began_ns: 9,
        event,
    });
    vec![
        ToDaemon::Hello(hello),
        ToDaemon::Events(events.collect()),
        ToDaemon::Sent { token: 300 },
        ToDaemon::Await { sequence: 3 },
        ToDaemon::Waits(Waits::default()),
        ToDaemon::AckNow,
    ]
}

fn to_module() -> Vec<ToModule> {
    vec![
        ToModule::Welcome(Welcome {
            acknowledged: 3,
            memory: true,
        }),
        ToModule::Refused(Refusal::UnknownShare {
            share: "data".to_owned(),
        }),
        ToModule::Refused(Refusal::NotAllowed { uid: 1000 }),
        ToModule::Ack { sequence: u64::MAX },
        ToModule::SendNow { token: 1 },
        ToModule::Committed { sequence: 2 },
        ToModule::Copy { on: true },
    ]
}

pub(super) fn events() -> Vec<Event> {
    let node = NodeRef {
        dev: 1,
        ino: 300,
        btime_ns: -1,
    };
    let dir = DirRef {
        node,
        path_hint: b"a/b".to_vec(),
    };
    let name = || b"name".to_vec();
    vec![
        Event::Create {
            dir: dir.clone(),
            name: name(),
            node,
            kind: NodeKind::File,
        },
        Event::Link {
            dir: dir.clone(),
            name: name(),
            node,
        },
        Event::Rename {
            from: dir.clone(),
            from_name: name(),
            to: dir.clone(),
            to_name: name(),
            node,
            replaced: Some(node),
        },
        Event::Unlink {
            dir: dir.clone(),
            name: name(),
            node,
        },
        Event::Look { dir, name: name() },
        Event::Opened {
            handle: 1,
            node,
            path_hint: name(),
        },
        Event::Dirty {
            handle: 1,
            node,
            path_hint: name(),
            ranges: vec![Range { start: 0, end: 4096 }, Range { start: 9, end: 3 }],
            whole: false,
        },
        Event::Flushed { handle: 1, node },
        Event::Closed { handle: 1, node },
        Event::Touched {
            node,
            path_hint: name(),
            changed: Changed {
                stat: true,
                xattrs: true,
            },
        },
        Event::Gap {
            since_ns: 1,
            reason: GapReason::RingFull,
        },
        Event::Write {
            handle: 1,
            node,
            start: u64::MAX,
            length: 4096,
            data: Some(InRing {
                position: 1,
                checksum: 2,
            }),
        },
        Event::Resized {
            handle: 1,
            node,
            size: 1 << 40,
        },
        Event::Metadata {
            node,
            path_hint: name(),
            metadata: Metadata {
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: (1, 2),
                atime: (3, 4),
                xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
            },
        },
    ]
}
