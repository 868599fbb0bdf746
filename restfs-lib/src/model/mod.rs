//! What RestFS is made of. These types are never serialized: the store (`tree::codec`) and the wire (`wire`)
//! have encodings of their own.

mod hash;
mod object;
mod op;

pub use hash::{Digest, Hash, HashAlgorithm};
pub use object::{BlockKey, BlockRef, Compression, Kind, Layout, Object, ObjectId, Segment, Time};
pub use op::{Op, RowKey};
