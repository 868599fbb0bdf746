//! The bytes of the journal. A change of these is a change of the format: raise its version.

use super::{event, of};
use crate::journal::codec::{
    DecodeError, Header, checksum, decode_header, decode_record, encode_header, encode_record, header_length,
};
use crate::journal::sessions::{SessionRow, State};
use crate::journal::{
    Body, Changed, DirRef, GapReason, Metadata, NodeKind, NodeRef, Range, Record, Session, SessionEnd,
};
use bytes::Bytes;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn payload(body: Body) -> String {
    let record = Record {
        sequence: 1,
        time_ns: 0,
        session: Session::DAEMON,
        session_sequence: 0,
        began_ns: 0,
        body,
    };
    let mut bytes = Vec::new();
    encode_record(&record, &mut bytes).expect("small");
    hex(&bytes[57..])
}

#[test]
fn the_bytes_of_a_record_stay_as_they_are() {
    let record = Record {
        sequence: 0x0102,
        time_ns: -2,
        session: Session([0xAB; 16]),
        session_sequence: 5,
        began_ns: 0x0304,
        body: Body::Gap {
            since_ns: 1,
            reason: GapReason::DaemonAbsent,
        },
    };
    let mut bytes = Vec::new();
    encode_record(&record, &mut bytes).expect("small");
    assert_eq!(
        hex(&bytes),
        concat!(
            "34000000",                         // length
            "e8277d3f",                         // CRC32C
            "0201000000000000",                 // sequence
            "feffffffffffffff",                 // time
            "abababababababababababababababab", // session
            "0500000000000000",                 // session sequence
            "02",                               // payload version
            "0403000000000000",                 // began
            "0a0201",                           // Gap, since 1 (zigzag), DaemonAbsent
        )
    );
    assert_eq!(decode_record(&bytes), Ok((record, bytes.len())));
}

