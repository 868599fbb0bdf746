//! Where each block is: an SQLite file derived from the packs. Losing it costs a rebuild, never a block.

use crate::storage::StoreError;
use restfs_lib::kv::sqlite::{open_alone, want_of_room_behind};
use restfs_lib::model::BlockKey;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Connections for lookups, so that readers seldom wait for one another.
const READERS: usize = 4;
/// SQLite's page cache of one connection, KiB.
const CACHE_KIB: i64 = 8 * 1024;
/// A lookup never waits for a writer in WAL mode; this bounds the wait for another process that has the file open.
const BUSY: Duration = Duration::from_secs(10);
/// `PRAGMA user_version` of the tables below. Another one: the index is made anew.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS block(
        key BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
        plain INTEGER NOT NULL, stored INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS pack(number INTEGER PRIMARY KEY, indexed_to INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS total(one INTEGER PRIMARY KEY CHECK(one = 1),
        blocks INTEGER NOT NULL, plain INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS lost(
        key BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS leaving(number INTEGER PRIMARY KEY);
    INSERT OR IGNORE INTO total VALUES(1, 0, 0);";

/// Where a block's newest record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) pack: u64,
    /// Of the record's header.
    pub(super) offset: u64,
    pub(super) plain: u32,
    pub(super) stored: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) blocks: u64,
    pub(super) plain_bytes: u64,
}

pub(super) struct Index {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
}

impl Index {
    /// Opens or creates. One that is damaged or of another version is put aside and an empty one made; the caller
    /// fills it from the packs as for a new one.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        match Self::open_existing(path) {
            Err(StoreError::Index { source, .. }) if is_unusable(&source) => {
                tracing::warn!(
                    "block index {}: {source}; making it anew from the packs",
                    path.display()
                );
                put_aside(path)?;
                Self::open_existing(path)
            }
            result => result,
        }
    }

    fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let fail = |source| failed(path, source);
        let writer = connect(path).map_err(fail)?;
        prepare(&writer).map_err(fail)?;
        let readers = (0..READERS)
            .map(|_| connect(path).map(Mutex::new))
            .collect::<Result<_, _>>()
            .map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers,
            next_reader: AtomicUsize::new(0),
        })
    }

    pub(super) fn find(&self, key: BlockKey) -> Result<Option<Location>, StoreError> {
        let connection = self.reader();
        self.checked(find(&connection, key))
    }

    /// For each key in order, whether it is there.
    pub(super) fn contains(&self, keys: &[BlockKey]) -> Result<Vec<bool>, StoreError> {
        let connection = self.reader();
        self.checked(
            keys.iter()
                .map(|key| Ok(find(&connection, *key)?.is_some()))
                .collect(),
        )
    }

    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        let connection = self.reader();
        self.checked(
            connection.query_row("SELECT blocks, plain FROM total", [], |row| {
                Ok(Totals {
                    blocks: unsigned(row.get(0)?),
                    plain_bytes: unsigned(row.get(1)?),
                })
            }),
        )
    }

    /// Pack numbers with the offset up to which each one's records are in the index.
    pub(super) fn marks(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        let connection = self.reader();
        let read = || {
            connection
                .prepare("SELECT number, indexed_to FROM pack ORDER BY number")?
                .query_map([], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))?
                .collect()
        };
        self.checked(read())
    }

    /// Blocks whose records are no good and that were not written anew.
    pub(super) fn lost(&self, limit: usize) -> Result<Vec<BlockKey>, StoreError> {
        let connection = self.reader();
        let read = || {
            connection
                .prepare("SELECT key FROM lost LIMIT ?1")?
                .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                    row.get(0).map(BlockKey)
                })?
                .collect()
        };
        self.checked(read())
    }

    /// All blocks in the order of their keys, after `after`.
    pub(super) fn page(
        &self,
        after: Option<BlockKey>,
        limit: usize,
    ) -> Result<Vec<(BlockKey, Location)>, StoreError> {
        let connection = self.reader();
        let after = after.map_or(Vec::new(), |key| key.0.to_vec());
        let sql = "SELECT key, pack, offset, plain, stored FROM block WHERE key > ?1 ORDER BY key LIMIT ?2";
        let read = || {
            connection
                .prepare_cached(sql)?
                .query_map(params![after, i64::try_from(limit).unwrap_or(i64::MAX)], entry)?
                .collect()
        };
        self.checked(read())
    }

    /// Packs whose files are to be removed, or were: no block is in them.
    pub(super) fn leaving(&self) -> Result<Vec<u64>, StoreError> {
        let connection = self.reader();
        let read = || {
            connection
                .prepare("SELECT number FROM leaving ORDER BY number")?
                .query_map([], |row| row.get(0).map(unsigned))?
                .collect()
        };
        self.checked(read())
    }

    /// Keeps in mind that the pack's file goes. On disk when it returns, with everything before: an index that has lost the
    /// last transactions would still have blocks there.
    pub(super) fn pack_leaves(&self, pack: u64) -> Result<(), StoreError> {
        self.durably(|| {
            let kept =
                lock(&self.writer).execute("INSERT OR REPLACE INTO leaving VALUES(?1)", [signed(pack)]);
            self.checked(kept).map(|_| ())
        })
    }

    /// Its file is gone. On disk when it returns: who finds it leaving removes what has its name.
    pub(super) fn pack_left(&self, pack: u64) -> Result<(), StoreError> {
        self.durably(|| self.update(|update| update.pack_left(pack)))
    }

    /// What is committed in `work` is on disk behind it, with everything before.
    fn durably(&self, work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let set = |level| self.checked(lock(&self.writer).pragma_update(None, "synchronous", level));
        set("FULL")?;
        let done = work();
        set("NORMAL")?;
        done
    }

    /// Keeps in mind across restarts that the record at `at` is no good. `None`: it has none.
    pub(super) fn mark_lost(&self, key: BlockKey, at: Option<Location>) -> Result<(), StoreError> {
        let connection = lock(&self.writer);
        let (pack, offset) = at.map_or((0, 0), |at| (at.pack, at.offset));
        let marked = connection.execute(
            "INSERT OR REPLACE INTO lost VALUES(?1, ?2, ?3)",
            params![&key.0[..], signed(pack), signed(offset)],
        );
        self.checked(marked).map(|_| ())
    }

    /// The record was read and is good after all.
    pub(super) fn unmark_lost(&self, key: BlockKey) -> Result<(), StoreError> {
        let connection = lock(&self.writer);
        let gone = connection.execute("DELETE FROM lost WHERE key = ?1", [&key.0[..]]);
        self.checked(gone).map(|_| ())
    }

    /// Blocks whose records begin in this part of a pack. Looks through the whole index.
    pub(super) fn in_part(
        &self,
        pack: u64,
        part: Range<u64>,
    ) -> Result<Vec<(BlockKey, Location)>, StoreError> {
        let connection = self.reader();
        let sql = "SELECT key, pack, offset, plain, stored FROM block WHERE pack = ?1 AND offset >= ?2 AND offset < ?3 \
                   ORDER BY offset";
        let bounds = [pack, part.start, part.end.min(i64::MAX as u64)].map(signed);
        let read = || connection.prepare(sql)?.query_map(bounds, entry)?.collect();
        self.checked(read())
    }

    /// One transaction: all of `change` or nothing.
    pub(super) fn update(
        &self,
        change: impl FnOnce(&mut Update<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut connection = lock(&self.writer);
        // One that reads first and writes then is refused at once when it meets a lock, and a reader has the writers' for a moment when it
        // finds the head of the WAL half written. One that begins as a writer waits.
        let transaction =
            self.checked(connection.transaction_with_behavior(TransactionBehavior::Immediate))?;
        let mut update = Update {
            index: self,
            transaction: &transaction,
            added: Totals::default(),
            removed: Totals::default(),
        };
        change(&mut update)?;
        let Update { added, removed, .. } = update;
        self.checked(
            transaction.execute(
                "UPDATE total SET blocks = blocks + ?1 - ?2, plain = plain + ?3 - ?4",
                [
                    added.blocks,
                    removed.blocks,
                    added.plain_bytes,
                    removed.plain_bytes,
                ]
                .map(signed),
            ),
        )?;
        self.checked(transaction.commit())
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        let start = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let free = (0..READERS).find_map(|i| self.readers[(start + i) % READERS].try_lock().ok());
        free.unwrap_or_else(|| lock(&self.readers[start % READERS]))
    }

    fn checked<T>(&self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| failed(&self.path, source))
    }
}

