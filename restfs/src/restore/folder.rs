//! A directory beneath the destination. Every name is used relative to an open directory, one component at a time,
//! and the kernel is told to follow no symlink and not to leave: whatever somebody plants there meanwhile, nothing is
//! written outside.

use super::RestoreError;
use restfs_lib::model::Kind;
use rustix::fs::{
    AtFlags, CWD, Dev, Dir, FileType, Mode, OFlags, ResolveFlags, linkat, mkdirat, mknodat, openat2,
};
use rustix::fs::{makedev, symlinkat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longest name that Linux file systems take (`NAME_MAX`).
const MAX_NAME: usize = 255;
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
/// Until an object has its own mode, nobody else gets at it.
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_FOLDER: Mode = Mode::from_raw_mode(0o700);

pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Makes the destination, or takes an empty one (`existing`: any directory).
    pub(super) fn root(dest: &Path, existing: bool) -> Result<Self, RestoreError> {
        let shown = dest.display().to_string();
        let unusable = |reason: String| RestoreError::Destination {
            dest: shown.clone(),
            reason,
        };
        // Without a trailing slash, which would make the last component a symlink to be followed.
        let dest: PathBuf = dest.components().collect();
        match mkdirat(CWD, &dest, PRIVATE_FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => return Err(unusable("the directory above it does not exist".to_owned())),
            Err(error) => return Err(unusable(error.to_string())),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&dest, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => unusable("it is a symlink or no directory".to_owned()),
            error => unusable(error.to_string()),
        })?;
        let folder = Self(fd);
        match folder.open_here(c".") {
            Err(Errno::NOSYS | Errno::PERM) => {
                let reason = "the kernel lacks openat2 (Linux 5.6), or a sandbox forbids it".to_owned();
                return Err(unusable(reason));
            }
            Err(error) => return Err(unusable(error.to_string())),
            Ok(_) => {}
        }
        if !existing && !folder.is_empty().map_err(|e| unusable(e.to_string()))? {
            return Err(RestoreError::NotEmpty(shown));
        }
        Ok(folder)
    }

    pub(super) fn open_folder(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self(self.open_here(checked(name)?)?))
    }

    /// `replace`: an existing directory is taken as it is, anything else removed first.
    pub(super) fn make_folder(&self, name: &[u8], replace: bool) -> io::Result<Self> {
        let make = || mkdirat(&self.0, checked(name)?, PRIVATE_FOLDER).map_err(io::Error::from);
        match make() {
            Err(error) if replace && error.kind() == io::ErrorKind::AlreadyExists => {
                if let Ok(existing) = self.open_folder(name) {
                    return Ok(existing);
                }
                self.remove(name)?;
                make()?;
            }
            result => result?,
        }
        self.open_folder(name)
    }

    pub(super) fn make_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat2(
            &self.0,
            checked(name)?,
            flags,
            PRIVATE_FILE,
            BENEATH,
        )?))
    }

    /// A symlink, fifo, socket or device.
    pub(super) fn make_special(&self, name: &[u8], kind: &Kind) -> io::Result<()> {
        match kind {
            Kind::Symlink { target } => Ok(symlinkat(target.as_slice(), &self.0, checked(name)?)?),
            Kind::Fifo => self.make_node(name, FileType::Fifo, 0),
            Kind::Socket => self.make_node(name, FileType::Socket, 0),
            Kind::CharDevice { major, minor } => {
                self.make_node(name, FileType::CharacterDevice, makedev(*major, *minor))
            }
            Kind::BlockDevice { major, minor } => {
                self.make_node(name, FileType::BlockDevice, makedev(*major, *minor))
            }
            // They are opened for their content.
            Kind::File | Kind::Directory => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// A further name for what `first` is called in `folder`.
    pub(super) fn make_link(&self, name: &[u8], folder: &Self, first: &[u8]) -> io::Result<()> {
        Ok(linkat(
            &folder.0,
            checked(first)?,
            &self.0,
            checked(name)?,
            AtFlags::empty(),
        )?)
    }

    /// For the properties of what cannot be opened: symlinks, fifos, sockets, devices.
    pub(super) fn handle(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat2(&self.0, checked(name)?, flags, Mode::empty(), BENEATH)?)
    }

    /// Removes a name that is no directory; one that is not there is removed already.
    pub(super) fn remove(&self, name: &[u8]) -> io::Result<()> {
        match unlinkat(&self.0, checked(name)?, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(io::Error::other("a directory is in its place")),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything written to the file system is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    fn make_node(&self, name: &[u8], kind: FileType, device: Dev) -> io::Result<()> {
        Ok(mknodat(&self.0, checked(name)?, kind, PRIVATE_FILE, device)?)
    }

    fn open_here(&self, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(&self.0, name, flags, Mode::empty(), BENEATH)
    }

    fn is_empty(&self) -> io::Result<bool> {
        for entry in Dir::read_from(&self.0)? {
            let name = entry?;
            if !matches!(name.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Names come from the site: only what names one thing in this directory is used.
pub(super) fn checked(name: &[u8]) -> io::Result<&[u8]> {
    let reason = match name {
        b"" => "an empty name",
        b"." | b".." => "the name of a directory itself, or of the one above",
        _ if name.contains(&b'/') => "a name with a slash",
        _ if name.contains(&0) => "a name with a zero byte",
        _ if name.len() > MAX_NAME => "a name of more than 255 bytes",
        _ => return Ok(name),
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{reason} is not restored"),
    ))
}
