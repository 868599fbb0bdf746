//! The metadata database anew, from an image and the transactions behind it.

use super::files::{Files, Known, Listing, sync_folder};
use super::reader::{Next, Reader};
use super::record::FileKind;
use super::replay::{damaged, replay, take};
use super::start::database;
use super::store::{MARK, Mark};
use super::{DATABASE, FOLDER, LogError};
use restfs_lib::disk::{Directory, Storage};
use restfs_lib::kv::{Kv, KvTransaction, SqliteKv};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of the database that is being made.
const UNFINISHED: &str = "metadata.db.rebuilding";
/// Of the one that was there before.
const REPLACED: &str = "metadata.db.replaced";
/// SQLite's files beside a database.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Of the image.
    pub rows: u64,
    /// Commits behind the image.
    pub commits: u64,
    /// Bytes of a commit that was cut off at the log's end: nobody was told that it is done.
    pub cut_bytes: u64,
    /// Where the database that was there is now.
    pub replaced: Option<PathBuf>,
}

/// Makes the database from the commit log alone. With `replace` a database that is there is put aside. Killed in the
/// middle, nothing has happened.
pub fn rebuild(data_dir: &Path, cache_bytes: usize, replace: bool) -> Result<Rebuilt, LogError> {
    let storage = Arc::new(Directory::at(&data_dir.join(FOLDER)));
    rebuild_on(data_dir, storage, cache_bytes, replace)
}

/// The same with the log on any storage.
pub(crate) fn rebuild_on(
    data_dir: &Path,
    storage: Arc<dyn Storage>,
    cache_bytes: usize,
    replace: bool,
) -> Result<Rebuilt, LogError> {
    let database_path = data_dir.join(DATABASE);
    if database_path.exists() && !replace {
        return Err(LogError::Apart(format!(
            "{} is there; say --replace to put it aside and make it anew",
            database_path.display()
        )));
    }
    let files = Files::new(storage);
    let listing = files.list()?;
    let Some(image) = newest_image(&listing) else {
        return Err(nothing(&listing, &database_path));
    };
    let unfinished = data_dir.join(UNFINISHED);
    remove_database(&unfinished)?;
    let rebuilt = fill(
        &unfinished,
        cache_bytes,
        image,
        listing.clone().of(image.header.log),
    )?;
    let replaced = match database_path.exists() {
        true => Some(put_aside(data_dir)?),
        false => None,
    };
    // A write-ahead log of the database that is gone must not be taken for one of this.
    for suffix in BESIDE {
        remove(&with(&database_path, suffix))?;
    }
    let renamed = std::fs::rename(&unfinished, &database_path).and_then(|()| sync_folder(data_dir));
    renamed.map_err(|e| super::files::failed("naming", &database_path, e))?;
    Ok(Rebuilt { replaced, ..rebuilt })
}

/// The highest number wins: a log that was begun anew goes on counting.
fn newest_image(listing: &Listing) -> Option<&Known> {
    listing.images.last()
}

fn nothing(listing: &Listing, database: &Path) -> LogError {
    match listing.unreadable.first() {
        Some((_, path, why)) => LogError::Damaged {
            path: path.display().to_string(),
            offset: 0,
            reason: format!("{why}, and there is no other image to begin with"),
        },
        None => LogError::NothingLeft(database.display().to_string()),
    }
}

fn fill(path: &Path, cache_bytes: usize, image: &Known, listing: Listing) -> Result<Rebuilt, LogError> {
    let kv = database(path, cache_bytes)?;
    let rows = load(image, &kv)?;
    let mark = Mark {
        log: image.header.log,
        sequence: image.header.sequence,
    };
    let first = listing
        .logs
        .iter()
        .rposition(|known| known.header.sequence <= mark.sequence + 1);
    let logs = match (first, listing.logs.first()) {
        (Some(first), _) => &listing.logs[first..],
        // The image was written and the log behind it not yet begun.
        (None, None) => &[],
        (None, Some(known)) => return Err(damaged(known, 0, "the log before it is gone")),
    };
    let reached = replay(logs, &kv, mark)?;
    kv.checkpoint()?;
    drop(kv);
    let file = std::fs::File::open(path).and_then(|file| file.sync_all());
    file.map_err(|e| super::files::failed("syncing", path, e))?;
    Ok(Rebuilt {
        rows,
        commits: reached.taken,
        cut_bytes: logs
            .last()
            .map_or(0, |known| known.length.saturating_sub(reached.offset)),
        replaced: None,
    })
}

/// Takes in an image, part by part. Without its last part it is none.
fn load(image: &Known, kv: &SqliteKv) -> Result<u64, LogError> {
    debug_assert_eq!(image.header.kind, FileKind::Image);
    let mut reader = Reader::new(image);
    let mut rows = 0;
    loop {
        match reader.next(image.header.sequence)? {
            Next::Part(part) => {
                let mut txn: Box<dyn KvTransaction + '_> = kv.write()?;
                rows += take(&part.rows, txn.as_mut(), image, part.end)?;
                if part.last {
                    let mark = Mark {
                        log: image.header.log,
                        sequence: image.header.sequence,
                    };
                    txn.put(MARK, &mark.encode())?;
                }
                txn.commit()?;
                if part.last {
                    return Ok(rows);
                }
            }
            Next::End => return Err(damaged(image, image.length, "the image is cut off")),
            Next::Broken { offset, reason, .. } => return Err(damaged(image, offset, &reason)),
        }
    }
}

fn put_aside(data_dir: &Path) -> Result<PathBuf, LogError> {
    let (from, to) = (data_dir.join(DATABASE), data_dir.join(REPLACED));
    remove_database(&to)?;
    for suffix in BESIDE {
        let (from, to) = (with(&from, suffix), with(&to, suffix));
        if from.exists() {
            std::fs::rename(&from, &to).map_err(|e| super::files::failed("putting aside", &from, e))?;
        }
    }
    std::fs::rename(&from, &to).map_err(|e| super::files::failed("putting aside", &from, e))?;
    Ok(to)
}

fn remove_database(path: &Path) -> Result<(), LogError> {
    remove(path)?;
    BESIDE.iter().try_for_each(|suffix| remove(&with(path, suffix)))
}

fn remove(path: &Path) -> Result<(), LogError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(super::files::failed("removing", path, e)),
        _ => Ok(()),
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
