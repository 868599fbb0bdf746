//! A bucket's tree over a [`crate::kv`] store, as of now or of any earlier point. Server and catalog share it.
