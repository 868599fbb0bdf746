//! Why vfsxd does not go on by itself: a disk here is full, or fails.

use std::io::{Error, ErrorKind};

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

/// Of a disk, or of what a quota allows of it.
fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_full_disk_and_a_used_up_quota_are_full_and_a_broken_disk_is_not() {
        assert!(is_full(&Errno::NOSPC.into()) && is_full(&Errno::DQUOT.into()));
        assert!(!is_full(&Errno::IO.into()) && !is_full(&Errno::ROFS.into()));
    }
}
