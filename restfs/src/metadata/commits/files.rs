//! The folder `commits/`: names of logs and images, creating, listing, removing.

use super::LogError;
use super::record::{FILE_HEADER, FileHeader, FileHeaderError, FileKind, LogId};
use restfs_lib::disk::{Storage, StorageFile, is_full};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOG: &str = ".log";
const IMAGE: &str = ".image";
/// Of an image that is not complete yet.
const UNFINISHED: &str = ".unfinished";
/// Of a log that is not complete yet.
const NEW: &str = ".new";
/// Digits of a name, so that files sort as their numbers do.
const DIGITS: usize = 20;

#[derive(Clone)]
pub(super) struct Files {
    storage: Arc<dyn Storage>,
}

/// A file with a good header.
#[derive(Clone)]
pub(super) struct Known {
    name: String,
    /// For texts.
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) header: FileHeader,
    pub(super) length: u64,
}

impl Known {
    /// A file that is in no folder.
    pub(super) fn alone(file: Arc<dyn StorageFile>, header: FileHeader, length: u64) -> Self {
        Self {
            name: String::new(),
            path: PathBuf::new(),
            file,
            header,
            length,
        }
    }
}

/// What is in the folder: images and logs, each by rising numbers.
#[derive(Clone, Default)]
pub(super) struct Listing {
    pub(super) images: Vec<Known>,
    pub(super) logs: Vec<Known>,
    /// Named like ours, and without a header that could be read.
    pub(super) unreadable: Vec<(String, PathBuf, String)>,
}

/// A new file, and where it is.
pub(super) type Created = (PathBuf, Arc<dyn StorageFile>);

impl Files {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    pub(super) fn make_folder(&self) -> Result<(), LogError> {
        self.storage
            .make()
            .map_err(|e| failed("making", &self.path(""), e))
    }

    /// Durable with name and header when it returns, so that only records are to be synced afterwards; takes the place of one of that
    /// name. After an error all is as it was; [`LogError::Failed`]: nobody knows what a restart finds under that name.
    pub(super) fn create(&self, header: &FileHeader) -> Result<Created, LogError> {
        let name = name(header);
        let new = format!("{name}{NEW}");
        let made = self.create_at(&new, header).and_then(|(_, file)| {
            let renamed = self.storage.rename(&new, &name);
            renamed.map_err(|e| failed("naming", &self.path(&new), e))?;
            Ok(file)
        });
        let file = made.inspect_err(|_| drop(self.storage.remove(&new)))?;
        let synced = self.storage.sync_dir();
        synced.map_err(|e| LogError::Failed(format!("syncing {}: {e}", self.path("").display())))?;
        Ok((self.path(&name), file))
    }

    /// An image that counts only once [`Files::finish`] has given it its name.
    pub(super) fn create_unfinished(&self, header: &FileHeader) -> Result<Created, LogError> {
        let created = self.create_at(&unfinished(header), header);
        if created.is_err() {
            self.discard_unfinished(header);
        }
        created
    }

    pub(super) fn finish(&self, header: &FileHeader, file: &dyn StorageFile) -> Result<(), LogError> {
        let unfinished = unfinished(header);
        file.sync_data()
            .and_then(|()| self.storage.rename(&unfinished, &name(header)))
            .and_then(|()| self.storage.sync_dir())
            .map_err(|e| failed("finishing", &self.path(&unfinished), e))
    }

    /// Half an image only takes the space that was missing.
    pub(super) fn discard_unfinished(&self, header: &FileHeader) {
        let _ = self.storage.remove(&unfinished(header));
    }

    fn create_at(&self, name: &str, header: &FileHeader) -> Result<Created, LogError> {
        let path = self.path(name);
        let file = self
            .storage
            .create(name)
            .map_err(|e| failed("creating", &path, e))?;
        let written = file
            .write_all_at(&header.encode(), 0)
            .and_then(|()| file.sync_data());
        written.map_err(|e| failed("creating", &path, e))?;
        Ok((path, file))
    }

    /// No folder is an empty one.
    pub(super) fn list(&self) -> Result<Listing, LogError> {
        let mut listing = Listing::default();
        for name in self.names()?.into_iter().filter(|name| is_ours(name)) {
            match self.know(&name)? {
                Ok(known) if known.header.kind == FileKind::Image => listing.images.push(known),
                Ok(known) => listing.logs.push(known),
                Err(why) => listing.unreadable.push((name.clone(), self.path(&name), why)),
            }
        }
        listing.images.sort_by_key(|known| known.header.sequence);
        listing.logs.sort_by_key(|known| known.header.sequence);
        Ok(listing)
    }

    fn names(&self) -> Result<Vec<String>, LogError> {
        match self.storage.list() {
            Ok(names) => Ok(names),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(failed("listing", &self.path(""), e)),
        }
    }

    fn know(&self, name: &str) -> Result<Result<Known, String>, LogError> {
        let path = self.path(name);
        let file = self
            .storage
            .open_read(name)
            .map_err(|e| failed("opening", &path, e))?;
        let length = file.length().map_err(|e| failed("reading", &path, e))?;
        let mut bytes = [0; FILE_HEADER];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Err("it is too short".to_owned())),
            Err(e) => return Err(failed("reading", &path, e)),
        }
        match FileHeader::decode(&bytes) {
            Ok(header) => Ok(Ok(Known {
                name: name.to_owned(),
                path,
                file,
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

    pub(super) fn open_for_writing(&self, known: &Known) -> Result<Arc<dyn StorageFile>, LogError> {
        self.storage
            .open(&known.name)
            .map_err(|e| failed("opening", &known.path, e))
    }

    /// Removes what `keep` does not want, and files that were never finished.
    pub(super) fn retain(&self, keep: impl Fn(&Known) -> bool) -> Result<(), LogError> {
        let listing = self.list()?;
        let known = listing.images.into_iter().chain(listing.logs);
        let useless = known.filter(|known| !keep(known)).map(|known| known.name);
        let unfinished = self
            .names()?
            .into_iter()
            .filter(|name| name.ends_with(UNFINISHED) || name.ends_with(NEW));
        let unreadable = listing.unreadable.into_iter().map(|(name, ..)| name);
        for name in useless.chain(unfinished).chain(unreadable) {
            match self.storage.remove(&name) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(failed("removing", &self.path(&name), e));
                }
                _ => {}
            }
        }
        self.storage
            .sync_dir()
            .map_err(|e| failed("syncing", &self.path(""), e))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(self.storage.describe(name))
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

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> LogError {
    let path = path.display().to_string();
    match is_full(&source) {
        true => LogError::Full { path, source },
        false => LogError::Io { what, path, source },
    }
}

fn name(header: &FileHeader) -> String {
    let extension = match header.kind {
        FileKind::Log => LOG,
        FileKind::Image => IMAGE,
    };
    format!("{:0width$}{extension}", header.sequence, width = DIGITS)
}

fn unfinished(header: &FileHeader) -> String {
    format!("{:0width$}{UNFINISHED}", header.sequence, width = DIGITS)
}

fn is_ours(name: &str) -> bool {
    let digits = name.strip_suffix(LOG).or_else(|| name.strip_suffix(IMAGE));
    digits.is_some_and(|d| d.len() == DIGITS && d.bytes().all(|b| b.is_ascii_digit()))
}
