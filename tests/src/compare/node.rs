//! One name of a tree as the file system has it. Nothing here changes an access time, where the kernel lets us.

use super::report::Aspect;
use rustix::fs::{Dir, Mode, OFlags, lgetxattr, llistxattr};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

const CHUNK: usize = 1024 * 1024;
/// Linux gives no longer value, and no longer list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_MAX: usize = 64 * 1024;
/// Space that a copy may take beyond the original's: file systems round and preallocate.
const SLACK: u64 = 1024 * 1024;

pub(super) struct Node(Metadata);

impl Node {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        path.symlink_metadata().map(Self)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.0.is_dir()
    }

    pub(super) fn is_file(&self) -> bool {
        self.0.is_file()
    }

    pub(super) fn is_symlink(&self) -> bool {
        self.0.is_symlink()
    }

    pub(super) fn kind(&self) -> &'static str {
        let kind = self.0.file_type();
        match () {
            () if kind.is_dir() => "directory",
            () if kind.is_file() => "file",
            () if kind.is_symlink() => "symlink",
            () if kind.is_fifo() => "fifo",
            () if kind.is_socket() => "socket",
            () if kind.is_char_device() => "character device",
            () if kind.is_block_device() => "block device",
            () => "unknown",
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.0.size()
    }

    pub(super) fn allocated(&self) -> u64 {
        self.0.blocks() * 512
    }

    pub(super) fn takes_much_more_than(&self, other: &Self) -> bool {
        self.allocated() > other.allocated() + other.allocated() / 8 + SLACK
    }

    /// Device and inode, when there is more than one name.
    pub(super) fn shared_inode(&self) -> Option<(u64, u64)> {
        (!self.is_directory() && self.0.nlink() > 1).then(|| (self.0.dev(), self.0.ino()))
    }

    /// Of two of one type, without attributes and content.
    pub(super) fn differences(&self, other: &Self) -> Vec<(Aspect, String)> {
        let (a, b) = (&self.0, &other.0);
        let device = self.0.file_type().is_char_device() || self.0.file_type().is_block_device();
        let time = |m: &Metadata| format!("{}.{:09}", m.mtime(), m.mtime_nsec());
        let mut found = Vec::new();
        let mut check = |aspect, same: bool, detail: String| {
            if !same {
                found.push((aspect, detail));
            }
        };
        check(
            Aspect::Size,
            !a.is_file() || a.size() == b.size(),
            format!("{} / {}", a.size(), b.size()),
        );
        check(
            Aspect::Mode,
            a.mode() == b.mode(),
            format!("{:o} / {:o}", a.mode() & 0o7777, b.mode() & 0o7777),
        );
        check(
            Aspect::Uid,
            a.uid() == b.uid(),
            format!("{} / {}", a.uid(), b.uid()),
        );
        check(
            Aspect::Gid,
            a.gid() == b.gid(),
            format!("{} / {}", a.gid(), b.gid()),
        );
        let same_time = (a.mtime(), a.mtime_nsec()) == (b.mtime(), b.mtime_nsec());
        check(Aspect::Mtime, same_time, format!("{} / {}", time(a), time(b)));
        check(
            Aspect::Device,
            !device || a.rdev() == b.rdev(),
            format!("{} / {}", a.rdev(), b.rdev()),
        );
        found
    }
}

pub(super) fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in Dir::new(open(directory, OFlags::DIRECTORY)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.insert(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

pub(super) fn xattrs(path: &Path, ignored: &[OsString]) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut list = vec![0; XATTR_MAX];
    let length = match llistxattr(path, list.as_mut_slice()) {
        // The file system has none.
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut found = BTreeMap::new();
    for name in list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = OsString::from_vec(name.to_vec());
        if !ignored.contains(&name) {
            let mut value = vec![0; XATTR_MAX];
            let length = lgetxattr(path, &name, value.as_mut_slice())?;
            value.truncate(length);
            found.insert(name, value);
        }
    }
    Ok(found)
}

/// Where two files of one size differ first.
pub(super) fn first_difference(a: &Path, b: &Path) -> io::Result<Option<u64>> {
    let (mut a, mut b) = (open_file(a)?, open_file(b)?);
    let (mut chunk_a, mut chunk_b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut offset = 0;
    loop {
        let (count_a, count_b) = (fill(&mut a, &mut chunk_a)?, fill(&mut b, &mut chunk_b)?);
        let (part_a, part_b) = (&chunk_a[..count_a], &chunk_b[..count_b]);
        if part_a != part_b {
            let same = part_a.iter().zip(part_b).take_while(|(a, b)| a == b).count();
            return Ok(Some(offset + same as u64));
        }
        if count_a == 0 {
            return Ok(None);
        }
        offset += count_a as u64;
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    open(path, OFlags::empty()).map(File::from)
}

/// Only its owner and root may read a file without a trace.
fn open(path: &Path, flags: OFlags) -> io::Result<rustix::fd::OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let quiet = rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty());
    Ok(match quiet {
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty())?,
        result => result?,
    })
}

fn fill(file: &mut File, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
