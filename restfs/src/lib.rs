//! RestFS server: block store, metadata, RPC interface, restore.

pub mod restore;
pub mod storage;
