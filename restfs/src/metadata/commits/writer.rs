//! The newest log's end: whole transactions, synced before anybody hears of them.

use super::LogError;
use super::files::{Files, failed};
use super::record::{FileHeader, FileKind, LogId, RECORD_HEADER, RecordHeader};
use restfs_lib::checksum::crc32c;
use restfs_lib::content;
use restfs_lib::disk::{StorageFile, is_full};
use restfs_lib::model::Compression;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A log is left for a new one beyond this: what is behind an image goes in such pieces.
pub(super) const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// Shorter payloads are not worth packing: they are mostly one hash.
const PACK_FROM: usize = 256;

pub(super) struct Writer {
    files: Files,
    log_bytes: u64,
    header: FileHeader,
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    /// End of the last transaction that counts.
    end: u64,
    /// Number of it.
    sequence: u64,
    /// What is read from here on may not be on the disk, and behind `end` may be something that does not count. Made sure before
    /// anything else is written; that waits for room where there is none (on btrfs cutting off takes some, too).
    unsure: Option<u64>,
    /// Why nothing may be written any more.
    failed: Option<String>,
}

/// Where a log goes on.
pub(super) struct End {
    pub(super) header: FileHeader,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) offset: u64,
    pub(super) sequence: u64,
    /// Where the last transaction begins, of a file that another run has written: its sync may have failed.
    pub(super) unsure: Option<u64>,
}

impl Writer {
    pub(super) fn new(files: Files, end: End, log_bytes: u64) -> Self {
        Self {
            files,
            log_bytes,
            header: end.header,
            path: end.path,
            file: end.file,
            end: end.offset,
            sequence: end.sequence,
            unsure: end.unsure,
            failed: None,
        }
    }

    pub(super) fn log(&self) -> LogId {
        self.header.log
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// The file that is written, and the end of what counts in it.
    pub(super) fn place(&self) -> (&Path, u64) {
        (&self.path, self.end)
    }

    /// Whether more can be written, and a restart finds what counts, and no more.
    pub(super) fn writable(&mut self) -> Result<(), LogError> {
        self.not_failed()?;
        self.unsure.map_or(Ok(()), |from| self.make_sure(from))
    }

    fn not_failed(&self) -> Result<(), LogError> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(LogError::Failed(why.clone())),
        }
    }

    /// Number of the next transaction.
    pub(super) fn next(&self) -> u64 {
        self.sequence + 1
    }

    /// Writes the next transaction; durable when it returns. After an error nothing of it is left, or it is cut off before anything else
    /// is written, or nothing more can be written. It counts once [`Writer::keep`] is called; before, [`Writer::take_back`] undoes it.
    pub(super) fn append(&mut self, parts: Vec<Vec<u8>>) -> Result<Written, LogError> {
        self.writable()?;
        if self.end >= self.log_bytes {
            self.next_log()?;
        }
        let mut offset = self.end;
        let count = parts.len();
        for (number, part) in parts.into_iter().enumerate() {
            let record = encode_record(&self.header, offset, self.next(), number + 1 == count, part);
            if let Err(error) = self.file.write_all_at(&record, offset) {
                // Durably: of this transaction and the next, which has the same number, a power cut might keep some of each.
                self.take_back();
                return Err(failed("writing", &self.path, error));
            }
            offset += record.len() as u64;
        }
        if let Err(error) = self.file.sync_data() {
            // The kernel may call pages clean that never reached the disk; cut off, nobody believes in them.
            let _ = self.cut();
            self.fail(format!("syncing {}: {error}", self.path.display()));
            self.writable()?;
        }
        Ok(Written { end: offset })
    }

    pub(super) fn keep(&mut self, written: &Written) {
        self.end = written.end;
        self.sequence += 1;
    }

    /// The store did not take it, so the log must not have it either. What cannot be cut off now is before anything else is written; a
    /// restart before that finds a transaction that was refused.
    pub(super) fn take_back(&mut self) {
        if let Err(error) = self.cut() {
            tracing::warn!("a transaction that was refused is still in the commit log: {error}");
        }
    }

    /// Whether the store took the transaction is known only after a restart.
    pub(super) fn fail(&mut self, why: String) {
        tracing::error!("the commit log takes no more writes: {why}");
        self.failed = Some(why);
    }

    /// Everything from the next transaction on goes into a new file. One that has no transaction yet is made again. When it is in
    /// doubt which file a restart finds, nothing is written any more: it could be the other one, or one that begins in the middle of
    /// the one that is written.
    pub(super) fn next_log(&mut self) -> Result<(), LogError> {
        self.writable()?;
        let header = FileHeader {
            kind: FileKind::Log,
            log: self.header.log,
            sequence: self.next(),
        };
        let (path, file) = match self.files.create(&header) {
            Ok(created) => created,
            Err(error) => {
                if let LogError::Failed(why) = &error {
                    self.fail(why.clone());
                }
                return Err(error);
            }
        };
        self.header = header;
        self.path = path;
        self.file = file;
        self.end = super::record::FILE_HEADER as u64;
        Ok(())
    }

    fn cut(&mut self) -> Result<(), LogError> {
        self.make_sure(self.end)
    }

    /// What counts of the file, from there on, is on the disk, and nothing else is.
    fn make_sure(&mut self, from: u64) -> Result<(), LogError> {
        self.unsure = Some(from);
        let again = self.file.write_again(from..self.end);
        let made = again.and_then(|()| self.file.set_len(self.end));
        match made {
            Err(error) if is_full(&error) => return Err(failed("writing", &self.path, error)),
            made => match made.and_then(|()| self.file.sync_data()) {
                Ok(()) => self.unsure = None,
                Err(error) => self.fail(format!("making sure of {}: {error}", self.path.display())),
            },
        }
        self.not_failed()
    }
}

/// A transaction that is in the log and not yet in the store.
#[must_use]
pub(super) struct Written {
    end: u64,
}

pub(super) fn encode_record(
    file: &FileHeader,
    offset: u64,
    sequence: u64,
    last: bool,
    part: Vec<u8>,
) -> Vec<u8> {
    let plain = part.len();
    let packed = match plain >= PACK_FROM {
        true => content::compress(&part, Compression::Zstd),
        false => None,
    };
    let (is_packed, payload) = match packed {
        Some(packed) => (true, packed),
        None => (false, part),
    };
    let header = RecordHeader {
        last,
        packed: is_packed,
        plain: narrow(plain),
        stored: narrow(payload.len()),
        sequence,
        payload_crc: crc32c(&[&payload]),
    };
    let mut record = Vec::with_capacity(RECORD_HEADER + payload.len());
    record.extend(header.encode(file, offset));
    record.extend(payload);
    record
}

/// Of a part's length, at most [`super::record::MAX_PAYLOAD`].
fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("a part is shorter than 4 GiB")
}
