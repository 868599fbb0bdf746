//! SQLite as a key-value store: one table of blobs, one writer, readers on snapshots of the write-ahead log.
//!
//! SQLite has no checksums of its own for what is in the file, so each row has one, over key and value: what a disk gives back
//! wrong is an error wherever it is read, and never taken for what was written.

mod check;

use super::{Kv, KvError, KvRead, KvTransaction, KvWrite, Pair, check_sizes};
use crate::checksum::crc32c;
use crate::disk::want_of_room;
pub use check::Checked;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, ToSql};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// "RfsM" in the file's header: this file is a RestFS metadata store.
const APPLICATION_ID: i32 = 0x5266_734d;
/// Of the table below. What is in keys and values has versions of its own.
const FORMAT: i32 = 2;
/// Bytes of the checksum, behind the value.
const CHECKSUM: usize = 4;
/// For another process that has the file open (`sqlite3`): our own writers queue at the mutex.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections kept for the next readers. More are opened when more read at once.
const IDLE_READERS: usize = 8;
/// Bytes of the write-ahead log's file that stay allocated after a checkpoint.
const WAL_KEPT: usize = 64 * 1024 * 1024;
/// More than there are different statements here.
const STATEMENTS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// A commit is on disk when it returns.
    Full,
    /// A commit survives the process, and a power loss only after the next checkpoint: for what can be made anew.
    Normal,
}

#[derive(Debug, Clone)]
pub struct SqliteOptions {
    pub path: PathBuf,
    pub synchronous: Synchronous,
    /// Pages that the writer's connection keeps in memory, in bytes; each reader's keeps a quarter of it.
    pub cache_bytes: usize,
}

pub struct SqliteKv {
    options: SqliteOptions,
    writer: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteKv {
    /// Opens the file, and makes it when it is not there. Its directory has to be.
    pub fn open(options: SqliteOptions) -> Result<Self, KvError> {
        let writer = connect(&options, OpenFlags::SQLITE_OPEN_CREATE, options.cache_bytes)?;
        prepare_file(&writer, &options)?;
        Ok(Self {
            options,
            writer: Mutex::new(writer),
            idle: Mutex::default(),
        })
    }

    /// Moves the write-ahead log into the database as far as readers allow.
    pub fn checkpoint(&self) -> Result<(), KvError> {
        let writer = lock(&self.writer);
        writer
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| self.failed(error))
    }

    /// Why a change is not made.
    fn failed(&self, error: rusqlite::Error) -> KvError {
        failed(&self.options.path, error)
    }

    fn reader(&self) -> Result<Connection, KvError> {
        if let Some(idle) = lock(&self.idle).pop() {
            return Ok(idle);
        }
        connect(&self.options, OpenFlags::empty(), self.options.cache_bytes / 4)
    }
}

impl Kv for SqliteKv {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
        let read = SqliteRead {
            connection: Some(self.reader()?),
            store: self,
        };
        let run = |sql| run(read.connection(), sql).map_err(|error| self.failed(error));
        run("BEGIN DEFERRED")?;
        // Only the first read takes the snapshot.
        run("SELECT 1 FROM kv LIMIT 1")?;
        Ok(Box::new(read))
    }

    fn write(&self) -> Result<Box<dyn KvTransaction + '_>, KvError> {
        let connection = lock(&self.writer);
        run(&connection, "BEGIN IMMEDIATE").map_err(|error| self.failed(error))?;
        Ok(Box::new(SqliteWrite {
            store: self,
            connection,
        }))
    }
}

struct SqliteRead<'a> {
    store: &'a SqliteKv,
    /// Given back on drop.
    connection: Option<Connection>,
}

impl SqliteRead<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("taken only by drop")
    }
}

impl Drop for SqliteRead<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let mut idle = lock(&self.store.idle);
        if idle.len() < IDLE_READERS && run(&connection, "ROLLBACK").is_ok() {
            idle.push(connection);
        }
    }
}

impl KvRead for SqliteRead<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        get(self.connection(), key)
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        scan(self.connection(), from, to, limit)
    }
}

struct SqliteWrite<'a> {
    store: &'a SqliteKv,
    connection: MutexGuard<'a, Connection>,
}

