//! Storage driver `fs`: blocks in append-only pack files, found through an index that can be rebuilt from them.
