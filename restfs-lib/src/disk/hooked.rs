//! A real directory whose syncs of files a test does itself, and whose reads it may refuse.

use super::{Directory, Storage, StorageFile};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Gets the file and its name; what it returns is what came of the sync.
pub type OnSync = dyn Fn(&str, &dyn StorageFile) -> io::Result<()> + Send + Sync;

/// Gets the file's name, the place and the length of a read.
pub type OnRead = dyn Fn(&str, u64, usize) -> io::Result<()> + Send + Sync;

pub struct Hooked {
    directory: Directory,
    on_sync: Arc<OnSync>,
    on_read: Arc<OnRead>,
}

struct Open {
    name: String,
    file: Arc<dyn StorageFile>,
    on_sync: Arc<OnSync>,
    on_read: Arc<OnRead>,
}

impl Hooked {
    pub fn new(
        path: &Path,
        on_sync: impl Fn(&str, &dyn StorageFile) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            directory: Directory::at(path),
            on_sync: Arc::new(on_sync),
            on_read: Arc::new(|_, _, _| Ok(())),
        })
    }

    /// Syncs are real ones.
    pub fn with_reads(
        path: &Path,
        on_read: impl Fn(&str, u64, usize) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            directory: Directory::at(path),
            on_sync: Arc::new(|_, file| file.sync_data()),
            on_read: Arc::new(on_read),
        })
    }

    fn hook(&self, name: &str, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(Open {
            name: name.to_owned(),
            file,
            on_sync: Arc::clone(&self.on_sync),
            on_read: Arc::clone(&self.on_read),
        })
    }
}

impl Storage for Hooked {
    fn make(&self) -> io::Result<()> {
        self.directory.make()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.hook(name, self.directory.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.hook(name, self.directory.open(name)?))
    }

    fn open_read(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.hook(name, self.directory.open_read(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_dir()
    }

    fn free(&self) -> io::Result<u64> {
        self.directory.free()
    }

    fn describe(&self, name: &str) -> String {
        self.directory.describe(name)
    }
}

impl StorageFile for Open {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn modified(&self) -> io::Result<SystemTime> {
        self.file.modified()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.on_read)(&self.name, offset, buffer.len())?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.on_sync)(&self.name, &*self.file)
    }
}
