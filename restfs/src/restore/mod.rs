//! Materializes a tree of objects beneath a directory: content, holes, links, owner, mode, times, attributes.
//!
//! One thread walks and creates names, several write content. What can go wrong with one object is a [`Problem`] in
//! the summary, and the rest is restored; what makes going on useless is a [`RestoreError`].

mod content;
mod folder;
mod frame;
mod metadata;
mod report;
mod source;
#[cfg(test)]
mod tests;
mod walk;

pub use report::{Problem, Summary};
pub use source::{Attribute, ContentSource, Entry, MAX_FETCH, Page, SourceError};

use content::FileJob;
use folder::Folder;
use report::Report;
use restfs_lib::disk::is_full;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use walk::Walk;

#[derive(Debug, Clone)]
pub struct Options {
    /// What to restore, as a path from the bucket's root; empty or `/`: everything. A directory's content and
    /// properties become the destination's; anything else is put into the destination under its own name.
    pub path: Vec<u8>,
    /// Counts and checks only; the destination is not touched.
    pub dry_run: bool,
    /// Restore into a directory that has something in it: what is in the way of a restored name is replaced (a
    /// directory only by a directory), the rest stays.
    pub into_existing: bool,
    /// Threads that write content.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: Vec::new(),
            dry_run: false,
            into_existing: false,
            workers: 4,
        }
    }
}

/// Told while a restore runs, by several threads.
pub trait Progress: Sync {
    /// More objects, and bytes of files' sizes, are done.
    fn advanced(&self, objects: u64, bytes: u64);
}

/// Nobody looks.
impl Progress for () {
    fn advanced(&self, _objects: u64, _bytes: u64) {}
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{0} is not empty: choose a new directory, or allow it with --into-existing")]
    NotEmpty(String),
    #[error("{dest} cannot be restored into: {reason}")]
    Destination { dest: String, reason: String },
    #[error("no space left at the destination: {0}; what was restored so far is incomplete")]
    Full(io::Error),
    #[error("restoring {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("reading from RestFS: {0}")]
    Source(#[from] SourceError),
}

/// Restores the tree of `source` into `dest`, which is created, or must be an empty directory. Everything that was
/// written is on the disk when it returns.
pub fn restore(
    source: &dyn ContentSource,
    dest: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary, RestoreError> {
    let top = source.resolve(&options.path)?;
    let object = source.object(top)?;
    let root = match options.dry_run {
        true => None,
        false => Some(Folder::root(dest, options.into_existing)?),
    };
    let report = Report::new(progress);
    let job = Job {
        source,
        report: &report,
        replace: options.into_existing,
    };
    let workers = options.workers.max(1);
    // Files that were created and wait for their content: each is an open file.
    let (files, waiting) = sync_channel(2 * workers);
    let waiting = Mutex::new(waiting);
    let walked = std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(job, &waiting));
        }
        walk(job, root.as_ref(), files, &options.path, top, object)
    });
    match walked {
        Err(Trouble::Stop(error)) => report.stop(error),
        Err(Trouble::Problem(text)) => report.problem(&options.path, text),
        Ok(()) => {}
    }
    let summary = report.finish()?;
    if let Some(root) = root {
        root.sync().map_err(|source| RestoreError::Io {
            path: dest.display().to_string(),
            source,
        })?;
    }
    Ok(summary)
}

fn walk(
    job: Job<'_>,
    root: Option<&Folder>,
    files: SyncSender<FileJob>,
    path: &[u8],
    top: restfs_lib::model::ObjectId,
    object: restfs_lib::model::Object,
) -> Done<()> {
    Walk::new(job, root, files, path, top, object)?.run()
}

/// Until no file can come any more. After a stop they are taken and dropped, so that nobody waits.
fn work(job: Job<'_>, waiting: &Mutex<Receiver<FileJob>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(file) = next else { return };
        if !job.report.is_stopped() {
            content::restore_file(job, &file);
        }
    }
}

/// What all parts of one restore share.
#[derive(Clone, Copy)]
struct Job<'a> {
    source: &'a dyn ContentSource,
    report: &'a Report<'a>,
    replace: bool,
}

/// Why something was not restored.
enum Trouble {
    /// This object only.
    Problem(String),
    /// Going on makes no sense.
    Stop(RestoreError),
}

type Done<T> = Result<T, Trouble>;

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Failed(_) => Self::Stop(error.into()),
            SourceError::Missing(_) | SourceError::Damaged(_) => Self::Problem(error.to_string()),
        }
    }
}

impl Trouble {
    /// Of a failed system call on `path`.
    fn from_io(path: &[u8], doing: &str, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match error.kind() {
            _ if is_full(&error) => Self::Stop(RestoreError::Full(error)),
            io::ErrorKind::ReadOnlyFilesystem => Self::Stop(io_error(path, error)),
            _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Self::Stop(io_error(path, error))
            }
            _ => Self::Problem(format!("{doing}: {error}")),
        }
    }
}

fn io_error(path: &[u8], source: io::Error) -> RestoreError {
    RestoreError::Io {
        path: report::shown(path),
        source,
    }
}
