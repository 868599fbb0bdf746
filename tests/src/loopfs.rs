//! A file system of a kind of its own, in a file, mounted in a scratch directory for as long as a test needs it.

use crate::guard::Guard;
use anyhow::{Context, Result, ensure};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sparse: only what is written takes space. XFS wants at least 300 MiB, btrfs some 110 MiB.
const SIZE: u64 = 1 << 30;
/// The loop device goes with the mount (`autoclear`), and the image, which has no name then, with the device.
const MOUNT: &str = r#"mount -o loop "$DIR/image" "$DIR/mount" && rm "$DIR/image""#;
/// What still uses the file system is a server of a lab that ends by itself, or is being ended; after 10 s the mount goes all
/// the same, and the device with that server.
const UNMOUNT: &str = r#"
fsfreeze --unfreeze "$DIR/mount" 2>/dev/null
tries=100
until umount "$DIR/mount" 2>/dev/null; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { umount --lazy "$DIR/mount"; echo "$DIR/mount was still in use" >&2; break; }
    sleep 0.1
done
rmdir "$DIR/mount" "$DIR"
[ $tries -gt 0 ]
"#;

/// What takes the last space, in the root directory.
const FILLER: &str = "filler";
const BLOCK: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    /// Program that makes one, and the Debian package it is in.
    fn maker(self) -> (&'static str, &'static str) {
        match self {
            Self::Ext4 => ("mkfs.ext4", "e2fsprogs"),
            Self::Xfs => ("mkfs.xfs", "xfsprogs"),
            Self::Btrfs => ("mkfs.btrfs", "btrfs-progs"),
        }
    }
}

/// An empty, mounted file system. It is unmounted, and its loop device detached, when this value is dropped or this process
/// ends in any other way.
#[derive(Debug)]
pub struct LoopFs {
    // Before the directory: fields are dropped in this order.
    guard: Guard,
    dir: tempfile::TempDir,
    kind: FileSystem,
}

