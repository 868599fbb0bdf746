//! Bytes of a record and of a segment's header. Drawn in `docs/formats/journal.md`; all integers little-endian.

use super::record::{Body, Record, Session};
use super::sessions::{SessionRow, State};
use restfs_lib::checksum::crc32c;

/// First bytes of every segment file.
pub(super) const MAGIC: [u8; 8] = *b"VFSXJRNL";
/// Version of the header and of the record frame.
pub(super) const SEGMENT_VERSION: u16 = 1;
/// Version of the payload: raised with every change of [`Body`].
pub(super) const PAYLOAD_VERSION: u8 = 2;
/// The one before has no `began`, and fewer kinds of bodies.
const PAYLOAD_WITHOUT_BEGAN: u8 = 1;

/// Length and CRC of a record, ahead of what the length counts.
const PREFIX: usize = 8;
/// Sequence, time, session, session sequence, payload version.
const FIXED: usize = 8 + 8 + 16 + 8 + 1;
/// What `began` takes before the payload.
const BEGAN: usize = 8;
/// Room for a payload without data; one that is longer is no trouble.
const SMALL_BODY: usize = 128;
/// Longest record after its prefix. A frame of the socket holds 256 KiB, and so much data a write; more can only be damage.
pub(super) const MAX_RECORD: usize = 1024 * 1024;
/// Longest whole record.
pub(super) const MAX_ENCODED: usize = PREFIX + MAX_RECORD;
/// Shortest whole record: none is without a payload.
pub(super) const MIN_ENCODED: usize = PREFIX + FIXED;

const HEADER_FIXED: usize = 8 + 2 + 2 + 4 + 8 + 4;
const HEADER_ROW: usize = 16 + 8 + 1;
const CRC: usize = 4;
/// Sessions a header holds at most; 64 Ki tree connects at once are more than an smbd host has memory for.
pub(super) const MAX_HEADER_SESSIONS: usize = 65_536;
const MAX_HEADER: usize = HEADER_FIXED + MAX_HEADER_SESSIONS * HEADER_ROW + CRC;
/// The segment does not continue the one before: its first record is the gap that says so.
const FLAG_BREAK: u16 = 1;

/// What a segment begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Sequence of its first record.
    pub(super) first: u64,
    /// Its first record is a gap, because records between it and the segment before are lost.
    pub(super) broken: bool,
    /// The sessions as they were when the segment was begun.
    pub(super) sessions: Vec<SessionRow>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// Not all bytes are there.
    #[error("cut short")]
    Short,
    #[error("{0}")]
    Bad(&'static str),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum EncodeError {
    #[error("a record of {0} bytes is longer than the limit of {MAX_RECORD}")]
    TooLong(usize),
    #[error("{0}")]
    Payload(String),
}