#[test]
fn the_bytes_of_every_kind_of_payload_stay_as_they_are() {
    let node = NodeRef {
        dev: 1,
        ino: 2,
        btime_ns: 3,
    };
    let dir = || DirRef {
        node,
        path_hint: b"p".to_vec(),
    };
    let name = || b"n".to_vec();
    let all = [
        (
            Body::Create {
                dir: dir(),
                name: name(),
                node,
                kind: NodeKind::Special,
            },
            "000102060170016e01020603",
        ),
        (
            Body::Link {
                dir: dir(),
                name: name(),
                node,
            },
            "010102060170016e010206",
        ),
        (
            Body::Rename {
                from: dir(),
                from_name: name(),
                to: dir(),
                to_name: name(),
                node,
                replaced: Some(node),
            },
            "020102060170016e0102060170016e01020601010206",
        ),
        (
            Body::Unlink {
                dir: dir(),
                name: name(),
                node,
            },
            "030102060170016e010206",
        ),
        (
            Body::Look {
                dir: dir(),
                name: name(),
            },
            "040102060170016e",
        ),
        (
            Body::Opened {
                handle: 9,
                node,
                path_hint: name(),
            },
            "0509010206016e",
        ),
        (
            Body::Dirty {
                handle: 9,
                node,
                path_hint: name(),
                ranges: vec![Range { start: 0, end: 300 }],
                whole: true,
            },
            "0609010206016e0100ac0201",
        ),
        (Body::Flushed { handle: 9, node }, "0709010206"),
        (Body::Closed { handle: 9, node }, "0809010206"),
        (
            Body::Touched {
                node,
                path_hint: name(),
                changed: Changed {
                    stat: true,
                    xattrs: false,
                },
            },
            "09010206016e0100",
        ),
        (
            Body::Gap {
                since_ns: 0,
                reason: GapReason::Unknown,
            },
            "0a0007",
        ),
        (
            Body::SessionStarted {
                pid: 7,
                samba: "4".into(),
                module: "m".into(),
            },
            "0b070134016d",
        ),
        (
            Body::SessionEnded {
                how: SessionEnd::NotBack,
            },
            "0c01",
        ),
        (
            Body::Write {
                handle: 9,
                node,
                start: 300,
                length: 2,
                data: Some(Bytes::from_static(b"ab")),
            },
            "0d09010206ac020201026162",
        ),
        (
            Body::Write {
                handle: 9,
                node,
                start: 300,
                length: 2,
                data: None,
            },
            "0d09010206ac020200",
        ),
        (
            Body::Resized {
                handle: 9,
                node,
                size: 300,
            },
            "0e09010206ac02",
        ),
        (
            Body::Metadata {
                node,
                path_hint: name(),
                metadata: Metadata {
                    mode: 0o644,
                    uid: 1,
                    gid: 2,
                    mtime: (-1, 3),
                    atime: (4, 5),
                    xattrs: vec![(name(), b"v".to_vec())],
                },
            },
            "0f010206016ea4030102010308050101 6e0176",
        ),
    ];
    let found: Vec<String> = all.iter().map(|(body, _)| payload(body.clone())).collect();
    let expected: Vec<String> = all.iter().map(|(_, bytes)| bytes.replace(' ', "")).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_record_of_the_payload_before_is_read() {
    let record = Record {
        sequence: 1,
        time_ns: 2,
        session: Session([1; 16]),
        session_sequence: 3,
        began_ns: 0,
        body: Body::SessionEnded {
            how: SessionEnd::Closed,
        },
    };
    let mut bytes = Vec::new();
    encode_record(&record, &mut bytes).expect("small");
    let mut old = bytes[8..48].to_vec();
    old.extend_from_slice(&[1, 12, 0]);
    let prefix = (old.len() as u32).to_le_bytes();
    let crc = checksum(&prefix, &old);
    let old = [&prefix[..], &crc.to_le_bytes(), &old].concat();
    assert_eq!(decode_record(&old), Ok((record, old.len())));
}

#[test]
fn the_bytes_of_a_header_stay_as_they_are() {
    let header = Header {
        first: 42,
        broken: true,
        sessions: vec![
            SessionRow {
                session: Session([1; 16]),
                sequence: 7,
                state: State::Open,
            },
            SessionRow {
                session: Session([2; 16]),
                sequence: 8,
                state: State::Ended,
            },
        ],
    };
    let bytes = encode_header(&header);
    assert_eq!(
        hex(&bytes),
        concat!(
            "564653584a524e4c", // VFSXJRNL
            "0100",             // version
            "0100",             // flags: break
            "52000000",         // length
            "2a00000000000000", // first sequence
            "02000000",         // sessions
            "01010101010101010101010101010101",
            "0700000000000000",
            "00",
            "02020202020202020202020202020202",
            "0800000000000000",
            "01",
            "aaa4e6ce", // CRC32C
        )
    );
    assert_eq!(header_length(&bytes), Ok(bytes.len()));
    assert_eq!(decode_header(&bytes), Ok(header));
}

#[test]
fn any_flipped_bit_of_a_header_is_found() {
    let header = Header {
        first: 42,
        broken: false,
        sessions: vec![],
    };
    let bytes = encode_header(&header);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_header(&bad).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn any_damage_to_a_record_is_found(sequence in 1u64.., at: prop::sample::Index, flip in 1u8..) {
        let mut bytes = Vec::new();
        encode_record(&of(event(3, sequence), sequence), &mut bytes).expect("small");
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(decode_record(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_record(&bytes);
        let _ = decode_header(&bytes);
    }

    #[test]
    fn a_record_cut_anywhere_is_short(sequence in 1u64.., at: prop::sample::Index) {
        let mut bytes = Vec::new();
        encode_record(&of(event(3, sequence), sequence), &mut bytes).expect("small");
        let at = at.index(bytes.len());
        prop_assert_eq!(decode_record(&bytes[..at]), Err(DecodeError::Short));
    }
}
