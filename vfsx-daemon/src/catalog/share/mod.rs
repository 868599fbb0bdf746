//! The share's directory, read without leaving a trace: nothing is written, no access time moves, no symbolic link is
//! followed, nothing above the root is reached.

mod details;
mod list;
mod seen;

pub(super) use details::{Details, details, is_attribute};
pub(super) use list::list;
pub(super) use seen::{Doubt, Seen, Stamp, Type, is_of_tick, now};

use crate::journal::NodeRef;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// Components of a path beneath the share's root.
pub(super) type Components = Vec<Vec<u8>>;

/// Longest piece of a path given to the kernel at once. Below PATH_MAX, which a deep tree exceeds.
const PIECE: usize = 2048;
/// `openat2` answers EAGAIN when a rename elsewhere kept it from proving that it stayed beneath the root.
const RACES: usize = 16;

/// Stands for the device of the share's root. The kernel's own number may be another one after a reboot, and on some
/// file systems (btrfs, ZFS) after every mount; the catalog must still know its objects then. Devices mounted beneath
/// the root keep their numbers.
const ROOT_DEVICE: u64 = 0;

/// A share's root, held open so that what is mounted or renamed above it changes nothing.
pub(super) struct Share {
    root: OwnedFd,
    /// Numbers that the root's device has and had.
    devices: Vec<u64>,
}

impl Share {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(rustix::fs::CWD, path, flags, Mode::empty())?;
        let devices = vec![seen::see_handle(root.as_fd())?.node.dev];
        Ok(Self { root, devices })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Numbers of the root's device, the present one first.
    pub(super) fn devices(&self) -> &[u64] {
        &self.devices
    }

    /// Records of the journal may name the root's device by a number that it had before.
    pub(super) fn had_devices(&mut self, before: &[u64]) {
        for device in before {
            if !self.devices.contains(device) {
                self.devices.push(*device);
            }
        }
    }

    /// An identity as the catalog keeps it.
    pub(super) fn known_node(&self, node: &NodeRef) -> NodeRef {
        let dev = if self.devices.contains(&node.dev) {
            ROOT_DEVICE
        } else {
            node.dev
        };
        NodeRef { dev, ..*node }
    }

    /// What a name in a directory leads to, without following a symbolic link. `None`: the name is not there.
    pub(super) fn see(&self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Seen>> {
        Ok(seen::see(dir, name)?.map(|seen| self.known_seen(seen)))
    }

    /// The inode that a handle is on.
    pub(super) fn see_handle(&self, fd: BorrowedFd<'_>) -> io::Result<Seen> {
        seen::see_handle(fd).map(|seen| self.known_seen(seen))
    }

    fn known_seen(&self, seen: Seen) -> Seen {
        // A number of the past that another device has now is that device's.
        let node = match self.devices.first() {
            Some(now) if *now == seen.node.dev => self.known_node(&seen.node),
            _ => seen.node,
        };
        Seen { node, ..seen }
    }

    /// A handle on whatever is at the path, not opened for reading. `None`: nothing is there, or the way to it is not
    /// made of directories.
    pub(super) fn pin(&self, path: &[Vec<u8>]) -> io::Result<Option<OwnedFd>> {
        let mut at: Option<OwnedFd> = None;
        for piece in pieces(path) {
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            match pin_beneath(from, &piece)? {
                Some(next) => at = Some(next),
                None => return Ok(None),
            }
        }
        match at {
            Some(found) => Ok(Some(found)),
            None => Ok(Some(self.root.try_clone()?)),
        }
    }
}

/// Like [`Share::pin`] for one name in a directory.
pub(super) fn pin_in(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    pin_beneath(dir, name)
}

/// Opens what a handle is on for reading. Only for regular files and directories: opening a device does things.
/// `WouldBlock`: a lease is being broken, try again.
pub(super) fn open_pinned(pin: BorrowedFd<'_>, directory: bool) -> io::Result<File> {
    let mut flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if directory {
        flags |= OFlags::DIRECTORY;
        return Ok(File::from(openat(pin, c".", flags, Mode::empty())?));
    }
    Ok(File::from(openat(
        rustix::fs::CWD,
        proc_path(pin),
        flags,
        Mode::empty(),
    )?))
}

/// The kernel's own name for an open handle: leads to exactly that inode.
fn proc_path(fd: BorrowedFd<'_>) -> String {
    use rustix::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn pin_beneath(from: BorrowedFd<'_>, path: &[u8]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACES {
        match openat2(from, path, flags, Mode::empty(), resolve) {
            Ok(found) => return Ok(Some(found)),
            // NO_SYMLINKS answers ELOOP for a link in last place too, although PATH and NOFOLLOW would hold it.
            Err(Errno::LOOP) => return pin_link(from, path),
            Err(Errno::AGAIN) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::from(Errno::AGAIN))
}

/// A handle on a symbolic link itself. `None` when the link is not in last place.
fn pin_link(from: BorrowedFd<'_>, path: &[u8]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => {
            let (parent, name) = path.split_at(slash);
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match openat2(from, parent, flags | OFlags::DIRECTORY, Mode::empty(), resolve) {
                Ok(dir) => (Some(dir), name.get(1..).unwrap_or_default()),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
        None => (None, path),
    };
    let dir = parent.as_ref().map_or(from, AsFd::as_fd);
    match openat(dir, name, flags, Mode::empty()) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The path in pieces that the kernel takes.
fn pieces(path: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for name in path {
        match pieces.last_mut() {
            Some(piece) if piece.len() + name.len() < PIECE => {
                piece.push(b'/');
                piece.extend_from_slice(name);
            }
            _ => pieces.push(name.clone()),
        }
    }
    pieces
}

/// A hint of the module as components. `None` for one that cannot lie beneath the root.
pub(super) fn components(path: &[u8]) -> Option<Components> {
    if path.first() == Some(&b'/') {
        return None;
    }
    let names = path
        .split(|b| *b == b'/')
        .filter(|name| !name.is_empty() && *name != b".");
    names
        .map(|name| restfs_lib::model::valid_name(name).then(|| name.to_vec()))
        .collect()
}

#[cfg(test)]
pub(super) use seen::see as see_raw;
#[cfg(test)]
mod tests;
