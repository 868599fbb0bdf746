//! The start: database and log are brought together.

use super::files::{Files, Known};
use super::image;
use super::record::{FILE_HEADER, FileHeader, FileKind, LogId};
use super::replay::{Reached, replay};
use super::store::{LoggedKv, MARK, Mark, check_whole};
use super::writer::{End, LOG_BYTES, Writer};
use super::{DATABASE, FOLDER, LogError};
use restfs_lib::disk::{Directory, Storage};
use restfs_lib::kv::{Kv, KvError, SqliteKv, SqliteOptions, Synchronous};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens the metadata store of a data directory, or makes it. What a crash kept from the database is taken in from the
/// log; a database that has no log yet, or is ahead of it, gets one.
pub fn open(data_dir: &Path, cache_bytes: usize) -> Result<LoggedKv, LogError> {
    open_at(&Place::of(data_dir), cache_bytes)
}

/// Where a metadata store is.
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    /// The data directory, as far as it is to be synced.
    pub(crate) database: Arc<dyn Storage>,
    pub(crate) log: Arc<dyn Storage>,
    /// A log is left for a new one when it is longer.
    pub(crate) log_bytes: u64,
}

impl Place {
    fn of(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            database: Arc::new(Directory::at(data_dir)),
            log: Arc::new(Directory::at(&data_dir.join(FOLDER))),
            log_bytes: LOG_BYTES,
        }
    }
}

pub(crate) fn open_at(place: &Place, cache_bytes: usize) -> Result<LoggedKv, LogError> {
    bring_together(place, cache_bytes).map_err(advise_rebuild)
}

fn bring_together(place: &Place, cache_bytes: usize) -> Result<LoggedKv, LogError> {
    let data_dir = &place.data_dir;
    let files = Files::new(Arc::clone(&place.log));
    refuse_lost_database(data_dir, &files)?;
    let kv = database(&data_dir.join(DATABASE), cache_bytes)?;
    files.make_folder()?;
    let mark = Mark::read(&*kv.read()?)?;
    refuse_foreign_log(&files, mark)?;
    let end = match mark {
        Some(mark) => go_on(&files, &kv, mark)?,
        None => None,
    };
    let end = match end {
        Some(end) => end,
        None => begin(&files, &kv, mark)?,
    };
    let mut log = Writer::new(files, end, place.log_bytes);
    // What a killed process wrote may be in the page cache only: before anybody hears of it.
    log.writable()?;
    Ok(LoggedKv::new(kv, Arc::clone(&place.database), log))
}

fn advise_rebuild(error: LogError) -> LogError {
    match error {
        LogError::Kv(error @ (KvError::Corrupt(_) | KvError::Format(_))) => LogError::Apart(format!(
            "metadata: {error}; `restfs rebuild --replace` makes it anew from the commit log"
        )),
        other => other,
    }
}

/// A log is begun when there is none that the database could be made anew from.
fn advise_copy(error: LogError) -> LogError {
    match error {
        LogError::Kv(KvError::Corrupt(_)) | LogError::DatabaseDamaged(_) => LogError::Apart(format!(
            "{error}; there is no commit log that goes with it and that it could be made anew from: put back a copy of {DATABASE} or of {FOLDER}/"
        )),
        other => other,
    }
}

/// The log is what is synced: the database may lose its last transactions in a power cut, never their order.
pub(super) fn database(path: &Path, cache_bytes: usize) -> Result<SqliteKv, LogError> {
    Ok(SqliteKv::open(SqliteOptions {
        path: path.to_owned(),
        synchronous: Synchronous::Normal,
        cache_bytes,
    })?)
}

/// A site that lost its database must not go on as an empty one.
fn refuse_lost_database(data_dir: &Path, files: &Files) -> Result<(), LogError> {
    let database = data_dir.join(DATABASE);
    if database.exists() {
        return Ok(());
    }
    let shown = database.display().to_string();
    if !files.list()?.is_empty() {
        return Err(LogError::DatabaseGone(shown));
    }
    let packs = data_dir.join("blocks").join("packs");
    let has_packs = std::fs::read_dir(&packs).is_ok_and(|mut entries| entries.next().is_some());
    if has_packs {
        return Err(LogError::NothingLeft(shown));
    }
    Ok(())
}

