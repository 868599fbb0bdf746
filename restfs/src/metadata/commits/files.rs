//! The folder `commits/`: names of logs and images, creating, listing, removing.

use super::LogError;
use super::record::{FILE_HEADER, FileHeader, FileHeaderError, FileKind, LogId};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOG: &str = "log";
const IMAGE: &str = "image";
/// Of an image that is not complete yet.
const UNFINISHED: &str = "unfinished";
/// Digits of a name, so that files sort as their numbers do.
const DIGITS: usize = 20;

#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

/// A file with a good header.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
    pub(super) length: u64,
}

/// What is in the folder: images and logs, each by rising numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    pub(super) images: Vec<Known>,
    pub(super) logs: Vec<Known>,
    /// Named like ours, and without a header that could be read.
    pub(super) unreadable: Vec<(PathBuf, String)>,
}

impl Files {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn make_folder(&self) -> Result<(), LogError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .and_then(|()| sync_folder(self.folder.parent().unwrap_or(&self.folder)))
            .map_err(|e| failed("making", &self.folder, e))
    }

    /// Durable with name and header when it returns, so that only records are to be synced afterwards.
    pub(super) fn create(&self, header: &FileHeader) -> Result<(PathBuf, File), LogError> {
        let path = self.path(header);
        let file = self.create_at(&path, header)?;
        sync_folder(&self.folder).map_err(|e| failed("syncing", &self.folder, e))?;
        Ok((path, file))
    }

    /// An image that counts only once [`Files::finish`] has given it its name.
    pub(super) fn create_unfinished(&self, header: &FileHeader) -> Result<(PathBuf, File), LogError> {
        let path = self.path(header).with_extension(UNFINISHED);
        let file = self.create_at(&path, header)?;
        Ok((path, file))
    }

    pub(super) fn finish(
        &self,
        unfinished: &Path,
        header: &FileHeader,
        file: &File,
    ) -> Result<PathBuf, LogError> {
        let path = self.path(header);
        file.sync_all()
            .and_then(|()| std::fs::rename(unfinished, &path))
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|e| failed("finishing", unfinished, e))?;
        Ok(path)
    }

    fn create_at(&self, path: &Path, header: &FileHeader) -> Result<File, LogError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| failed("creating", path, e))?;
        let written = file
            .write_all_at(&header.encode(), 0)
            .and_then(|()| file.sync_all());
        written.map_err(|e| {
            // With no space for the header there is none for keeping the name either.
            let _ = std::fs::remove_file(path);
            failed("creating", path, e)
        })?;
        Ok(file)
    }

    /// No folder is an empty one.
    pub(super) fn list(&self) -> Result<Listing, LogError> {
        let mut listing = Listing::default();
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(listing),
            Err(e) => return Err(failed("listing", &self.folder, e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| failed("listing", &self.folder, e))?.path();
            if !is_ours(&path) {
                continue;
            }
            match self.know(&path)? {
                Ok(known) if known.header.kind == FileKind::Image => listing.images.push(known),
                Ok(known) => listing.logs.push(known),
                Err(why) => listing.unreadable.push((path, why)),
            }
        }
        listing.images.sort_by_key(|known| known.header.sequence);
        listing.logs.sort_by_key(|known| known.header.sequence);
        Ok(listing)
    }

    fn know(&self, path: &Path) -> Result<Result<Known, String>, LogError> {
        let file = File::open(path).map_err(|e| failed("opening", path, e))?;
        let length = file.metadata().map_err(|e| failed("reading", path, e))?.len();
        let mut bytes = [0; FILE_HEADER];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Err("it is too short".to_owned())),
            Err(e) => return Err(failed("reading", path, e)),
        }
        match FileHeader::decode(&bytes) {
            Ok(header) => Ok(Ok(Known {
                path: path.to_owned(),
                header,
                length,
            })),
            Err(FileHeaderError::Damaged(why)) => Ok(Err(why.to_owned())),
            Err(FileHeaderError::Version(version)) => Err(LogError::Version {
                path: path.display().to_string(),
                version,
            }),
        }
    }

    /// Removes what `keep` does not want, and images that were never finished.
    pub(super) fn retain(&self, keep: impl Fn(&Known) -> bool) -> Result<(), LogError> {
        let listing = self.list()?;
        let known = listing.images.into_iter().chain(listing.logs);
        let useless = known.filter(|known| !keep(known)).map(|known| known.path);
        let unfinished = self.unfinished()?;
        let unreadable = listing.unreadable.into_iter().map(|(path, _)| path);
        for path in useless.chain(unfinished).chain(unreadable) {
            remove(&path)?;
        }
        sync_folder(&self.folder).map_err(|e| failed("syncing", &self.folder, e))
    }

    fn unfinished(&self) -> Result<Vec<PathBuf>, LogError> {
        let entries = std::fs::read_dir(&self.folder).map_err(|e| failed("listing", &self.folder, e))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let paths: Vec<PathBuf> = paths
            .collect::<io::Result<_>>()
            .map_err(|e| failed("listing", &self.folder, e))?;
        Ok(paths
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == UNFINISHED))
            .collect())
    }

    fn path(&self, header: &FileHeader) -> PathBuf {
        let extension = match header.kind {
            FileKind::Log => LOG,
            FileKind::Image => IMAGE,
        };
        self.folder
            .join(format!("{:0width$}.{extension}", header.sequence, width = DIGITS))
    }
}

impl Listing {
    pub(super) fn is_empty(&self) -> bool {
        self.images.is_empty() && self.logs.is_empty() && self.unreadable.is_empty()
    }

    /// Only what belongs to this log.
    pub(super) fn of(mut self, log: LogId) -> Self {
        self.images.retain(|known| known.header.log == log);
        self.logs.retain(|known| known.header.log == log);
        self
    }
}

pub(super) fn remove(path: &Path) -> Result<(), LogError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("removing", path, e)),
        _ => Ok(()),
    }
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// ENOSPC and a used-up quota are one thing for whoever runs the store.
pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> LogError {
    let path = path.display().to_string();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => LogError::Full { path, source },
        _ => LogError::Io { what, path, source },
    }
}

fn is_ours(path: &Path) -> bool {
    let digits = path.file_stem().and_then(|stem| stem.to_str());
    let numbered = digits.is_some_and(|d| d.len() == DIGITS && d.bytes().all(|b| b.is_ascii_digit()));
    numbered && path.extension().is_some_and(|e| e == LOG || e == IMAGE)
}
