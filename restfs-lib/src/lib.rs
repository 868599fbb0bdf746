//! RestFS: the model (bucket, object, segment, block), its metadata tree over a transactional key-value store,
//! the messages on the wire, the client; and what its daemons share: files that are durable when they say so, the service
//! manager. Knows nothing of Samba.

pub mod checksum;
pub mod client;
pub mod content;
pub mod disk;
pub mod kv;
pub mod manager;
pub mod model;
pub mod tree;
pub mod wire;