impl LoopFs {
    /// Needs root.
    pub fn make(kind: FileSystem) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vfsx-loop-").tempdir()?;
        std::fs::create_dir(dir.path().join("mount"))?;
        let image = dir.path().join("image");
        File::create(&image)?.set_len(SIZE)?;
        format(kind, &image)?;
        let guard = Guard::new(MOUNT, UNMOUNT, &[("DIR", dir.path().as_os_str())])
            .with_context(|| format!("mount a file system of kind {kind:?}"))?;
        Ok(Self { guard, dir, kind })
    }

    /// Its root directory.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// Holds up everything that writes, until [`LoopFs::thaw`] or the end.
    pub fn freeze(&self) -> Result<()> {
        self.fsfreeze("--freeze")
    }

    pub fn thaw(&self) -> Result<()> {
        self.fsfreeze("--unfreeze")
    }

    /// Takes what is free but for `left` bytes, also what the file system keeps for root.
    pub fn fill(&self, left: u64) -> Result<()> {
        let file = File::create(self.path().join(FILLER))?;
        let (mut length, mut step) = (0, 1 << 28);
        while step >= BLOCK {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).context("fill a disk"),
            }
        }
        file.set_len(length.saturating_sub(left)).context("fill a disk")
    }

    /// The same as others than root see it.
    pub fn leave(&self, bytes: u64) -> Result<()> {
        let found = rustix::fs::statvfs(self.path())?;
        let of_root = found.f_bfree.saturating_sub(found.f_bavail) * found.f_frsize;
        self.fill(of_root + bytes)
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        match std::fs::remove_file(self.path().join(FILLER)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A directory in the root directory, on btrfs a subvolume, which can be limited.
    pub fn make_directory(&self, name: &str) -> Result<()> {
        let path = self.path().join(name);
        match self.kind {
            FileSystem::Btrfs => {
                self.btrfs(&["quota", "enable"], &self.path())?;
                self.btrfs(&["subvolume", "create"], &path).map(drop)
            }
            FileSystem::Ext4 | FileSystem::Xfs => Ok(std::fs::create_dir(path)?),
        }
    }

    /// What a subvolume of btrfs may take, in bytes: more is EDQUOT, for root, too. All that was written is on the disk, so the next change
    /// of it takes space, and where a page of it is mapped into memory is SIGBUS.
    pub fn limit(&self, name: &str, bytes: Option<u64>) -> Result<()> {
        rustix::fs::syncfs(File::open(self.path())?)?;
        let group = self.quota_group(name)?;
        let bytes = bytes.map_or("none".to_owned(), |bytes| bytes.to_string());
        // Not by the subvolume's path: to lift its limit takes space of what the path leads to.
        self.btrfs(&["qgroup", "limit", &bytes, &group], &self.path())
            .map(drop)
    }

    /// What that quota has counted, in bytes.
    pub fn taken(&self, name: &str) -> Result<u64> {
        let group = self.quota_group(name)?;
        let table = self.btrfs(&["qgroup", "show", "--raw", "--sync"], &self.path())?;
        let row = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = row.into_iter().find(|row| row.first() == Some(&group.as_str()));
        let taken = row.and_then(|row| row.get(1)?.parse().ok());
        taken.with_context(|| format!("no row {group} in what `btrfs qgroup show` says:\n{table}"))
    }

    fn quota_group(&self, name: &str) -> Result<String> {
        let id = self.btrfs(&["inspect-internal", "rootid"], &self.path().join(name))?;
        Ok(format!("0/{}", id.trim()))
    }

    /// Unmounts now; an error when something still uses it.
    pub fn unmount(self) -> Result<()> {
        self.guard.release()
    }

    fn fsfreeze(&self, how: &str) -> Result<()> {
        let mut command = Command::new("/usr/sbin/fsfreeze");
        run(command.arg(how).arg(self.path()), "util-linux").map(drop)
    }

    fn btrfs(&self, what: &[&str], path: &Path) -> Result<String> {
        run(Command::new("/usr/bin/btrfs").args(what).arg(path), "btrfs-progs")
    }
}

fn format(kind: FileSystem, image: &Path) -> Result<()> {
    let (program, package) = kind.maker();
    let mut command = Command::new(Path::new("/usr/sbin").join(program));
    run(command.arg("-q").arg(image), package).map(drop)
}

/// What it says.
fn run(command: &mut Command, package: &str) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| {
        format!(
            "run {name}: `apt-get install {package}`, or run `cargo xtask test`, which installs all it needs"
        )
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Mounts and loop devices of the scratch directory.
    fn traces(dir: &Path) -> Vec<String> {
        let dir = dir.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounts = mounts
            .lines()
            .filter(|line| line.contains(&dir))
            .map(str::to_owned);
        let devices = fs::read_dir("/sys/block").expect("block devices").flatten();
        let backing =
            devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
        mounts.chain(backing.filter(|file| file.contains(&dir))).collect()
    }

    #[test]
    fn each_kind_is_mounted_and_leaves_nothing_behind() {
        for kind in [FileSystem::Ext4, FileSystem::Xfs, FileSystem::Btrfs] {
            let made = LoopFs::make(kind).expect("a file system");
            let dir = made.dir.path().to_owned();
            fs::write(made.path().join("file"), "content").expect("write");
            assert_eq!(traces(&dir).len(), 2, "{kind:?}: {:?}", traces(&dir));
            made.unmount().expect("unmount");
            assert_eq!(traces(&dir), Vec::<String>::new(), "{kind:?}");
            assert!(!dir.exists(), "{kind:?}");
        }
    }

    #[test]
    fn a_panic_unmounts_a_frozen_one() {
        let (send, receive) = std::sync::mpsc::channel();
        let panicked = std::thread::spawn(move || {
            let made = LoopFs::make(FileSystem::Ext4).expect("a file system");
            made.freeze().expect("freeze");
            send.send(made.dir.path().to_owned()).expect("the test waits");
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        let dir = receive.recv().expect("a directory");
        assert_eq!(traces(&dir), Vec::<String>::new());
    }
}
