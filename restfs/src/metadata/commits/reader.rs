//! Reads a file of the log from its start: transactions in order, and where something is wrong.

use super::LogError;
use super::files::{Known, failed};
use super::record::{FILE_HEADER, MAX_PAYLOAD, RECORD_HEADER, RecordHeader};
use restfs_lib::checksum::crc32c;
use restfs_lib::content;

/// Bytes looked through at a time in the search for a record behind a damaged place.
const SEARCH: usize = 1024 * 1024;

pub(super) struct Reader {
    pub(super) known: Known,
    offset: u64,
    length: u64,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) sequence: u64,
    /// Of its transaction.
    pub(super) last: bool,
    pub(super) rows: Vec<u8>,
    /// Where the record ends.
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) enum Next {
    Part(Part),
    /// The file ends behind a whole record.
    End,
    /// No whole record is here. With `more` something was damaged, since there are records of later transactions; else a
    /// write was cut off, of which a power cut may have kept any part.
    Broken {
        offset: u64,
        reason: String,
        more: bool,
    },
}

impl Reader {
    pub(super) fn new(known: &Known) -> Self {
        Self {
            length: known.length,
            known: known.clone(),
            offset: FILE_HEADER as u64,
        }
    }

    /// `expected` is the number of the transaction that belongs here.
    pub(super) fn next(&mut self, expected: u64) -> Result<Next, LogError> {
        if self.offset >= self.length {
            return Ok(Next::End);
        }
        let Some(header) = self.header(self.offset)? else {
            return self.broken(expected, "no record starts here");
        };
        if header.record_length() > self.length - self.offset {
            return self.broken(expected, "the record goes on behind the file's end");
        }
        let mut payload = vec![0; header.stored as usize];
        self.read(&mut payload, self.offset + RECORD_HEADER as u64)?;
        if crc32c(&[&payload]) != header.payload_crc {
            return self.broken(expected, "a record does not match its checksum");
        }
        if header.packed {
            payload = match content::decompress(&payload, header.plain as usize) {
                Ok(rows) => rows,
                Err(error) => return self.broken(expected, &error.to_string()),
            };
        }
        if payload.len() != header.plain as usize {
            return self.broken(expected, "a record is not as long as it says");
        }
        self.offset += header.record_length();
        Ok(Next::Part(Part {
            sequence: header.sequence,
            last: header.last,
            rows: payload,
            end: self.offset,
        }))
    }

    fn broken(&self, expected: u64, reason: &str) -> Result<Next, LogError> {
        Ok(Next::Broken {
            offset: self.offset,
            reason: reason.to_owned(),
            more: self.has_later(expected, self.offset + 1)?,
        })
    }

    fn header(&self, at: u64) -> Result<Option<RecordHeader>, LogError> {
        if self.length.saturating_sub(at) < RECORD_HEADER as u64 {
            return Ok(None);
        }
        let mut bytes = [0; RECORD_HEADER];
        self.read(&mut bytes, at)?;
        Ok(RecordHeader::decode(&bytes, &self.known.header, at))
    }

    /// Whether a transaction behind the `expected` one is there.
    fn has_later(&self, expected: u64, from: u64) -> Result<bool, LogError> {
        let mut chunk = vec![0; SEARCH];
        let mut start = from;
        while self.length.saturating_sub(start) >= RECORD_HEADER as u64 {
            let size = usize::try_from(self.length - start).unwrap_or(SEARCH).min(SEARCH);
            let bytes = &mut chunk[..size];
            self.read(bytes, start)?;
            for (at, window) in bytes.windows(RECORD_HEADER).enumerate() {
                let found = window
                    .first_chunk()
                    .and_then(|window| RecordHeader::decode(window, &self.known.header, start + at as u64));
                if found.is_some_and(|record| record.sequence > expected) {
                    return Ok(true);
                }
            }
            // A header may lie across the chunks' border.
            start += (size - (RECORD_HEADER - 1)) as u64;
        }
        Ok(false)
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), LogError> {
        debug_assert!(bytes.len() <= MAX_PAYLOAD.max(SEARCH));
        self.known
            .file
            .read_exact_at(bytes, at)
            .map_err(|e| failed("reading", &self.known.path, e))
    }
}