/// The log of another database is the only thing that one can be made anew from.
fn refuse_foreign_log(files: &Files, mark: Option<Mark>) -> Result<(), LogError> {
    let listing = files.list()?;
    let own = |known: &&Known| mark.is_some_and(|mark| mark.log == known.header.log);
    if listing
        .images
        .iter()
        .chain(&listing.logs)
        .any(|known| own(&known))
    {
        return Ok(());
    }
    match listing
        .logs
        .iter()
        .find(|known| known.length > FILE_HEADER as u64)
    {
        None => Ok(()),
        Some(known) => Err(LogError::Apart(format!(
            "{DATABASE} and {} are not of the same site: put the right {DATABASE} back, make it anew from the commit log with \
             `restfs rebuild --replace`, or move {FOLDER}/ away to go on with the database as it is",
            known.path.display()
        ))),
    }
}

/// Takes in what the database lacks. `None`: the log does not reach as far as the database, or has no image.
fn go_on(files: &Files, kv: &SqliteKv, mark: Mark) -> Result<Option<End>, LogError> {
    let listing = files.list()?.of(mark.log);
    let first_needed = listing
        .logs
        .iter()
        .rposition(|known| known.header.sequence <= mark.sequence + 1);
    let Some(first_needed) = first_needed else {
        // Without the logs in between, what is newer cannot be taken in.
        return match listing.logs.first() {
            Some(known) => Err(LogError::Apart(format!(
                "{DATABASE} has the commits up to {}, the commit log begins at {}: it is too old a copy; \
                 `restfs rebuild --replace` makes it anew from the log",
                mark.sequence, known.header.sequence
            ))),
            None => Ok(None),
        };
    };
    let logs = &listing.logs[first_needed..];
    let reached = replay(logs, kv, mark).map_err(advise)?;
    if reached.sequence < mark.sequence {
        return Ok(None);
    }
    if reached.taken > 0 {
        tracing::info!(
            "{} commits taken in from the log, which the database had not kept",
            reached.taken
        );
    }
    let has_image = listing
        .images
        .iter()
        .any(|known| known.header.sequence <= reached.sequence);
    match logs.last() {
        Some(newest) if has_image => end_of(files, newest, &reached).map(Some),
        _ => Ok(None),
    }
}

/// Commits that were acknowledged are behind the damage: not for a program to give up.
fn advise(error: LogError) -> LogError {
    match error {
        LogError::Damaged { path, offset, reason } => LogError::Damaged {
            path,
            offset,
            reason: format!(
                "{reason}, before commits that the database does not have yet; repair the disk or put the file back; to go on \
                 without them, move {FOLDER}/ away: sources then send again what they still have"
            ),
        },
        other => other,
    }
}

fn end_of(files: &Files, newest: &Known, reached: &Reached) -> Result<End, LogError> {
    let file = files.open_for_writing(newest)?;
    if newest.length > reached.offset {
        tracing::info!(
            "cutting {} bytes of an unfinished write off {}",
            newest.length - reached.offset,
            newest.path.display()
        );
    }
    Ok(End {
        header: newest.header,
        path: newest.path.clone(),
        file,
        offset: reached.offset,
        sequence: reached.sequence,
        unsure: Some(reached.last),
    })
}

/// A log of its own for this database, from an image of what it has now. A crash on the way leads here again.
fn begin(files: &Files, kv: &SqliteKv, mark: Option<Mark>) -> Result<End, LogError> {
    let mut log = LogId::default();
    getrandom::fill(&mut log).map_err(|e| LogError::Apart(format!("random numbers: {e}")))?;
    let listing = files.list()?;
    let known = listing.images.iter().chain(&listing.logs);
    let sequence = known
        .map(|known| known.header.sequence)
        .chain(mark.map(|mark| mark.sequence))
        .max()
        .map_or(0, |newest| newest + 1);
    let written =
        image::write(files, log, sequence, &*kv.read()?, || check_whole(kv)).map_err(advise_copy)?;
    if written.rows > 0 {
        tracing::warn!(
            "the metadata store had no commit log that goes with it; {} rows written as an image, {} bytes: from now on it can \
             be rebuilt",
            written.rows,
            written.bytes
        );
    }
    let mut txn = kv.write()?;
    txn.put(MARK, &Mark { log, sequence }.encode())?;
    txn.commit()?;
    // The other logs are removed below, so the mark must not get lost.
    kv.checkpoint()?;
    let header = FileHeader {
        kind: FileKind::Log,
        log,
        sequence: sequence + 1,
    };
    let (path, file) = files.create(&header)?;
    files.retain(|known| known.header.log == log)?;
    Ok(End {
        header,
        path,
        file,
        offset: FILE_HEADER as u64,
        sequence,
        unsure: None,
    })
}
