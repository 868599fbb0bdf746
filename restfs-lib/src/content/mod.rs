//! Content of objects: how it is cut into blocks, hashed and compressed.

mod compress;
mod difference;
mod hash;
mod layout;

pub use compress::{ContentError, compress, decompress};
pub use difference::{Difference, MAX_RANGES, cut, differing, other_pages, page_sums, patch};
pub use hash::{hash_block, verify};
