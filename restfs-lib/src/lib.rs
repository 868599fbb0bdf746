//! RestFS: the model (bucket, object, segment, block), its metadata tree over a transactional key-value store,
//! the messages on the wire, the client. Knows nothing of servers and of Samba.

pub mod client;
pub mod content;
pub mod kv;
pub mod model;
pub mod tree;
pub mod wire;
