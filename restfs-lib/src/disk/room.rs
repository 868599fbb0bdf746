//! Whether a write failed for want of space.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Bytes tried: whoever cannot write these is out of space for any purpose here.
const TRIED: usize = 256 * 1024;

/// ENOSPC and a used-up quota are one thing for whoever runs a server.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The error of a directory's disk that has no room, found by writing to it. For failures that do not say it: SQLite calls a
/// used-up quota an I/O error.
pub fn want_of_room(directory: &Path) -> Option<io::Error> {
    let write = || {
        let mut file = tempfile::tempfile_in(directory)?;
        let mut bytes = vec![0; TRIED];
        // Some file systems compress.
        getrandom::fill(&mut bytes)?;
        file.write_all(&bytes)?;
        // Some file systems (NFS) look for room only now.
        file.sync_data()
    };
    write().err().filter(is_full)
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

    #[test]
    fn a_disk_with_room_wants_none_and_nothing_is_left_on_it() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(want_of_room(directory.path()).is_none());
        assert_eq!(std::fs::read_dir(directory.path()).expect("list").count(), 0);
        let none = directory.path().join("none");
        assert!(
            want_of_room(&none).is_none(),
            "not to be there is another failure"
        );
    }
}
