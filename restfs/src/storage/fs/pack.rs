//! Pack files as files: names, creating, opening, and a bounded number kept open for reading.

use super::record::{FILE_HEADER, encode_file_header};
use crate::storage::StoreError;
use lru::LruCache;
use restfs_lib::disk::{Directory, Storage, StorageFile, is_full};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Packs kept open for reading: 64 of 256 MiB are 16 GiB that need no open.
const OPEN_PACKS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

pub(super) struct Packs {
    /// For texts.
    folder: PathBuf,
    files: Arc<dyn Storage>,
    open: Mutex<LruCache<u64, Arc<dyn StorageFile>>>,
}

impl Packs {
    pub(super) fn new(folder: PathBuf) -> Self {
        let files = Arc::new(Directory::at(&folder));
        Self::on(folder, files)
    }

    pub(super) fn on(folder: PathBuf, files: Arc<dyn Storage>) -> Self {
        Self {
            folder,
            files,
            open: Mutex::new(LruCache::new(OPEN_PACKS)),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn make_folder(&self) -> io::Result<()> {
        self.files.make()
    }

    /// Numbers of the packs there are, ascending.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let names = self.files.list()?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn for_reading(&self, pack: u64) -> io::Result<Arc<dyn StorageFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&pack) {
            return Ok(Arc::clone(file));
        }
        let file = self.open_anew(pack)?;
        open.put(pack, Arc::clone(&file));
        Ok(file)
    }

    /// For reading, whatever is open already.
    pub(super) fn open_anew(&self, pack: u64) -> io::Result<Arc<dyn StorageFile>> {
        self.files.open_read(&name(pack))
    }

    /// A file that was removed stays readable for who has it open.
    pub(super) fn close(&self, pack: u64) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop(&pack);
    }

    pub(super) fn for_appending(&self, pack: u64) -> io::Result<Arc<dyn StorageFile>> {
        self.files.open(&name(pack))
    }

    /// A new pack, durable with its name and header before anything is written into it. A file of that number
    /// holds nothing: it is left of a creation that failed.
    pub(super) fn create(&self, pack: u64) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.files.create(&name(pack))?;
        let written = file
            .write_all_at(&encode_file_header(pack), 0)
            .and_then(|()| file.sync_data())
            .and_then(|()| self.files.sync_dir());
        match written {
            Ok(()) => Ok(file),
            Err(error) => {
                // With no space for the header there is none for keeping the name either.
                let _ = self.files.remove(&name(pack));
                Err(error)
            }
        }
    }

    pub(super) fn free(&self) -> io::Result<u64> {
        self.files.free()
    }

    /// Removes a pack for good; one that is gone is no error.
    pub(super) fn remove(&self, pack: u64) -> io::Result<()> {
        match self.files.remove(&name(pack)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.close(pack);
        self.files.sync_dir()
    }

    /// Bytes of all pack files.
    pub(super) fn bytes(&self) -> io::Result<(u64, u64)> {
        let numbers = self.numbers()?;
        let mut bytes = 0;
        for number in &numbers {
            match self.open_anew(*number).and_then(|pack| pack.length()) {
                Ok(length) => bytes += length,
                // Collected meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((numbers.len() as u64, bytes))
    }
}

/// Whether a pack's file ends before its first record: the creation was cut off.
pub(super) fn is_stub(file: &dyn StorageFile) -> io::Result<bool> {
    Ok(file.length()? <= FILE_HEADER as u64)
}

pub(super) fn failed(what: impl FnOnce() -> String, folder: &Path, source: io::Error) -> StoreError {
    match is_full(&source) {
        true => StoreError::Full {
            place: folder.display().to_string(),
            source,
        },
        false => StoreError::Io { what: what(), source },
    }
}

fn name(pack: u64) -> String {
    format!("{pack:08}.pack")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".pack")?;
    (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}
