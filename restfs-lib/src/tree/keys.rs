//! Keys of the store.
