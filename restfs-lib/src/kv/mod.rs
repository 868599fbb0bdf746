//! Ordered, transactional key-value store: what a metadata driver has to offer. Everything above it is written
//! once. Drivers pass the conformance suite in `kv::conformance`.

pub mod conformance;
pub mod group;
pub mod memory;
pub mod overlay;
pub mod sqlite;
mod transact;

use std::ops::Bound;

pub use group::{GroupCommit, GroupOptions};
pub use memory::MemoryKv;
pub use overlay::Overlay;
pub use sqlite::{Checked, SqliteKv, SqliteOptions, Synchronous};
pub use transact::transact;

/// Longest key in bytes.
pub const MAX_KEY: usize = 1024;
/// Longest value in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Another transaction changed what this one read. Run it again.
    #[error("the transaction conflicts with another one")]
    Conflict,
    #[error("no space left for metadata: {0}")]
    Full(String),
    #[error("metadata store: {0}")]
    Io(String),
    #[error("metadata store is damaged: {0}")]
    Corrupt(String),
    /// Not one of ours, or of a version this program does not know.
    #[error("{0}")]
    Format(String),
    #[error("key of {0} bytes is longer than {MAX_KEY}")]
    KeyTooLong(usize),
    #[error("value of {0} bytes is longer than {MAX_VALUE}")]
    ValueTooLong(usize),
}

pub type Pair = (Vec<u8>, Vec<u8>);

/// A store. Transactions are serializable; a read transaction sees one moment.
pub trait Kv: Send + Sync {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError>;
    /// May wait for another write transaction to end: a thread that holds one must not ask for a second.
    fn write(&self) -> Result<Box<dyn KvTransaction + '_>, KvError>;
}

pub trait KvRead {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;
    /// Up to `limit` pairs in key order. A range whose end is before its start is empty.
    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError>;
}

/// Reads see the own writes.
pub trait KvWrite: KvRead {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError>;
    /// A key that is not there is no error.
    fn delete(&mut self, key: &[u8]) -> Result<(), KvError>;
}

/// Dropped without commit, nothing has happened.
pub trait KvTransaction: KvWrite {
    /// Durable when it returns. After an error other than `Conflict` and `Full` it may or may not have happened (a
    /// disk that fails in the middle): whoever goes on has to read what is there.
    fn commit(self: Box<Self>) -> Result<(), KvError>;
}

/// What every driver refuses.
pub(crate) fn check_sizes(key: &[u8], value: &[u8]) -> Result<(), KvError> {
    if key.len() > MAX_KEY {
        return Err(KvError::KeyTooLong(key.len()));
    }
    if value.len() > MAX_VALUE {
        return Err(KvError::ValueTooLong(value.len()));
    }
    Ok(())
}
