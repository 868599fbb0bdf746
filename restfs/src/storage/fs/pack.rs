//! Pack files as files: names, creating, opening, and a bounded number kept open for reading.

use super::record::{FILE_HEADER, encode_file_header};
use crate::storage::StoreError;
use lru::LruCache;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Packs kept open for reading: 64 of 256 MiB are 16 GiB that need no open.
const OPEN_PACKS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

pub(super) struct Packs {
    folder: PathBuf,
    open: Mutex<LruCache<u64, Arc<File>>>,
}

impl Packs {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: Mutex::new(LruCache::new(OPEN_PACKS)),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, pack: u64) -> PathBuf {
        self.folder.join(format!("{pack:08}.pack"))
    }

    /// Numbers of the packs there are, ascending.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            if let Some(number) = entry?.file_name().to_str().and_then(number_of) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn for_reading(&self, pack: u64) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&pack) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(self.path(pack))?);
        open.put(pack, Arc::clone(&file));
        Ok(file)
    }

    /// A file that was removed stays readable for who has it open.
    pub(super) fn close(&self, pack: u64) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop(&pack);
    }

    pub(super) fn for_appending(&self, pack: u64) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(pack))
    }

    /// A new pack, durable with its name and header before anything is written into it. A file of that number
    /// holds nothing: it is left of a creation that failed.
    pub(super) fn create(&self, pack: u64) -> io::Result<File> {
        let path = self.path(pack);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        let written = file
            .write_all_at(&encode_file_header(pack), 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(&self.folder)?.sync_all());
        match written {
            Ok(()) => Ok(file),
            Err(error) => {
                // With no space for the header there is none for keeping the name either.
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Removes a pack for good; one that is gone is no error.
    pub(super) fn remove(&self, pack: u64) -> io::Result<()> {
        match std::fs::remove_file(self.path(pack)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.close(pack);
        File::open(&self.folder)?.sync_all()
    }

    /// Bytes of all pack files.
    pub(super) fn bytes(&self) -> io::Result<(u64, u64)> {
        let numbers = self.numbers()?;
        let mut bytes = 0;
        for number in &numbers {
            match std::fs::metadata(self.path(*number)) {
                Ok(found) => bytes += found.len(),
                // Collected meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((numbers.len() as u64, bytes))
    }
}

/// Whether a pack's file ends before its first record: the creation was cut off.
pub(super) fn is_stub(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.len() <= FILE_HEADER as u64)
}

/// ENOSPC and a used-up quota are one thing for whoever runs the store.
pub(super) fn failed(what: impl FnOnce() -> String, folder: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full {
            place: folder.display().to_string(),
            source,
        },
        _ => StoreError::Io { what: what(), source },
    }
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".pack")?;
    (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}
