//! All metadata of an inode that are replicated, as vfsxd would read them.

use crate::os;
use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use vfsx_proto::{MAX_XATTRS, Metadata, NodeRef};

/// Permission bits.
const PERMISSIONS: u32 = 0o7777;
/// Views that a file system makes up, which vfsxd leaves out: they cannot be set elsewhere, or change without a call that tells of
/// an attribute.
const MADE_UP: [&[u8]; 4] = [b"system.nfs4", b"system.cifs_", b"system.smb3_", b"btrfs."];

/// Reads them through a descriptor, which may be a path reference. `None`: it is not on this inode any more, there is more than
/// [`MAX_XATTRS`] of attributes, or they change right now. Needs root, or some attributes are hidden.
pub(crate) fn metadata(fd: RawFd, node: &NodeRef) -> Option<Metadata> {
    // Attributes first: who changes them at the same time has a later change time, and tells of it.
    let xattrs = xattrs(fd, MAX_XATTRS).ok()?;
    let (found, stat) = os::full_statx(fd).ok()?;
    if found.node != *node {
        return None;
    }
    let time = |time: libc::statx_timestamp| (time.tv_sec, time.tv_nsec);
    Some(Metadata {
        mode: u32::from(stat.stx_mode) & PERMISSIONS,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime: time(stat.stx_mtime),
        atime: time(stat.stx_atime),
        xattrs,
    })
}

/// By way of `/proc`, which leads through path references, too. `most`: bytes of names and values.
fn xattrs(fd: RawFd, most: usize) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    ROOM.with_borrow_mut(|room| {
        // The kernel's list has a NUL behind each name.
        room.resize(room.len().max(3 * most), 0);
        let (names, values) = room.split_at_mut(2 * most);
        read_xattrs(fd, names, values.get_mut(..most).unwrap_or_default())
    })
}

thread_local! {
    /// Where they are read to: to clear new memory for each would take longer than to read them.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// As many as have room in `values`, with their names.
fn read_xattrs(fd: RawFd, names: &mut [u8], values: &mut [u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = CString::new(format!("/proc/self/fd/{fd}"))?;
    // SAFETY: the path ends with NUL, and the buffer is writable for its length.
    let length = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let length = match usize::try_from(length) {
        Ok(length) => length,
        Err(_) if is_error(libc::EOPNOTSUPP) => 0,
        Err(_) => return Err(io::Error::last_os_error()),
    };
    let names = names.get(..length).unwrap_or_default();
    let mut left = values.len();
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if MADE_UP.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        left = left.checked_sub(name.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let value = values.get_mut(..left).unwrap_or_default();
        let key = CString::new(name)?;
        // SAFETY: path and name end with NUL, and the buffer is writable for its length.
        let length = unsafe {
            libc::getxattr(
                path.as_ptr(),
                key.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        let length = match usize::try_from(length) {
            Ok(length) => length,
            Err(_) if is_error(libc::EOPNOTSUPP) => continue,
            Err(_) => return Err(io::Error::last_os_error()),
        };
        // A buffer of no bytes is a question for the length.
        left = left.checked_sub(length).ok_or(io::ErrorKind::FileTooLarge)?;
        found.push((name.to_vec(), value.get(..length).unwrap_or_default().to_vec()));
    }
    Ok(found)
}

fn is_error(errno: i32) -> bool {
    os::errno() == errno
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::path::Path;

    fn set_xattr(path: &Path, name: &str, value: &[u8]) {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("path");
        let name = CString::new(name).expect("name");
        // SAFETY: both end with NUL, and the value is readable for its length.
        let result = unsafe {
            libc::setxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    fn node(file: &File) -> NodeRef {
        os::identify(file.as_raw_fd()).expect("identity").node
    }

    #[test]
    fn all_that_is_replicated_is_read_also_through_a_path_reference() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let path = dir.path().join("f");
        fs::write(&path, "content").expect("file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2640)).expect("mode");
        let _ = chown(&path, Some(12), Some(34));
        set_xattr(&path, "user.DOSATTRIB", b"\0bits");
        set_xattr(&path, "user.empty", b"");
        let file = File::open(&path).expect("open");
        let stat = file.metadata().expect("stat");
        let place = CString::new(path.as_os_str().as_encoded_bytes()).expect("path");
        let reference = os::open_reference(libc::AT_FDCWD, &place).expect("reference");
        for fd in [file.as_raw_fd(), reference.as_raw_fd()] {
            let mut read = metadata(fd, &node(&file)).expect("metadata");
            read.xattrs.sort();
            assert_eq!(
                (read.mode, read.uid, read.gid),
                (stat.mode() & 0o7777, stat.uid(), stat.gid())
            );
            assert_eq!(read.mtime, (stat.mtime(), stat.mtime_nsec() as u32));
            assert_eq!(read.atime, (stat.atime(), stat.atime_nsec() as u32));
            let user: Vec<_> = read
                .xattrs
                .iter()
                .filter(|(name, _)| name.starts_with(b"user."))
                .collect();
            let expected = [
                (b"user.DOSATTRIB".to_vec(), b"\0bits".to_vec()),
                (b"user.empty".to_vec(), Vec::new()),
            ];
            assert_eq!(user, expected.iter().collect::<Vec<_>>());
        }
    }

    /// The number of a closed descriptor may be another file's by now.
    #[test]
    fn a_descriptor_that_is_another_files_by_now_says_nothing_of_the_first() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let (one, other) = (
            File::create(one).expect("file"),
            File::create(other).expect("file"),
        );
        assert!(metadata(one.as_raw_fd(), &node(&one)).is_some());
        assert_eq!(metadata(other.as_raw_fd(), &node(&one)), None);
        assert_eq!(metadata(-1, &node(&one)), None);
    }

    #[test]
    fn attributes_larger_than_an_event_may_be_are_not_told_and_those_that_just_fit_are() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let path = dir.path().join("f");
        let file = File::create(&path).expect("file");
        set_xattr(&path, "user.1", b"");
        set_xattr(&path, "user.2", &[7; 50]);
        let fd = file.as_raw_fd();
        let all: usize = xattrs(fd, MAX_XATTRS)
            .expect("few")
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(all >= 62);
        assert_eq!(
            xattrs(fd, all).expect("they fit").len(),
            xattrs(fd, MAX_XATTRS).expect("few").len()
        );
        for most in [all - 1, all - 50, 6, 1] {
            assert!(xattrs(fd, most).is_err(), "{most}");
        }
    }
}