fn failed(path: &Path, source: rusqlite::Error) -> StoreError {
    let place = path.display().to_string();
    let full = match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Some(std::io::ErrorKind::StorageFull.into()),
        _ => want_of_room_behind(&source, path),
    };
    match full {
        Some(source) => StoreError::Full { place, source },
        None => StoreError::Index { place, source },
    }
}

/// Writes of one transaction.
pub(super) struct Update<'a> {
    index: &'a Index,
    transaction: &'a Connection,
    added: Totals,
    removed: Totals,
}

impl Update<'_> {
    /// A later record of a key takes the place of an earlier one, in whatever order they are read.
    pub(super) fn put(&mut self, key: BlockKey, at: Location) -> Result<(), StoreError> {
        let run = || {
            let known = find(self.transaction, key)?;
            if known.is_some_and(|known| (known.pack, known.offset) > (at.pack, at.offset)) {
                return Ok(true);
            }
            let known = known.is_some();
            self.transaction
                .prepare_cached("INSERT OR REPLACE INTO block VALUES(?1, ?2, ?3, ?4, ?5)")?
                .execute(params![
                    &key.0[..],
                    signed(at.pack),
                    signed(at.offset),
                    at.plain,
                    at.stored
                ])?;
            // The record that was found no good may be read in again, when the index is made anew.
            self.transaction
                .prepare_cached("DELETE FROM lost WHERE key = ?1 AND NOT (pack = ?2 AND offset = ?3)")?
                .execute(params![&key.0[..], signed(at.pack), signed(at.offset)])?;
            Ok(known)
        };
        if !self.index.checked(run())? {
            self.added.blocks += 1;
            self.added.plain_bytes += u64::from(at.plain);
        }
        Ok(())
    }

    /// Forgets the block, if this is its record.
    pub(super) fn remove(&mut self, key: BlockKey, at: Location) -> Result<(), StoreError> {
        let run = || {
            let gone = self
                .transaction
                .prepare_cached("DELETE FROM block WHERE key = ?1 AND pack = ?2 AND offset = ?3")?
                .execute(params![&key.0[..], signed(at.pack), signed(at.offset)])?;
            self.transaction
                .prepare_cached("DELETE FROM lost WHERE key = ?1 AND pack = ?2 AND offset = ?3")?
                .execute(params![&key.0[..], signed(at.pack), signed(at.offset)])?;
            Ok(gone)
        };
        if self.index.checked(run())? > 0 {
            self.removed.blocks += 1;
            self.removed.plain_bytes += u64::from(at.plain);
        }
        Ok(())
    }

    /// The pack's file is gone, and nothing was in it.
    pub(super) fn pack_left(&mut self, pack: u64) -> Result<(), StoreError> {
        let run = || {
            for table in ["pack", "leaving"] {
                let sql = format!("DELETE FROM {table} WHERE number = ?1");
                self.transaction.execute(&sql, [signed(pack)])?;
            }
            Ok(())
        };
        self.index.checked(run())
    }

    pub(super) fn mark(&mut self, pack: u64, indexed_to: u64) -> Result<(), StoreError> {
        let run = || {
            self.transaction
                .prepare_cached("INSERT OR REPLACE INTO pack VALUES(?1, ?2)")?
                .execute([signed(pack), signed(indexed_to)])
        };
        self.index.checked(run()).map(|_| ())
    }

    /// Forgets what a pack that lost its end, or is gone, does not have any more: records ending beyond `length`.
    pub(super) fn cut(&mut self, pack: u64, length: u64) -> Result<usize, StoreError> {
        let run = || {
            self.transaction.execute(
                "INSERT OR REPLACE INTO lost SELECT key, pack, offset FROM block
                 WHERE pack = ?1 AND offset + ?2 + stored > ?3",
                params![signed(pack), super::record::RECORD_HEADER as i64, signed(length)],
            )?;
            let gone = self.transaction.execute(
                "DELETE FROM block WHERE pack = ?1 AND offset + ?2 + stored > ?3",
                params![signed(pack), super::record::RECORD_HEADER as i64, signed(length)],
            )?;
            self.transaction.execute(
                "UPDATE total SET (blocks, plain) = (SELECT COUNT(*), COALESCE(SUM(plain), 0) FROM block)",
                [],
            )?;
            match length {
                0 => self
                    .transaction
                    .execute("DELETE FROM pack WHERE number = ?1", [signed(pack)])?,
                _ => self.transaction.execute(
                    "UPDATE pack SET indexed_to = ?2 WHERE number = ?1",
                    [signed(pack), signed(length)],
                )?,
            };
            Ok(gone)
        };
        // The new count has what this transaction put and removed before.
        (self.added, self.removed) = Default::default();
        self.index.checked(run())
    }

    pub(super) fn clear(&mut self) -> Result<(), StoreError> {
        // A pack that was to leave and is still there is read in again, so it stays.
        let sql = "DELETE FROM block; DELETE FROM pack; DELETE FROM leaving;
            UPDATE total SET blocks = 0, plain = 0;";
        (self.added, self.removed) = Default::default();
        self.index.checked(self.transaction.execute_batch(sql))
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_alone(path, OpenFlags::default())?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power cut may take the last transactions, never their order: the marks go back with the rows.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != VERSION {
        connection.execute_batch(
            "DROP TABLE IF EXISTS block; DROP TABLE IF EXISTS pack; DROP TABLE IF EXISTS total;
             DROP TABLE IF EXISTS leaving;",
        )?;
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    connection.execute_batch(TABLES)
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<(BlockKey, Location)> {
    let at = Location {
        pack: unsigned(row.get(1)?),
        offset: unsigned(row.get(2)?),
        plain: row.get(3)?,
        stored: row.get(4)?,
    };
    Ok((BlockKey(row.get(0)?), at))
}

fn find(connection: &Connection, key: BlockKey) -> rusqlite::Result<Option<Location>> {
    connection
        .prepare_cached("SELECT pack, offset, plain, stored FROM block WHERE key = ?1")?
        .query_row([&key.0[..]], |row| {
            Ok(Location {
                pack: unsigned(row.get(0)?),
                offset: unsigned(row.get(1)?),
                plain: row.get(2)?,
                stored: row.get(3)?,
            })
        })
        .optional()
}

fn is_unusable(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

/// Keeps the damaged file for a look at it, and removes what belongs to it.
fn put_aside(path: &Path) -> Result<(), StoreError> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let io = |source| StoreError::Io {
        what: format!("putting aside {}", path.display()),
        source,
    };
    std::fs::rename(path, with(".damaged")).map_err(io)?;
    for suffix in ["-wal", "-shm"] {
        match std::fs::remove_file(with(suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    Ok(())
}

/// SQLite's integers are signed; the bits go back and forth unchanged.
fn signed(value: u64) -> i64 {
    value.cast_signed()
}

fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
