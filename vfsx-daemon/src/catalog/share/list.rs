//! Names in a directory.

use rustix::fd::BorrowedFd;
use rustix::fs::RawDir;
use std::io;
use std::mem::MaybeUninit;

/// Bytes asked of the kernel at once: some hundred names.
const BUFFER: usize = 32 * 1024;

/// Gives every name but `.` and `..` to `each`, in the directory's own order, without keeping them.
pub(in crate::catalog) fn list<E: From<io::Error>>(
    dir: BorrowedFd<'_>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut names = RawDir::new(dir, &mut buffer);
    while let Some(entry) = names.next() {
        let entry = entry.map_err(io::Error::from)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            each(name)?;
        }
    }
    Ok(())
}
