//! Pending writes over what is there.

use super::KvRead;

/// Reads see the pending writes merged with the base.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self { base }
    }

    pub fn base(&self) -> &'a dyn KvRead {
        self.base
    }
}
