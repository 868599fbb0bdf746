//! What `statx` says of an inode.

use crate::journal::NodeRef;
use restfs_lib::model::{Kind, Time};
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
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
    pub(in crate::catalog) doubt: Doubt,
}

/// What may change after a look without changing the stamp: file systems take times from a clock that stands still for a
/// tick, so two changes within one have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::catalog) enum Doubt {
    /// Whatever changes, the stamp does.
    #[default]
    None,
    /// Everything but a file's content.
    Metadata,
    Content,
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
    let before = now();
    match query(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(stat) => seen(&stat, before).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// As [`super::Share::see_handle`], with the kernel's device number.
pub(super) fn see_handle(fd: BorrowedFd<'_>) -> io::Result<Seen> {
    let before = now();
    seen(&query(fd, b"", AtFlags::EMPTY_PATH)?, before)
}

fn query(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> rustix::io::Result<Statx> {
    statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// `before`: the file systems' clock before the query.
fn seen(stat: &Statx, before: Time) -> io::Result<Seen> {
    let has_btime = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let btime = if has_btime {
        time(&stat.stx_btime)
    } else {
        Time::default()
    };
    let mode = u32::from(stat.stx_mode);
    let ctime = time(&stat.stx_ctime);
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
            ctime,
        },
        doubt: match is_of_tick(ctime, before) {
            true => Doubt::Content,
            false => Doubt::None,
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

/// The clock that file systems take times from: it moves with the kernel's ticks.
pub(in crate::catalog) fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time {
        seconds: now.tv_sec,
        nanoseconds: u32::try_from(now.tv_nsec).unwrap_or_default(),
    }
}

/// Times that lie further ahead are from before the clock was set back: what changes now gets others.
const AHEAD_NS: i128 = 2_000_000_000;

/// Whether an inode that is changed at `now` or later may still get this change time.
pub(in crate::catalog) fn is_of_tick(ctime: Time, now: Time) -> bool {
    // Some file systems keep less than the clock says. A shorter one than the kernel's shortest tick makes no difference.
    let grain_ns = match ctime.nanoseconds {
        0 => 2_000_000_000,
        ns if ns % 10_000_000 == 0 => 10_000_000,
        _ => 1_000_000,
    };
    (-AHEAD_NS..grain_ns).contains(&(now.ns() - ctime.ns()))
}

fn time(stamp: &StatxTimestamp) -> Time {
    Time {
        seconds: stamp.tv_sec,
        nanoseconds: stamp.tv_nsec.min(999_999_999),
    }
}
