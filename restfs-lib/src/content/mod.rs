//! Content of objects: how it is cut into blocks, hashed and compressed.

mod compress;
mod hash;
mod layout;

pub use compress::{ContentError, compress, decompress};
pub use hash::{hash_block, verify};
