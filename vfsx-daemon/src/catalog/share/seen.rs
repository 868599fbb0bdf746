//! What `statx` says of an inode.

use crate::journal::NodeRef;
use restfs_lib::model::{Kind, Time};
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;
use std::io;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::catalog) enum Type {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

impl Type {
    /// An inode never changes its kind: one of another kind has only the same number.
    pub(in crate::catalog) fn is(self, kind: &Kind) -> bool {
        match *kind {
            Kind::File => self == Self::File,
            Kind::Directory => self == Self::Directory,
            Kind::Symlink { .. } => self == Self::Symlink,
            Kind::Fifo => self == Self::Fifo,
            Kind::Socket => self == Self::Socket,
            Kind::CharDevice { major, minor } => self == Self::CharDevice { major, minor },
            Kind::BlockDevice { major, minor } => self == Self::BlockDevice { major, minor },
        }
    }
}

/// Tells whether a file's content may have changed since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::catalog) struct Stamp {
    pub(in crate::catalog) size: u64,
    pub(in crate::catalog) mtime: Time,
    pub(in crate::catalog) ctime: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::catalog) struct Seen {
    pub(in crate::catalog) node: NodeRef,
    pub(in crate::catalog) kind: Type,
    pub(in crate::catalog) mode: u32,
    pub(in crate::catalog) uid: u32,
    pub(in crate::catalog) gid: u32,
    pub(in crate::catalog) links: u32,
    pub(in crate::catalog) atime: Time,
    pub(in crate::catalog) btime: Time,
    pub(in crate::catalog) stamp: Stamp,
}

impl Seen {
    /// Names that the inode has; a directory has one, whatever its link count says.
    pub(in crate::catalog) fn names(&self) -> u32 {
        if self.kind == Type::Directory {
            1
        } else {
            self.links
        }
    }

    /// Bytes of content.
    pub(in crate::catalog) fn size(&self) -> u64 {
        if self.kind == Type::File {
            self.stamp.size
        } else {
            0
        }
    }
}

/// As [`super::Share::see`], with the kernel's device number.
pub(in crate::catalog) fn see(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Seen>> {
    match query(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(stat) => seen(&stat).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// As [`super::Share::see_handle`], with the kernel's device number.
pub(super) fn see_handle(fd: BorrowedFd<'_>) -> io::Result<Seen> {
    seen(&query(fd, b"", AtFlags::EMPTY_PATH)?)
}

fn query(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> rustix::io::Result<Statx> {
    statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn seen(stat: &Statx) -> io::Result<Seen> {
    let has_btime = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let btime = if has_btime {
        time(&stat.stx_btime)
    } else {
        Time::default()
    };
    let mode = u32::from(stat.stx_mode);
    Ok(Seen {
        node: NodeRef {
            dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            ino: stat.stx_ino,
            btime_ns: i64::try_from(btime.ns()).unwrap_or_default(),
        },
        kind: kind(stat, mode)?,
        mode: mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        links: stat.stx_nlink,
        atime: time(&stat.stx_atime),
        btime,
        stamp: Stamp {
            size: stat.stx_size,
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
        },
    })
}

fn kind(stat: &Statx, mode: u32) -> io::Result<Type> {
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Ok(Type::File),
        FileType::Directory => Ok(Type::Directory),
        FileType::Symlink => Ok(Type::Symlink),
        FileType::Fifo => Ok(Type::Fifo),
        FileType::Socket => Ok(Type::Socket),
        FileType::CharacterDevice => Ok(Type::CharDevice { major, minor }),
        FileType::BlockDevice => Ok(Type::BlockDevice { major, minor }),
        FileType::Unknown => Err(io::Error::other(format!(
            "inode of an unknown type (mode {mode:o})"
        ))),
    }
}

fn time(stamp: &StatxTimestamp) -> Time {
    Time {
        seconds: stamp.tv_sec,
        nanoseconds: stamp.tv_nsec.min(999_999_999),
    }
}