pub(super) fn encode_record(record: &Record, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut bytes = Vec::with_capacity(FIXED + BEGAN + SMALL_BODY + record.body.data_len());
    bytes.extend_from_slice(&record.sequence.to_le_bytes());
    bytes.extend_from_slice(&record.time_ns.to_le_bytes());
    bytes.extend_from_slice(&record.session.0);
    bytes.extend_from_slice(&record.session_sequence.to_le_bytes());
    bytes.push(PAYLOAD_VERSION);
    bytes.extend_from_slice(&record.began_ns.to_le_bytes());
    let bytes = postcard::to_extend(&record.body, bytes).map_err(|e| EncodeError::Payload(e.to_string()))?;
    if bytes.len() > MAX_RECORD {
        return Err(EncodeError::TooLong(bytes.len()));
    }

    let prefix = (bytes.len() as u32).to_le_bytes();
    out.extend_from_slice(&prefix);
    out.extend_from_slice(&checksum(&prefix, &bytes).to_le_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

/// The record at the start of `bytes`, and its encoded length.
pub(super) fn decode_record(bytes: &[u8]) -> Result<(Record, usize), DecodeError> {
    let (body, total) = checked_body(bytes)?;
    let mut fields = Fields(body);
    let sequence = u64::from_le_bytes(fields.take()?);
    let time_ns = i64::from_le_bytes(fields.take()?);
    let session = Session(fields.take()?);
    let session_sequence = u64::from_le_bytes(fields.take()?);
    let began_ns = match fields.take()? {
        [PAYLOAD_VERSION] => u64::from_le_bytes(fields.take()?),
        [PAYLOAD_WITHOUT_BEGAN] => 0,
        _ => return Err(DecodeError::Bad("payload of an unknown version")),
    };
    let (body, rest): (Body, &[u8]) = postcard::take_from_bytes(fields.0)
        .map_err(|_| DecodeError::Bad("payload that cannot be decoded"))?;
    if !rest.is_empty() {
        return Err(DecodeError::Bad("bytes after the payload"));
    }
    Ok((
        Record {
            sequence,
            time_ns,
            session,
            session_sequence,
            began_ns,
            body,
        },
        total,
    ))
}

/// Sequence of a record whose checksum is right, without looking at its payload.
pub(super) fn peek_sequence(bytes: &[u8]) -> Result<u64, DecodeError> {
    let (body, _) = checked_body(bytes)?;
    Ok(u64::from_le_bytes(Fields(body).take()?))
}

/// What a record that begins here would be, before its checksum is looked at.
pub(super) struct Claim {
    pub(super) sequence: u64,
    /// Bytes to sum up.
    pub(super) length: usize,
}

/// `None`: no whole record begins here.
pub(super) fn claimed(bytes: &[u8]) -> Option<Claim> {
    let mut fields = Fields(bytes);
    let length = u32::from_le_bytes(fields.take().ok()?) as usize;
    fields.take::<4>().ok()?;
    let possible = (FIXED..=MAX_RECORD).contains(&length) && fields.0.len() >= length;
    let sequence = u64::from_le_bytes(fields.take().ok()?);
    possible.then_some(Claim { sequence, length })
}

fn checked_body(bytes: &[u8]) -> Result<(&[u8], usize), DecodeError> {
    let mut fields = Fields(bytes);
    let prefix: [u8; 4] = fields.take()?;
    let length = u32::from_le_bytes(prefix) as usize;
    if !(FIXED..=MAX_RECORD).contains(&length) {
        return Err(DecodeError::Bad("impossible length"));
    }
    let crc = u32::from_le_bytes(fields.take()?);
    let body = fields.0.get(..length).ok_or(DecodeError::Short)?;
    if checksum(&prefix, body) != crc {
        return Err(DecodeError::Bad("wrong checksum"));
    }
    Ok((body, PREFIX + length))
}

/// CRC32C of both, one after the other.
pub(super) fn checksum(prefix: &[u8], body: &[u8]) -> u32 {
    crc32c(&[prefix, body])
}

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let sessions = header
        .sessions
        .get(..MAX_HEADER_SESSIONS)
        .unwrap_or(&header.sessions);
    let total = HEADER_FIXED + sessions.len() * HEADER_ROW + CRC;
    let flags = if header.broken { FLAG_BREAK } else { 0 };
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&(total as u32).to_le_bytes());
    out.extend_from_slice(&header.first.to_le_bytes());
    out.extend_from_slice(&(sessions.len() as u32).to_le_bytes());
    for row in sessions {
        out.extend_from_slice(&row.session.0);
        out.extend_from_slice(&row.sequence.to_le_bytes());
        out.push(match row.state {
            State::Open => 0,
            State::Ended => 1,
        });
    }
    let crc = crc32c(&[&out]);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// How many bytes of a segment hold its header, from its first [`HEADER_PROBE`] bytes.
pub(super) fn header_length(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut fields = Fields(bytes);
    if fields.take::<8>()? != MAGIC {
        return Err(DecodeError::Bad("not a journal segment"));
    }
    if u16::from_le_bytes(fields.take()?) != SEGMENT_VERSION {
        return Err(DecodeError::Bad("segment of an unknown version"));
    }
    fields.take::<2>()?;
    let length = u32::from_le_bytes(fields.take()?) as usize;
    if !(HEADER_FIXED + CRC..=MAX_HEADER).contains(&length) {
        return Err(DecodeError::Bad("impossible header length"));
    }
    Ok(length)
}

/// Bytes that [`header_length`] needs.
pub(super) const HEADER_PROBE: usize = 16;

/// Decodes exactly the bytes of a header.
pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, DecodeError> {
    if header_length(bytes)? != bytes.len() {
        return Err(DecodeError::Short);
    }
    let (content, crc) = bytes.split_last_chunk::<CRC>().ok_or(DecodeError::Short)?;
    if crc32c(&[content]) != u32::from_le_bytes(*crc) {
        return Err(DecodeError::Bad("wrong header checksum"));
    }
    let mut fields = Fields(content);
    fields.take::<10>()?;
    let flags = u16::from_le_bytes(fields.take()?);
    fields.take::<4>()?;
    let first = u64::from_le_bytes(fields.take()?);
    let count = u32::from_le_bytes(fields.take()?) as usize;
    if fields.0.len() != count * HEADER_ROW {
        return Err(DecodeError::Bad("wrong number of sessions"));
    }
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        let session = Session(fields.take()?);
        let sequence = u64::from_le_bytes(fields.take()?);
        let state = match fields.take::<1>()? {
            [0] => State::Open,
            [1] => State::Ended,
            _ => return Err(DecodeError::Bad("unknown session state")),
        };
        sessions.push(SessionRow {
            session,
            sequence,
            state,
        });
    }
    Ok(Header {
        first,
        broken: flags & FLAG_BREAK != 0,
        sessions,
    })
}

/// Takes fixed-size fields off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*field)
    }
}
