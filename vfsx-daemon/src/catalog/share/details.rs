//! What is read of an inode beside its stat: extended attributes, and a symbolic link's target.

use super::proc_path;
use rustix::fd::BorrowedFd;
use rustix::fs::{getxattr, listxattr, readlinkat};
use rustix::io::Errno;
use std::io;

/// Name and value.
pub(in crate::catalog) type Attribute = (Vec<u8>, Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::catalog) struct Details {
    /// Sorted by name. POSIX ACLs are among them, as `system.posix_acl_*`.
    pub(in crate::catalog) attributes: Vec<Attribute>,
    /// Of a symbolic link; else empty.
    pub(in crate::catalog) target: Vec<u8>,
}

/// Longest list of names the kernel gives, and longest value.
const LARGEST: usize = 64 * 1024;
const LONGEST_NAME: usize = 255;
/// Tries when attributes change while they are read.
const RACES: usize = 8;
/// Views that a file system makes up (an NFS mount's ACLs, a CIFS mount's descriptors, the inode flag for compression of btrfs): they cannot
/// be set elsewhere, or change without a call that tells of an attribute.
const MADE_UP: [&[u8]; 4] = [b"system.nfs4", b"system.cifs_", b"system.smb3_", b"btrfs."];

/// Whether an attribute is one that is kept, with a name and value that it can have.
pub(in crate::catalog) fn is_attribute(name: &[u8], value: &[u8]) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && !name.contains(&0)
        && value.len() <= LARGEST
        && !is_made_up(name)
}

fn is_made_up(name: &[u8]) -> bool {
    MADE_UP.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads them of the inode that the handle is on. `link`: it is a symbolic link.
pub(in crate::catalog) fn details(pin: BorrowedFd<'_>, link: bool) -> io::Result<Details> {
    let target = if link {
        readlinkat(pin, c"", Vec::new())?.into_bytes()
    } else {
        Vec::new()
    };
    for _ in 0..RACES {
        if let Some(attributes) = attributes(pin)? {
            return Ok(Details { attributes, target });
        }
    }
    Err(io::Error::other(
        "extended attributes change faster than they can be read",
    ))
}

/// `None`: one vanished while they were read.
fn attributes(pin: BorrowedFd<'_>) -> io::Result<Option<Vec<Attribute>>> {
    let path = proc_path(pin);
    let mut buffer = vec![0; LARGEST];
    let length = match listxattr(path.as_str(), &mut buffer[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(e) => return Err(e.into()),
    };
    let names = buffer.get(..length).unwrap_or_default().to_vec();
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if is_made_up(name) {
            continue;
        }
        match getxattr(path.as_str(), name, &mut buffer[..]) {
            Ok(length) => found.push((name.to_vec(), buffer.get(..length).unwrap_or_default().to_vec())),
            Err(Errno::NODATA) => return Ok(None),
            Err(Errno::NOTSUP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    found.sort();
    Ok(Some(found))
}
