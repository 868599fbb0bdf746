//! What the programs of this crate take on their command lines: here, so that manual pages can be made of it.

pub mod vfsxctl;
pub mod vfsxd;