impl Drop for SqliteWrite<'_> {
    fn drop(&mut self) {
        // After a full disk SQLite may have rolled back by itself.
        if !self.connection.is_autocommit()
            && let Err(error) = run(&self.connection, "ROLLBACK")
        {
            tracing::error!(%error, "metadata transaction could not be rolled back");
        }
    }
}

impl KvRead for SqliteWrite<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        get(&self.connection, key)
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        scan(&self.connection, from, to, limit)
    }
}

impl KvWrite for SqliteWrite<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        check_sizes(key, value)?;
        let sql = "INSERT INTO kv(k, v) VALUES(?1, ?2) ON CONFLICT(k) DO UPDATE SET v = excluded.v";
        let stored = [value, &checksum(key, value)].concat();
        execute(&self.connection, sql, &[&key, &stored]).map_err(|error| self.store.failed(error))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), KvError> {
        check_sizes(key, &[])?;
        execute(&self.connection, "DELETE FROM kv WHERE k = ?1", &[&key])
            .map_err(|error| self.store.failed(error))
    }
}

impl KvTransaction for SqliteWrite<'_> {
    fn commit(self: Box<Self>) -> Result<(), KvError> {
        run(&self.connection, "COMMIT").map_err(|error| self.store.failed(error))
    }
}

/// Opens a database for connections of this process alone: while one of them is open, others find it locked.
///
/// SQLite's index of the write-ahead log, which connections share, is in this process's heap then. Otherwise it is a file beside the
/// database that is mapped into memory, and a page of that which has been written to the disk takes new space when it is changed on a file
/// system that copies on write (btrfs): when there is none, or a quota is used up, that is no error but SIGBUS, the process's end.
pub fn open_alone(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags_and_vfs(path, flags, c"unix-excl")
}

fn connect(options: &SqliteOptions, create: OpenFlags, cache_bytes: usize) -> Result<Connection, KvError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let at_path = |error| at_path(&options.path, failed(&options.path, error));
    let connection = open_alone(&options.path, flags).map_err(at_path)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(at_path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise every scan is planned anew for its bounds, which takes longer than the scan.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(at_path)?;
    let synchronous = match options.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    let kibibytes = cache_bytes / 1024;
    let pragmas = format!("PRAGMA synchronous = {synchronous}; PRAGMA cache_size = -{kibibytes};");
    connection.execute_batch(&pragmas).map_err(at_path)?;
    Ok(connection)
}

/// Makes a new file's table; turns away files that are not ours.
fn prepare_file(connection: &Connection, options: &SqliteOptions) -> Result<(), KvError> {
    let path = &options.path;
    let number = |pragma: &str| {
        let value = connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
        value.map_err(|error| at_path(path, failed(path, error)))
    };
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION_ID, FORMAT) => {}
        (APPLICATION_ID, other) => {
            let text = format!(
                "{}: metadata store of format {other}, this program knows {FORMAT}: use the program that wrote it",
                path.display()
            );
            return Err(KvError::Format(text));
        }
        (0, 0) if number("schema_version")? == 0 => {
            make_file(connection).map_err(|error| at_path(path, failed(path, error)))?
        }
        _ => {
            return Err(KvError::Format(format!(
                "{}: is not a RestFS metadata store",
                path.display()
            )));
        }
    }
    // WAL is a property of the file, but a file restored from a backup may have lost it.
    let set = format!("PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = {WAL_KEPT};");
    connection
        .execute_batch(&set)
        .map_err(|error| at_path(path, failed(path, error)))
}

