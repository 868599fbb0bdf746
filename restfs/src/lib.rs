//! RestFS server: block store, metadata, RPC interface, restore.

pub mod auth;
pub mod cli;
pub mod config;
pub mod data_dir;
#[doc(hidden)]
pub mod fuzzing;
pub mod interface;
pub mod metadata;
#[cfg(test)]
mod power_loss;
pub mod remote;
pub mod restore;
pub mod server;
pub mod service;
mod spare;
pub mod storage;

/// Threads for what blocks (disk, database); further calls wait for one. A thread that reads the database has a connection of its own
/// to it meanwhile, so there are no more of these either.
pub const BLOCKING_THREADS: usize = 128;
