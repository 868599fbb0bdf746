//! Images: all rows of the store as of one transaction, so that the log before it is not needed any more.

use super::LogError;
use super::files::{Files, failed};
use super::record::{FILE_HEADER, FileHeader, FileKind, LogId};
use super::rows::Encoder;
use super::store::MARK;
use super::writer::encode_record;
use restfs_lib::disk::StorageFile;
use restfs_lib::kv::KvRead;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

/// Rows read at a time.
const PAGE: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageWritten {
    pub rows: u64,
    pub bytes: u64,
}

/// Writes what `kv` has, which is the state after transaction `sequence`. Complete and durable when it returns.
///
/// `whole` looks whether the database is what was written, when all rows were read: what was wrong while they were read is
/// wrong then, too. Without it there is no image: it would take the place of the logs that a damaged database is made anew from.
pub(super) fn write(
    files: &Files,
    log: LogId,
    sequence: u64,
    kv: &dyn KvRead,
    whole: impl FnOnce() -> Result<(), LogError>,
) -> Result<ImageWritten, LogError> {
    let header = FileHeader {
        kind: FileKind::Image,
        log,
        sequence,
    };
    let (path, file) = files.create_unfinished(&header)?;
    let mut image = Image {
        header,
        path,
        file,
        offset: FILE_HEADER as u64,
        rows: 0,
    };
    let written = image.write_rows(kv);
    let finished = written
        .and_then(|()| whole())
        .and_then(|()| files.finish(&header, &*image.file));
    if let Err(error) = finished {
        files.discard_unfinished(&header);
        return Err(error);
    }
    Ok(ImageWritten {
        rows: image.rows,
        bytes: image.offset,
    })
}

struct Image {
    header: FileHeader,
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    offset: u64,
    rows: u64,
}

impl Image {
    fn write_rows(&mut self, kv: &dyn KvRead) -> Result<(), LogError> {
        let mut encoder = Encoder::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = kv.scan(from, Bound::Unbounded, PAGE)?;
            for (key, value) in page.iter().filter(|(key, _)| key != MARK) {
                encoder.put_whole(key, value);
                self.rows += 1;
                if let Some(part) = encoder.take_full_part() {
                    self.part(part, false)?;
                }
            }
            match page.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        for part in encoder.finish() {
            self.part(part, true)?;
        }
        Ok(())
    }

    fn part(&mut self, part: Vec<u8>, last: bool) -> Result<(), LogError> {
        let record = encode_record(&self.header, self.offset, self.header.sequence, last, part);
        self.file
            .write_all_at(&record, self.offset)
            .map_err(|e| failed("writing", &self.path, e))?;
        self.offset += record.len() as u64;
        Ok(())
    }
}