/// The id and the table come in one transaction: a half-made file is an empty one.
fn make_file(connection: &Connection) -> rusqlite::Result<()> {
    let sql = format!(
        "PRAGMA journal_mode = WAL;
         BEGIN IMMEDIATE;
         CREATE TABLE kv(k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {FORMAT};
         COMMIT;"
    );
    connection.execute_batch(&sql)
}

fn get(connection: &Connection, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
    let mut statement = connection
        .prepare_cached("SELECT v FROM kv WHERE k = ?1")
        .map_err(kv_error)?;
    let stored = statement
        .query_row([key], |row| row.get(0))
        .optional()
        .map_err(kv_error)?;
    stored.map(|stored| value_of(key, stored)).transpose()
}

fn scan(
    connection: &Connection,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, KvError> {
    // Bounds that are not used still have to name a parameter, so that their numbers stay.
    let lower = match from {
        Bound::Included(_) => "k >= ?1",
        Bound::Excluded(_) => "k > ?1",
        Bound::Unbounded => "?1 IS NULL",
    };
    let upper = match to {
        Bound::Included(_) => "k <= ?2",
        Bound::Excluded(_) => "k < ?2",
        Bound::Unbounded => "?2 IS NULL",
    };
    let sql = format!("SELECT k, v FROM kv WHERE {lower} AND {upper} ORDER BY k LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql).map_err(kv_error)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement
        .query(rusqlite::params![key_of(from), key_of(to), limit])
        .map_err(kv_error)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(kv_error)? {
        let key: Vec<u8> = row.get(0).map_err(kv_error)?;
        let value = value_of(&key, row.get(1).map_err(kv_error)?)?;
        found.push((key, value));
    }
    Ok(found)
}

/// With the key's length, so that no byte can pass from the key to the value.
fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM] {
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    crc32c(&[&length.to_be_bytes(), key, value]).to_be_bytes()
}

/// The value of a row as it was put, when the row is what was written.
fn opened<'a>(key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (value, crc) = stored.split_last_chunk()?;
    (*crc == checksum(key, value)).then_some(value)
}

fn value_of(key: &[u8], mut stored: Vec<u8>) -> Result<Vec<u8>, KvError> {
    match opened(key, &stored).map(<[u8]>::len) {
        Some(length) => {
            stored.truncate(length);
            Ok(stored)
        }
        None => Err(KvError::Corrupt(not_as_written(key))),
    }
}

fn not_as_written(key: &[u8]) -> String {
    const SHOWN: usize = 64;
    let shown = hex::encode(key.get(..SHOWN).unwrap_or(key));
    let more = if key.len() > SHOWN { "..." } else { "" };
    format!("the row with key {shown}{more} is not what was written")
}

fn key_of(bound: Bound<&[u8]>) -> Option<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

fn execute(connection: &Connection, sql: &str, parameters: &[&dyn ToSql]) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(parameters).map(|_| ())
}

/// A statement without parameters, whose rows do not matter.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in the middle of a transaction rolls it back (drop): the connection is good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of a database's file, when SQLite calls it an I/O error that a write found no room: it does so with a used-up quota. Such a
/// write is not in the file, and neither is the transaction that it belongs to.
pub fn want_of_room_behind(error: &rusqlite::Error, database: &Path) -> Option<std::io::Error> {
    let failure = error.sqlite_error()?;
    let wrote = failure.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE;
    database.parent().filter(|_| wrote).and_then(want_of_room)
}

fn failed(path: &Path, error: rusqlite::Error) -> KvError {
    match want_of_room_behind(&error, path) {
        Some(found) => KvError::Full(format!("{error} ({found})")),
        None => kv_error(error),
    }
}

fn kv_error(error: rusqlite::Error) -> KvError {
    use rusqlite::ffi::ErrorCode;
    let text = error.to_string();
    let failure = match error {
        rusqlite::Error::SqliteFailure(failure, _) => failure,
        // Nothing but blobs is put.
        rusqlite::Error::InvalidColumnType(..) => return KvError::Corrupt(text),
        _ => return KvError::Io(text),
    };
    match failure.code {
        ErrorCode::DiskFull => KvError::Full(text),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => KvError::Conflict,
        ErrorCode::DatabaseCorrupt => KvError::Corrupt(text),
        ErrorCode::NotADatabase => KvError::Format("is not a RestFS metadata store".into()),
        _ => KvError::Io(text),
    }
}

/// Of opening.
fn at_path(path: &Path, error: KvError) -> KvError {
    let path = path.display();
    match error {
        KvError::Conflict => KvError::Io(format!(
            "{path}: another program has this database open (fuser tells which): end it"
        )),
        KvError::Full(text) => KvError::Full(format!("{path}: {text}")),
        KvError::Io(text) => KvError::Io(format!("{path}: {text}")),
        KvError::Corrupt(text) => KvError::Corrupt(format!("{path}: {text}")),
        KvError::Format(text) => KvError::Format(format!("{path}: {text}")),
        other => other,
    }
}

#[cfg(test)]
mod tests;
