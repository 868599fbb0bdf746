//! Why vfsxd does not go on by itself: a disk here is full, or fails.

use restfs_lib::disk::is_full;
use std::io::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// For want of space: no fault, and it is over when there is some.
    pub full: bool,
    /// One line, with the path.
    pub why: String,
}

impl Trouble {
    /// `why` tells of this error.
    pub fn of(error: &Error, why: String) -> Self {
        Self {
            full: is_full(error),
            why,
        }
    }
}
