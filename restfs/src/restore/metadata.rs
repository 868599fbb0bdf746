//! Owner, mode, times and extended attributes.

use super::{Attribute, Done, Job, Trouble};
use restfs_lib::model::{Kind, Object, ObjectId, Time};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Linux gives no longer list of names (`XATTR_LIST_MAX`).
const XATTR_LIST_MAX: usize = 64 * 1024;
/// Attributes of RestFS itself, which no file system knows; and what btrfs says of how it stores a file, which is no other one's
/// and nothing that a restored file lacks.
const NOT_RESTORED: [&[u8]; 2] = [b"restfs.", b"btrfs."];

/// How to reach an object's properties.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// Open as a file or directory.
    Open(BorrowedFd<'a>),
    /// Open as a place (`O_PATH`) only.
    Place(BorrowedFd<'a>),
}

/// Gives what was created the properties of `object`. Each that is refused becomes a problem of its own.
pub(super) fn apply(
    job: Job<'_>,
    path: &[u8],
    target: Target<'_>,
    id: ObjectId,
    object: &Object,
) -> Done<()> {
    let attributes = match job.source.attributes(id).map_err(Trouble::from) {
        Err(Trouble::Problem(reason)) => {
            job.report.problem(path, format!("attributes: {reason}"));
            None
        }
        attributes => Some(attributes?),
    };
    let report = |doing: &str, result: Result<(), Errno>| match result {
        Ok(()) => Ok(()),
        Err(error) => match Trouble::from_io(path, doing, error) {
            Trouble::Problem(text) => {
                job.report.problem(path, text);
                Ok(())
            }
            stop => Err(stop),
        },
    };
    // The owner first: a change of it clears setuid bits and capabilities. Attributes before the mode, because an
    // ACL carries mode bits of its own. Times last.
    report(
        &format!("owner {}:{}", object.uid, object.gid),
        set_owner(target, object),
    )?;
    if let Some(attributes) = attributes {
        for name in inherited(target, &attributes) {
            report(
                &format!("removing attribute {}", name.escape_ascii()),
                remove_xattr(target, &name),
            )?;
        }
        for (name, value) in attributes
            .iter()
            .filter(|(name, _)| !NOT_RESTORED.iter().any(|prefix| name.starts_with(prefix)))
        {
            report(
                &format!("attribute {}", name.escape_ascii()),
                set_xattr(target, name, value),
            )?;
        }
    }
    if !matches!(object.kind, Kind::Symlink { .. }) {
        report(&format!("mode {:o}", object.mode), set_mode(target, object.mode))?;
    }
    report("times", set_times(target, object))
}

fn set_owner(target: Target<'_>, object: &Object) -> Result<(), Errno> {
    // All ones would mean "as it is".
    if object.uid == u32::MAX || object.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    let (uid, gid) = (Uid::from_raw(object.uid), Gid::from_raw(object.gid));
    rustix::fs::chownat(target.fd(), c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

fn set_mode(target: Target<'_>, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match target {
        Target::Open(fd) => rustix::fs::fchmod(fd, mode),
        Target::Place(_) => rustix::fs::chmod(target.proc_path(), mode),
    }
}

fn set_times(target: Target<'_>, object: &Object) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: timespec(object.atime)?,
        last_modification: timespec(object.mtime)?,
    };
    rustix::fs::utimensat(target.fd(), c"", &times, AtFlags::EMPTY_PATH)
}

/// Nanoseconds of a second or more have other meanings to the kernel.
fn timespec(time: Time) -> Result<Timespec, Errno> {
    let whole = Time::new(time.seconds, time.nanoseconds).ok_or(Errno::INVAL)?;
    Ok(Timespec {
        tv_sec: whole.seconds,
        tv_nsec: whole.nanoseconds.into(),
    })
}

fn set_xattr(target: Target<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    match target {
        Target::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
        Target::Place(_) => rustix::fs::setxattr(target.proc_path(), name, value, XattrFlags::empty()),
    }
}

fn remove_xattr(target: Target<'_>, name: &[u8]) -> Result<(), Errno> {
    match target {
        Target::Open(fd) => rustix::fs::fremovexattr(fd, name),
        Target::Place(_) => rustix::fs::removexattr(target.proc_path(), name),
    }
}

/// Attributes that the object has already and should not: from a default ACL above, or of an existing directory.
/// Those that the kernel's security modules put there are left alone.
fn inherited(target: Target<'_>, wanted: &[Attribute]) -> Vec<Vec<u8>> {
    let mut list = vec![0; XATTR_LIST_MAX];
    let length = match target {
        Target::Open(fd) => rustix::fs::flistxattr(fd, list.as_mut_slice()),
        Target::Place(_) => rustix::fs::listxattr(target.proc_path(), list.as_mut_slice()),
    };
    // A file system without attributes has none to remove.
    list.truncate(length.unwrap_or(0));
    let ours = |name: &[u8]| {
        [&b"user."[..], b"trusted.", b"system.posix_acl_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name == b"security.NTACL"
    };
    list.split(|byte| *byte == 0)
        .filter(|name| ours(name) && !wanted.iter().any(|(wanted, _)| wanted == name))
        .map(<[u8]>::to_vec)
        .collect()
}

impl<'a> Target<'a> {
    fn fd(self) -> BorrowedFd<'a> {
        match self {
            Self::Open(fd) | Self::Place(fd) => fd,
        }
    }

    /// The kernel's name for what the descriptor stands for; leads nowhere else, also for a symlink.
    fn proc_path(self) -> String {
        format!("/proc/self/fd/{}", self.fd().as_raw_fd())
    }
}
