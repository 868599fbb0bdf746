//! A store in memory.

use super::{Kv, KvError, KvRead, KvTransaction};

/// For tests: nothing survives.
#[derive(Debug, Default)]
pub struct MemoryKv {}

impl MemoryKv {
    pub fn new() -> Self {
        Self::default()
    }
}

impl Kv for MemoryKv {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
        todo!()
    }

    fn write(&self) -> Result<Box<dyn KvTransaction + '_>, KvError> {
        todo!()
    }
}
