//! The metadata store of a server: SQLite behind the commit log.

use super::LogError;
use super::files::failed;
use super::image::{self, ImageWritten};
use super::record::{FileKind, LogId};
use super::rows::Encoder;
use super::writer::Writer;
use restfs_lib::disk::Storage;
use restfs_lib::kv::{Checked, Kv, KvError, KvRead, KvTransaction, KvWrite, Pair, SqliteKv};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The row of the database that says up to where it has the log: byte 1 (version), the log's id, the number of the last
/// transaction (8 bytes). It is the one row that is not in the log.
pub(super) const MARK: &[u8] = b"L";
const MARK_VERSION: u8 = 1;
/// SQLite's write-ahead log. Unlike the database itself it can be opened and closed without taking SQLite's locks away.
const WRITE_AHEAD: &str = "metadata.db-wal";

/// Up to where a database has a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) log: LogId,
    pub(super) sequence: u64,
}

impl Mark {
    pub(super) fn encode(self) -> Vec<u8> {
        [&[MARK_VERSION][..], &self.log, &self.sequence.to_be_bytes()].concat()
    }

    pub(super) fn read(kv: &dyn KvRead) -> Result<Option<Self>, KvError> {
        let Some(value) = kv.get(MARK)? else {
            return Ok(None);
        };
        let damaged = || KvError::Corrupt("the row that says where the commit log is".to_owned());
        let (version, rest) = value.split_first().ok_or_else(damaged)?;
        let (log, sequence) = rest.split_first_chunk().ok_or_else(damaged)?;
        match (version, <[u8; 8]>::try_from(sequence)) {
            (&MARK_VERSION, Ok(sequence)) => Ok(Some(Self {
                log: *log,
                sequence: u64::from_be_bytes(sequence),
            })),
            _ => Err(damaged()),
        }
    }
}

/// How far a metadata store is: of two with the same log the one with the higher number is newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// In hexadecimal.
    log: String,
    sequence: u64,
}

impl Reached {
    /// This one has all that the other has.
    pub fn follows(&self, other: &Self) -> bool {
        self.log == other.log && self.sequence >= other.sequence
    }
}

pub struct LoggedKv {
    inner: SqliteKv,
    /// Directory of its file.
    database: Arc<dyn Storage>,
    /// Locked after the write transaction of `inner` has begun, never before.
    log: Mutex<Writer>,
}

impl LoggedKv {
    pub(super) fn new(inner: SqliteKv, database: Arc<dyn Storage>, log: Writer) -> Self {
        Self {
            inner,
            database,
            log: Mutex::new(log),
        }
    }

    /// Whether what is read is what a restart finds: after some failures the log has a transaction that the database has not.
    pub fn is_whole(&self) -> Result<(), LogError> {
        self.log().writable()
    }

    /// Reads the whole database: whether it is what was written. `None`: `go_on` said that it is to end.
    pub fn check(&self, go_on: impl FnMut() -> bool + Send + 'static) -> Result<Option<Checked>, KvError> {
        self.inner.check(go_on)
    }

    /// Up to where the database has which log.
    pub fn reached(&self) -> Result<Reached, KvError> {
        let mark = Mark::read(&*self.inner.read()?)?;
        let none = Mark {
            log: [0; 16],
            sequence: 0,
        };
        let Mark { log, sequence } = mark.unwrap_or(none);
        Ok(Reached {
            log: hex::encode(log),
            sequence,
        })
    }

