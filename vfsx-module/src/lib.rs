//! Samba VFS module that notes every change clients make, and tells vfsxd.
//!
//! Layers, each knowing only those before it: [`os`] and [`memory`] (system calls), [`client`] (the socket to vfsxd, and what is not yet
//! acknowledged), [`hooks`] (an operation and its result become events), [`handler`] (whether an operation may go on), then
//! `sys` (bindings) and `ffi` (the callbacks smbd calls). All but the last two are built and tested without Samba.

pub mod client;
pub mod config;
pub mod handler;
pub mod hooks;
mod inode;
pub mod memory;
pub mod os;

// Unit tests are programs of their own, which have no Samba to link with.
#[cfg(not(test))]
mod ffi;
#[cfg(not(test))]
mod sys;
