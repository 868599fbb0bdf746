//! vfsxd: takes in what the VFS modules saw on the shares, keeps it in a journal, brings it into each share's catalog
//! and hands it to the replicator.

pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
#[cfg(test)]
mod draw;
pub mod engine;
#[doc(hidden)]
pub mod fuzzing;
pub mod intake;
pub mod journal;
pub mod metrics;
mod pace;
pub mod status;
mod trouble;

pub use trouble::Trouble;
