//! Materializes a tree of objects beneath a directory: content, holes, links, owner, mode, times, attributes.

mod source;

pub use source::{ContentSource, Entry, MAX_FETCH, Page, SourceError};
