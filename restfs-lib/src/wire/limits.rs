//! Bounds of what travels. Both ends check them when they decode.

/// Longest WebSocket message in bytes, either direction. Four of the largest blocks fit, and a server with hundreds of
/// connections keeps its memory.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// What a sender of many items aims at, so that the envelope around them stays below [`MAX_MESSAGE`].
pub const TARGET_MESSAGE: usize = MAX_MESSAGE - 256 * 1024;
/// Operations of one `replication.commit` and edits of one `bucket.apply`: the server holds its write lock for one
/// such transaction.
pub const MAX_OPS: usize = 10_000;
/// Keys in `block.missing` and `block.get`, blocks in `block.put` and `block.patch`.
pub const MAX_BLOCKS: usize = 4_096;
/// Pieces of one patch. A sender of ours joins near ones long before.
pub const MAX_PIECES: usize = 1_024;
/// Plain bytes of the blocks that one `block.patch` makes: as much to store as the longest message with whole blocks,
/// however short this one is.
pub const MAX_PATCHED: usize = MAX_MESSAGE;
/// Plain bytes of the blocks of one `block.put`, however short the message is: without it 4,096 blocks that say 4 MiB each, a hundred
/// bytes long, would keep a thread unpacking 16 GiB.
pub const MAX_PUT: usize = 4 * MAX_MESSAGE;
/// Plain bytes of the bases that the server reads for one `block.patch`; a base is read whole, whatever the length of what is
/// made of it. More than twice as long as the blocks they are only for files that were cut, and those may travel whole.
pub const MAX_BASES: usize = 2 * MAX_PATCHED;
/// Plain bytes that the server reads for one `block.check` before it answers, and one block more: a slow disk is done with
/// that within a call's time limit.
pub const MAX_CHECKED: u64 = 32 * 1024 * 1024;
/// Groups of one `tree.recount`: all rows of so many are read.
pub const MAX_RECOUNTED: usize = 16;
/// Rows of one answer that lists something.
pub const MAX_PAGE: usize = 10_000;
/// Largest block, plain: `Layout::block_size` is at most this.
pub const MAX_BLOCK: usize = 4 * 1024 * 1024;
pub const MIN_BLOCK: usize = 4 * 1024;
/// Blocks of one segment.
pub const MAX_SEGMENT_BLOCKS: u32 = 1024;
/// A name in a directory, bytes (Linux `NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// A path or a symlink's target, bytes (Linux `PATH_MAX` without its NUL).
pub const MAX_PATH: usize = 4095;
/// Name of an attribute, bytes (Linux `XATTR_NAME_MAX`).
pub const MAX_ATTRIBUTE_NAME: usize = 255;
/// Value of an attribute, bytes (Linux `XATTR_SIZE_MAX`).
pub const MAX_ATTRIBUTE_VALUE: usize = 64 * 1024;
/// Names and values of all attributes of one object, bytes, that a client takes: more than Linux can list (64 KiB of names, 64 KiB
/// for each value). A site without end would fill the client's memory.
pub const MAX_ATTRIBUTES: usize = 1024 * 1024 * 1024;
/// Names of buckets, sources and tokens, bytes.
pub const MAX_LABEL: usize = 63;
/// Text of a point (`-2h`, a time, a number), bytes.
pub const MAX_POINT_TEXT: usize = 64;
/// Name of a method, bytes.
pub const MAX_METHOD: usize = 64;
/// Requests one connection may have under way; the server reads on when one is answered.
pub const MAX_IN_FLIGHT: usize = 256;
/// Integers on the wire: BSON has no unsigned 64 bits.
pub const MAX_INTEGER: u64 = i64::MAX as u64;
