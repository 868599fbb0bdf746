//! Reads a pack from end to end: where its records are, and which bytes are none.

use super::record::{RECORD_HEADER, RECORD_MAGIC, RecordHeader};
use crate::storage::StoreError;
use restfs_lib::checksum::crc32c;
use restfs_lib::disk::StorageFile;
use std::io;
use std::ops::Range;

/// Bytes looked through at a time in the search for the next record.
const SEARCH_CHUNK: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// For packs whose every byte was synced before they were left: payloads are checked when they are read.
    Headers,
    /// For what may have been cut off in writing.
    Payloads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Record {
        offset: u64,
        header: RecordHeader,
    },
    /// No record, but records follow: damage, or what a power cut left of writes that nobody was told of.
    Damage {
        offset: u64,
        length: u64,
    },
}

/// Calls `found` for everything from `from` up to `length`, in order. Returns where the last record ends: what is
/// beyond is a torn tail.
pub(super) fn scan(
    file: &dyn StorageFile,
    pack: u64,
    Range {
        start: from,
        end: length,
    }: Range<u64>,
    depth: Depth,
    mut found: impl FnMut(Found) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let failed = |source| StoreError::Io {
        what: format!("reading pack {pack}"),
        source,
    };
    let mut reader = Reader::new(file, pack, length);
    let mut good_to = from;
    let mut at = from;
    while at < length {
        if let Some(header) = reader.record(at, depth).map_err(failed)? {
            if good_to < at {
                found(Found::Damage {
                    offset: good_to,
                    length: at - good_to,
                })?;
            }
            found(Found::Record { offset: at, header })?;
            at += header.record_length();
            good_to = at;
        } else {
            match reader.next_header(at + 1).map_err(failed)? {
                Some(next) => at = next,
                None => break,
            }
        }
    }
    Ok(good_to)
}

pub(super) struct Reader<'a> {
    file: &'a dyn StorageFile,
    pack: u64,
    length: u64,
    payload: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a dyn StorageFile, pack: u64, length: u64) -> Self {
        Self {
            file,
            pack,
            length,
            payload: Vec::new(),
        }
    }

    /// The record at `at`, when there is a whole one.
    fn record(&mut self, at: u64, depth: Depth) -> io::Result<Option<RecordHeader>> {
        let Some(header) = self.header(at)? else {
            return Ok(None);
        };
        if header.record_length() > self.length - at {
            return Ok(None);
        }
        if depth == Depth::Payloads {
            self.payload.resize(header.stored as usize, 0);
            self.file
                .read_exact_at(&mut self.payload, at + RECORD_HEADER as u64)?;
            if crc32c(&[&self.payload]) != header.payload_crc {
                return Ok(None);
            }
        }
        Ok(Some(header))
    }

    pub(super) fn header(&self, at: u64) -> io::Result<Option<RecordHeader>> {
        if self.length.saturating_sub(at) < RECORD_HEADER as u64 {
            return Ok(None);
        }
        let mut bytes = [0; RECORD_HEADER];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(RecordHeader::decode(&bytes, self.pack, at))
    }

    /// Where the next valid header at or after `from` is.
    pub(super) fn next_header(&self, from: u64) -> io::Result<Option<u64>> {
        let mut chunk = vec![0; SEARCH_CHUNK];
        let mut start = from;
        while self.length.saturating_sub(start) >= RECORD_HEADER as u64 {
            let size = usize::try_from(self.length - start)
                .unwrap_or(SEARCH_CHUNK)
                .min(SEARCH_CHUNK);
            let bytes = &mut chunk[..size];
            self.file.read_exact_at(bytes, start)?;
            for (i, window) in bytes.windows(RECORD_MAGIC.len()).enumerate() {
                if *window == RECORD_MAGIC && self.header(start + i as u64)?.is_some() {
                    return Ok(Some(start + i as u64));
                }
            }
            // The magic number may lie across the chunks' border.
            start += (size - (RECORD_MAGIC.len() - 1)) as u64;
        }
        Ok(None)
    }
}
