//! The bytes of `docs/formats/socket.md`. A test that fails here means a new `PROTOCOL_VERSION`.

use vfsx_proto::*;

const NODE: NodeRef = NodeRef {
    dev: 0x0000_0008_0000_0001,
    ino: 300,
    btime_ns: -2,
};
const NODE_BYTES: &str = "18 0100000008000000 2c01000000000000 feffffffffffffff";

fn dir() -> DirRef {
    DirRef {
        node: NODE,
        path_hint: b"a/b".to_vec(),
    }
}

const HEAD_BYTES: &str = "18 0100000000000000 ffffffffffffffff 2c01000000000000";
const DIR_BYTES: &str = "18 0100000008000000 2c01000000000000 feffffffffffffff 03612f62";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex");
    digits.chunks(2).map(pair).collect()
}

fn frame(body: &str) -> Vec<u8> {
    let body = unhex(body);
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

#[track_caller]
fn check<T>(message: &T, body: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("encodes");
    assert_eq!(bytes, frame(body), "{message:?}");
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    assert_eq!(decoder.next::<T>().expect("decodes").as_ref(), Some(message));
    assert_eq!(decoder.pending(), 0);
}

#[track_caller]
fn check_event(event: Event, bytes: &str) {
    let stamped = Stamped {
        sequence: 1,
        time_ns: -1,
        began_ns: 300,
        event,
    };
    let mut alone = Vec::new();
    encode_event(1, -1, 300, &stamped.event, &mut alone).expect("encodes");
    // Events(1 event), sequence 1, time -1, began 300, then the event.
    check(
        &ToDaemon::Events(vec![stamped]),
        &format!("01 01 {HEAD_BYTES} {bytes}"),
    );
    assert_eq!(alone, frame(&format!("01 01 {HEAD_BYTES} {bytes}")));
}

/// The example of the document.
#[test]
fn a_frame_whole() {
    let mut bytes = Vec::new();
    encode_event(
        1,
        1,
        300,
        &Event::Flushed {
            handle: 7,
            node: NODE,
        },
        &mut bytes,
    )
    .expect("encodes");
    let example = "36000000 01 01
        18 0100000000000000 0100000000000000 2c01000000000000
        07 07
        18 0100000008000000 2c01000000000000 feffffffffffffff";
    assert_eq!(bytes, unhex(example));
}

#[test]
fn an_identity_of_another_length_is_an_error() {
    let flushed = |node: &str| decode::<Event>(&unhex(&format!("07 07 {node}")));
    assert!(flushed(NODE_BYTES).is_ok());
    for (count, bytes) in [(23, 23), (25, 25), (24, 23), (24, 25), (0, 0)] {
        let node = format!("{count:02x} {}", "00".repeat(bytes));
        assert!(flushed(&node).is_err(), "{count} {bytes}");
    }
}

#[test]
fn preamble_bytes() {
    assert_eq!(preamble(), *b"VFSX\x06\x00");
    assert_eq!(check_preamble(b"VFSX\x06\x00"), Ok(()));
    for (version, peer) in [(b"VFSX\x01\x00", 1), (b"VFSX\x05\x00", 5), (b"VFSX\x00\x02", 512)] {
        assert_eq!(check_preamble(version), Err(PreambleError::Version { peer }));
    }
    assert_eq!(check_preamble(b"HTTP/1"), Err(PreambleError::NotVfsx));
}

#[test]
fn messages_of_the_module() {
    for (durability, byte) in [
        (Durability::Noted, "00"),
        (Durability::Journal, "01"),
        (Durability::Remote, "02"),
    ] {
        let hello = Hello {
            session: SessionId([0xee; 16]),
            share: "data".into(),
            pid: 300,
            samba: "4.17".into(),
            module: "0.1".into(),
            durability,
            exclude: Exclude {
                patterns: b"/*/".to_vec(),
                case_sensitive: true,
                read_ns: -2,
            },
            ring: Some(128),
            spooled: 300,
        };
        check(
            &ToDaemon::Hello(hello),
            &format!(
                "00 {} 0464617461 ac02 04342e3137 03302e31 {byte} 032f2a2f 01 03 018001 ac02",
                "ee".repeat(16)
            ),
        );
    }
    check(&ToDaemon::Events(vec![]), "01 00");
    check(&ToDaemon::Sent { token: 128 }, "02 8001");
    check(&ToDaemon::Await { sequence: 128 }, "03 8001");
    let waits = Waits {
        calls: 300,
        fallbacks: 2,
        last_fallback_ns: 1,
    };
    check(&ToDaemon::Waits(waits), "04 ac02 02 02");
    check(&ToDaemon::AckNow, "05");
}

#[test]
fn messages_of_the_daemon() {
    let welcome = Welcome {
        acknowledged: 5,
        memory: true,
    };
    check(&ToModule::Welcome(welcome), "00 05 01");
    check(
        &ToModule::Refused(Refusal::UnknownShare { share: "x".into() }),
        "01 00 0178",
    );
    check(
        &ToModule::Refused(Refusal::NotAllowed { uid: 1000 }),
        "01 01 e807",
    );
    check(&ToModule::Ack { sequence: u64::MAX }, "02 ffffffffffffffffff01");
    check(&ToModule::SendNow { token: 1 }, "03 01");
    check(&ToModule::Committed { sequence: 300 }, "04 ac02");
    check(&ToModule::Copy { on: true }, "05 01");
    check(&ToModule::Copy { on: false }, "05 00");
}

#[test]
fn events_on_names() {
    let name = b"\xff".to_vec();
    for (kind, byte) in [
        (NodeKind::File, "00"),
        (NodeKind::Directory, "01"),
        (NodeKind::Symlink, "02"),
        (NodeKind::Special, "03"),
    ] {
        let create = Event::Create {
            dir: dir(),
            name: name.clone(),
            node: NODE,
            kind,
        };
        check_event(create, &format!("00 {DIR_BYTES} 01ff {NODE_BYTES} {byte}"));
    }
    let link = Event::Link {
        dir: dir(),
        name: name.clone(),
        node: NODE,
    };
    check_event(link, &format!("01 {DIR_BYTES} 01ff {NODE_BYTES}"));
    for (replaced, bytes) in [(None, "00".to_owned()), (Some(NODE), format!("01 {NODE_BYTES}"))] {
        let rename = Event::Rename {
            from: dir(),
            from_name: name.clone(),
            to: dir(),
            to_name: b"to".to_vec(),
            node: NODE,
            replaced,
        };
        check_event(
            rename,
            &format!("02 {DIR_BYTES} 01ff {DIR_BYTES} 02746f {NODE_BYTES} {bytes}"),
        );
    }
    let unlink = Event::Unlink {
        dir: dir(),
        name: name.clone(),
        node: NODE,
    };
    check_event(unlink, &format!("03 {DIR_BYTES} 01ff {NODE_BYTES}"));
    check_event(Event::Look { dir: dir(), name }, &format!("04 {DIR_BYTES} 01ff"));
}

#[test]
fn events_on_content() {
    let path_hint = b"f".to_vec();
    let opened = Event::Opened {
        handle: 7,
        node: NODE,
        path_hint: path_hint.clone(),
    };
    check_event(opened, &format!("05 07 {NODE_BYTES} 0166"));
    let ranges = vec![Range { start: 0, end: 128 }, Range { start: 256, end: 300 }];
    let dirty = Event::Dirty {
        handle: 7,
        node: NODE,
        path_hint,
        ranges,
        whole: true,
    };
    check_event(dirty, &format!("06 07 {NODE_BYTES} 0166 02 00 8001 8002 ac02 01"));
    check_event(
        Event::Flushed {
            handle: 7,
            node: NODE,
        },
        &format!("07 07 {NODE_BYTES}"),
    );
    check_event(
        Event::Closed {
            handle: 7,
            node: NODE,
        },
        &format!("08 07 {NODE_BYTES}"),
    );
}

#[test]
fn events_of_written_data() {
    let write = |data| Event::Write {
        handle: 7,
        node: NODE,
        start: 128,
        length: 300,
        data,
    };
    check_event(write(None), &format!("0b 07 {NODE_BYTES} 8001 ac02 00"));
    let place = InRing {
        position: 1,
        checksum: 300,
    };
    check_event(
        write(Some(place)),
        &format!("0b 07 {NODE_BYTES} 8001 ac02 01 01 ac02"),
    );
    let resized = Event::Resized {
        handle: 7,
        node: NODE,
        size: 128,
    };
    check_event(resized, &format!("0c 07 {NODE_BYTES} 8001"));
    let metadata = Metadata {
        mode: 0o777,
        uid: 1,
        gid: 300,
        mtime: (-1, 2),
        atime: (1, 0),
        xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
    };
    let metadata = Event::Metadata {
        node: NODE,
        path_hint: b"f".to_vec(),
        metadata,
    };
    check_event(
        metadata,
        &format!("0d {NODE_BYTES} 0166 ff03 01 ac02 01 02 02 00 01 06757365722e61 0162"),
    );
}

#[test]
fn events_on_metadata_and_gaps() {
    let changed = Changed {
        stat: false,
        xattrs: true,
    };
    let touched = Event::Touched {
        node: NODE,
        path_hint: vec![],
        changed,
    };
    check_event(touched, &format!("09 {NODE_BYTES} 00 00 01"));
    for (reason, byte) in [
        (GapReason::RingFull, "00"),
        (GapReason::DaemonAbsent, "01"),
        (GapReason::Panic, "02"),
        (GapReason::Unrepresentable, "03"),
    ] {
        check_event(Event::Gap { since_ns: -1, reason }, &format!("0a 01 {byte}"));
    }
}

#[test]
fn a_frame_that_claims_too_much_is_refused_before_it_is_collected() {
    let mut decoder = Decoder::default();
    decoder.push(&(MAX_FRAME as u32 + 1).to_le_bytes());
    assert_eq!(
        decoder.next::<ToModule>(),
        Err(FrameError::TooLong {
            length: MAX_FRAME + 1
        })
    );
    let mut out = b"before".to_vec();
    let long = ToModule::Refused(Refusal::UnknownShare {
        share: "x".repeat(MAX_FRAME),
    });
    assert!(matches!(encode(&long, &mut out), Err(FrameError::TooLong { .. })));
    assert_eq!(out, b"before");
}

#[test]
fn a_frame_at_its_limit_is_taken() {
    // The variants of both, and the length in three bytes.
    let longest = |length: usize| {
        ToModule::Refused(Refusal::UnknownShare {
            share: "x".repeat(length),
        })
    };
    let mut out = Vec::new();
    encode(&longest(MAX_FRAME - 5), &mut out).unwrap();
    assert_eq!(out.len(), 4 + MAX_FRAME);
    let mut decoder = Decoder::default();
    decoder.push(&out);
    assert_eq!(decoder.next(), Ok(Some(longest(MAX_FRAME - 5))));
    assert!(encode(&longest(MAX_FRAME - 4), &mut out).is_err());
}

#[test]
fn bytes_after_a_message_and_unknown_messages_are_errors() {
    assert_eq!(
        decode::<ToModule>(&[0x03, 0x01, 0x00]),
        Err(FrameError::Trailing { left: 1 })
    );
    assert!(matches!(
        decode::<ToModule>(&[0x06]),
        Err(FrameError::Malformed(_))
    ));
    assert!(matches!(decode::<ToModule>(&[]), Err(FrameError::Malformed(_))));
}
