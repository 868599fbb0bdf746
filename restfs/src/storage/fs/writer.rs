//! The newest pack's end: one record after the other, none half.

use super::index::Location;
use super::record::{Encoding, FILE_HEADER, KIND_BLOCK, RECORD_HEADER, RecordHeader};
use restfs_lib::checksum::crc32c;
use restfs_lib::content;
use restfs_lib::disk::StorageFile;
use restfs_lib::model::{BlockKey, Compression};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

pub(super) struct Writer {
    pub(super) pack: u64,
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) offset: u64,
    /// Number of the pack after this one.
    pub(super) next: u64,
    /// Bytes appended since the start, over all packs.
    pub(super) position: u64,
    /// A write failed and what it left could not be removed yet.
    rest_to_cut: bool,
    /// In the order of their positions.
    pub(super) queue: VecDeque<Recent>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Recent {
    pub(super) key: BlockKey,
    pub(super) location: Location,
    /// Position of the record's end.
    pub(super) position: u64,
}

impl Recent {
    pub(super) fn record_end(&self) -> u64 {
        self.location.offset + RECORD_HEADER as u64 + u64::from(self.location.stored)
    }
}

/// Where the next record goes.
pub(super) struct End {
    pub(super) pack: u64,
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) offset: u64,
    /// Number of the pack after this one: higher than any that was ever used, whatever became of its pack.
    pub(super) next: u64,
}

/// A record but for its header's checksum, which depends on its place. Made without holding a lock.
pub(super) struct Record<'a> {
    header: RecordHeader,
    payload: Cow<'a, [u8]>,
}

impl<'a> Record<'a> {
    pub(super) fn new(key: BlockKey, content: &'a [u8], compression: Compression) -> Self {
        let (encoding, payload) = match content::compress(content, compression) {
            Some(smaller) => (Encoding::Zstd, Cow::Owned(smaller)),
            None => (Encoding::Plain, Cow::Borrowed(content)),
        };
        let header = RecordHeader {
            kind: KIND_BLOCK,
            encoding: encoding.number(),
            plain: narrow(content.len()),
            stored: narrow(payload.len()),
            key,
            payload_crc: crc32c(&[&payload]),
        };
        Self { header, payload }
    }

    /// As it is in another place.
    pub(super) fn copied(header: RecordHeader, payload: &'a [u8]) -> Self {
        Self {
            header,
            payload: Cow::Borrowed(payload),
        }
    }

    pub(super) fn key(&self) -> BlockKey {
        self.header.key
    }

    pub(super) fn length(&self) -> u64 {
        self.header.record_length()
    }
}

impl Writer {
    pub(super) fn new(end: End) -> Self {
        Self {
            pack: end.pack,
            file: end.file,
            offset: end.offset,
            next: end.next,
            position: 0,
            rest_to_cut: false,
            queue: VecDeque::new(),
        }
    }

    /// Any record fits into a pack that has none.
    pub(super) fn has_room(&self, length: u64, pack_size: u64) -> bool {
        self.offset + length <= pack_size || self.offset <= FILE_HEADER as u64
    }

    /// A failed write leaves the pack as it was.
    pub(super) fn append(&mut self, record: &Record<'_>) -> io::Result<Location> {
        self.cut_rest()?;
        let header = record.header.encode(self.pack, self.offset);
        let mut parts = [io::IoSlice::new(&header), io::IoSlice::new(&record.payload)];
        if let Err(error) = self.file.write_all_parts_at(&mut parts, self.offset) {
            self.rest_to_cut = true;
            // Tried again before the next write.
            let _ = self.cut_rest();
            return Err(error);
        }
        let RecordHeader {
            key, plain, stored, ..
        } = record.header;
        let location = Location {
            pack: self.pack,
            offset: self.offset,
            plain,
            stored,
        };
        self.offset += record.length();
        self.position += record.length();
        self.queue.push_back(Recent {
            key,
            location,
            position: self.position,
        });
        Ok(location)
    }

    /// Removes what a failed write left behind the last record.
    pub(super) fn cut_rest(&mut self) -> io::Result<()> {
        if self.rest_to_cut {
            self.file.set_len(self.offset)?;
            self.rest_to_cut = false;
        }
        Ok(())
    }
}

/// Of a block's length, at most [`crate::storage::MAX_BLOCK`].
fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("a block is shorter than 4 GiB")
}
