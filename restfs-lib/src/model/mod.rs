//! What RestFS is made of. These types are never serialized: the store (`tree::codec`) and the wire (`wire`)
//! have encodings of their own.

mod hash;
mod name;
mod object;
mod op;
mod time;

pub use hash::{Digest, Hash, HashAlgorithm, ParseError};
pub use name::{MAX_NAME, valid_name};
pub use object::{
    BlockKey, BlockRef, BucketId, Compression, Kind, Layout, LayoutError, MAX_BLOCK_SIZE, MAX_SEGMENT_BLOCKS,
    MIN_BLOCK_SIZE, Object, ObjectId, Segment,
};
pub use op::{Op, RowKey};
pub use time::Time;
