//! SQLite as a key-value store.

use super::{Kv, KvError, KvRead, KvTransaction};
use std::path::PathBuf;

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

pub struct SqliteKv {}

impl SqliteKv {
    pub fn open(options: SqliteOptions) -> Result<Self, KvError> {
        let _ = options;
        todo!()
    }

    /// Moves the write-ahead log into the database as far as readers allow.
    pub fn checkpoint(&self) -> Result<(), KvError> {
        todo!()
    }
}

impl Kv for SqliteKv {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
        todo!()
    }

    fn write(&self) -> Result<Box<dyn KvTransaction + '_>, KvError> {
        todo!()
    }
}
