//! Ordered, transactional key-value store: what a metadata driver has to offer. Everything above it is written
//! once. Drivers pass the conformance suite in `kv::conformance`.

use std::ops::Bound;

/// Longest key in bytes.
pub const MAX_KEY: usize = 1024;
/// Longest value in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
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
    #[error("key of {0} bytes is longer than {MAX_KEY}")]
    KeyTooLong(usize),
    #[error("value of {0} bytes is longer than {MAX_VALUE}")]
    ValueTooLong(usize),
}

pub type Pair = (Vec<u8>, Vec<u8>);

/// A store. Transactions are serializable; a read transaction sees one moment.
pub trait Kv: Send + Sync {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError>;
    fn write(&self) -> Result<Box<dyn KvWrite + '_>, KvError>;
}

pub trait KvRead {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;
    /// Up to `limit` pairs in key order.
    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError>;
}

/// Dropped without commit, nothing has happened. Reads see the transaction's own writes.
pub trait KvWrite: KvRead {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError>;
    fn delete(&mut self, key: &[u8]) -> Result<(), KvError>;
    /// Durable when it returns.
    fn commit(self: Box<Self>) -> Result<(), KvError>;
}
