//! Segment files: their names, their headers, and walking over their records.

use super::codec::{self, DecodeError, HEADER_PROBE, Header, MAX_ENCODED, MIN_ENCODED};
use super::record::Record;
use restfs_lib::disk::{Storage, StorageFile};
use std::io;
use std::sync::Arc;

const SUFFIX: &str = ".journal";
/// A segment under construction; removed at start.
pub(super) const TEMPORARY: &str = "new.tmp";
/// Bytes read at once.
const CHUNK: usize = 256 * 1024;
/// What the search behind damage may sum up, in bytes for each byte that it looks at. Records are summed up once; only content that
/// was made to look like records costs more.
const SUMMED: u64 = 16;
/// The same for what is short.
const SUMMED_AT_LEAST: u64 = 4 * MAX_ENCODED as u64;
/// No journal counts so far: a file that is named by more is none of its segments.
const MAX_FIRST: u64 = i64::MAX as u64;

/// `00000000000000000042.journal`: named by the first sequence, so that names sort as sequences do.
pub(super) fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let first = (digits.len() == 20).then(|| digits.parse().ok())??;
    // `+` is no digit to us, and records are counted from 1.
    let ours = digits.bytes().all(|byte| byte.is_ascii_digit());
    (ours && (1..=MAX_FIRST).contains(&first)).then_some(first)
}

/// First sequences of all segments, oldest first.
pub(super) fn list(storage: &dyn Storage) -> io::Result<Vec<u64>> {
    let mut firsts: Vec<u64> = storage.list()?.iter().filter_map(|n| parse_name(n)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// A new segment with `records` in it, complete and durable under its name or not there at all.
pub(super) fn create(
    storage: &dyn Storage,
    header: &Header,
    records: &[u8],
) -> io::Result<(Arc<dyn StorageFile>, u64)> {
    let mut bytes = codec::encode_header(header);
    bytes.extend_from_slice(records);
    let file = storage.create(TEMPORARY)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_data()?;
    storage.rename(TEMPORARY, &name(header.first))?;
    storage.sync_dir()?;
    Ok((file, bytes.len() as u64))
}

/// What stands at a place of a segment.
pub(super) enum Found {
    Record(Box<Record>),
    /// The file ends here, at a record's end.
    End,
    /// No whole record stands here.
    Damaged(DecodeError),
}

/// Walks over a segment, record by record.
pub(super) struct Walk {
    file: Arc<dyn StorageFile>,
    /// Bytes of the file from `offset` on that are in memory, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Where the next record begins.
    offset: u64,
}

impl Walk {
    /// Begins anywhere.
    pub(super) fn at(file: Arc<dyn StorageFile>, offset: u64) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            start: 0,
            offset,
        }
    }

    /// Begins after the header. The inner error is damage.
    pub(super) fn open(file: Arc<dyn StorageFile>) -> io::Result<Result<(Self, Header), DecodeError>> {
        let mut walk = Self::at(file, 0);
        walk.fill(HEADER_PROBE)?;
        let length = match codec::header_length(walk.pending()) {
            Ok(length) => length,
            Err(e) => return Ok(Err(e)),
        };
        walk.fill(length)?;
        let header = walk
            .pending()
            .get(..length)
            .ok_or(DecodeError::Short)
            .and_then(codec::decode_header);
        walk.advance(length);
        Ok(header.map(|header| (walk, header)))
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record. At the end and at damage it stays where it is: a later call looks again.
    pub(super) fn next(&mut self) -> io::Result<Found> {
        if let Ok((record, length)) = codec::decode_record(self.pending()) {
            return Ok(self.give(record, length));
        }
        // What is in memory may be from before the rest of the record was written.
        self.reload(CHUNK)?;
        let mut attempt = codec::decode_record(self.pending());
        if attempt == Err(DecodeError::Short) && !self.pending().is_empty() {
            self.fill(MAX_ENCODED)?;
            attempt = codec::decode_record(self.pending());
        }
        match attempt {
            Ok((record, length)) => Ok(self.give(record, length)),
            Err(DecodeError::Short) if self.pending().is_empty() => Ok(Found::End),
            Err(e) => Ok(Found::Damaged(e)),
        }
    }

    /// Highest sequence of a record with a right checksum anywhere after here, where record `expected` would be next. Such a one
    /// after damage means that the damage may be older than the last sync, so that acknowledged records may be in it.
    ///
    /// What stands here may be content that a client has chosen: bytes that look like records with other sequences than can follow
    /// are none, and when so many look right that to sum them all up would take for ever, the highest that could be is the answer.
    pub(super) fn highest_beyond(&mut self, expected: u64) -> io::Result<Option<u64>> {
        let left = self.file.length()?.saturating_sub(self.offset);
        let possible = expected..=expected.saturating_add(left / MIN_ENCODED as u64);
        let mut room = left.saturating_mul(SUMMED).max(SUMMED_AT_LEAST);
        let mut highest = None;
        loop {
            self.reload(CHUNK)?;
            if self.pending().is_empty() {
                return Ok(highest);
            }
            self.fill(CHUNK + MAX_ENCODED)?;
            let window = self.pending();
            let reach = window.len().min(CHUNK);
            for at in 0..reach {
                let Some(rest) = window.get(at..) else { break };
                let claim = codec::claimed(rest).filter(|claim| possible.contains(&claim.sequence));
                let Some(claim) = claim else { continue };
                match room.checked_sub(claim.length as u64) {
                    Some(less) => room = less,
                    None => return Ok(Some(*possible.end())),
                }
                if codec::peek_sequence(rest).is_ok() {
                    highest = highest.max(Some(claim.sequence));
                }
            }
            self.advance(reach);
        }
    }

    fn give(&mut self, record: Record, length: usize) -> Found {
        self.advance(length);
        Found::Record(Box::new(record))
    }

    fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn advance(&mut self, length: usize) {
        self.start = (self.start + length).min(self.buffer.len());
        self.offset += length as u64;
    }

    /// Forgets what is in memory and reads `wanted` bytes anew.
    fn reload(&mut self, wanted: usize) -> io::Result<()> {
        self.buffer.clear();
        self.start = 0;
        self.fill(wanted)
    }

    /// Has `wanted` bytes in memory, or all that the file has.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        while self.buffer.len() < wanted {
            let have = self.buffer.len();
            self.buffer.resize(have + CHUNK.max(wanted - have), 0);
            let at = self.offset + have as u64;
            let target = self.buffer.get_mut(have..).unwrap_or_default();
            let read = match self.file.read_at(target, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    self.buffer.truncate(have);
                    continue;
                }
                other => other,
            };
            self.buffer.truncate(have + read.as_ref().copied().unwrap_or(0));
            if read? == 0 {
                break;
            }
        }
        Ok(())
    }
}