    /// Writes all rows as of now as an image, then removes what of the log is older. Others read and write meanwhile. With a
    /// damaged database nothing happens.
    pub fn write_image(&self) -> Result<ImageWritten, LogError> {
        self.log().writable()?;
        let snapshot = self.inner.read()?;
        let mark = Mark::read(&*snapshot)?
            .ok_or_else(|| LogError::Apart("the metadata store has no commit log".to_owned()))?;
        let files = self.log().files().clone();
        let whole = || check_whole(&self.inner);
        let written = image::write(&files, mark.log, mark.sequence, &*snapshot, whole)?;
        // So that the logs before end at the image or before it.
        self.log().next_log()?;
        // A database that a power cut puts back must not need what is removed below.
        self.sync_database()?;
        let first_needed = files
            .list()?
            .logs
            .iter()
            .map(|known| known.header.sequence)
            .filter(|first| *first <= mark.sequence + 1)
            .max()
            .unwrap_or(0);
        files.retain(|known| match known.header.kind {
            FileKind::Image => known.header.sequence == mark.sequence,
            FileKind::Log => known.header.sequence >= first_needed,
        })?;
        Ok(written)
    }

    /// Bytes of the newest image, and of all logs.
    pub fn log_bytes(&self) -> Result<(u64, u64), LogError> {
        let listing = self.log().files().list()?;
        let image = listing.images.last().map_or(0, |known| known.length);
        Ok((image, listing.logs.iter().map(|known| known.length).sum()))
    }

    /// What is committed by now is durable in the database, too. What was before SQLite's last checkpoint was synced by that.
    fn sync_database(&self) -> Result<(), LogError> {
        let synced = match self.database.open_read(WRITE_AHEAD) {
            Ok(file) => file.sync_data().and_then(|()| self.database.sync_dir()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        let path = || PathBuf::from(self.database.describe(WRITE_AHEAD));
        synced.map_err(|e| failed("syncing", &path(), e))
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Writer> {
        // A panic while it was held left a failed or a whole state: each change is made last.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn check_whole(kv: &SqliteKv) -> Result<(), LogError> {
    let checked = kv.check(|| true)?;
    match checked.map(|checked| checked.damages) {
        Some(damages) if damages.is_empty() => Ok(()),
        damages => Err(LogError::DatabaseDamaged(damages.unwrap_or_default())),
    }
}

impl Kv for LoggedKv {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
        self.inner.read()
    }

    fn write(&self) -> Result<Box<dyn KvTransaction + '_>, KvError> {
        self.log().writable()?;
        Ok(Box::new(LoggedWrite {
            inner: self.inner.write()?,
            writes: Encoder::default(),
            store: self,
        }))
    }
}

struct LoggedWrite<'a> {
    inner: Box<dyn KvTransaction + 'a>,
    writes: Encoder,
    store: &'a LoggedKv,
}

impl KvRead for LoggedWrite<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.inner.get(key)
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        self.inner.scan(from, to, limit)
    }
}

impl KvWrite for LoggedWrite<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        let mut writes = std::mem::take(&mut self.writes);
        // A row that the store refuses is in no log: the transaction is of no use then.
        let noted = match key.len() <= restfs_lib::kv::MAX_KEY && value.len() <= restfs_lib::kv::MAX_VALUE {
            true => writes.put(&*self.inner, key, value),
            false => Ok(()),
        };
        self.writes = writes;
        noted.and_then(|()| self.inner.put(key, value))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), KvError> {
        self.inner.delete(key)?;
        self.writes.delete(key);
        Ok(())
    }
}

impl KvTransaction for LoggedWrite<'_> {
    fn commit(self: Box<Self>) -> Result<(), KvError> {
        let Self {
            mut inner,
            writes,
            store,
        } = *self;
        if writes.is_empty() {
            return inner.commit();
        }
        let mut log = store.log();
        let mark = Mark {
            log: log.log(),
            sequence: log.next(),
        };
        inner.put(MARK, &mark.encode())?;
        let written = log.append(writes.finish())?;
        match inner.commit() {
            Ok(()) => log.keep(&written),
            Err(error @ (KvError::Full(_) | KvError::Conflict)) => {
                log.take_back();
                return Err(error);
            }
            Err(error) => {
                // It may have happened or not; the log has it, so after a restart it has.
                log.fail(format!("a transaction broke off: {error}"));
                return Err(error);
            }
        }
        Ok(())
    }
}
