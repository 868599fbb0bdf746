//! Gap flags: small files that outlive smbd and tell vfsxd that changes of a session were lost.
//!
//! The flag proper is written to vfsxd's state directory when a session ends with changes that nobody has taken. While vfsxd is away a
//! **standing** flag says that there are such changes in this process's memory: it is locked as long as the process lives, so one that
//! can be locked is that of a process that was killed. It is beside the socket, in memory: smbd's main thread writes it, and a disk may
//! hang.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use vfsx_proto::{GapReason, SessionId};

/// What is lost, from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub since_ns: i64,
    pub reason: GapReason,
}

/// `STATE/gaps/SHARE/SESSION`.
pub fn path(state: &Path, share: &str, session: SessionId) -> PathBuf {
    state.join("gaps").join(directory(share)).join(hex(session))
}

/// `DIR/gaps/SHARE/live/SESSION`, DIR being the socket's directory.
pub fn standing_path(socket: &Path, share: &str, session: SessionId) -> PathBuf {
    let beside = socket.parent().unwrap_or(Path::new("/"));
    beside
        .join("gaps")
        .join(directory(share))
        .join("live")
        .join(hex(session))
}

/// A share's directory: its name, with `_` for a slash.
pub(super) fn directory(share: &str) -> String {
    share.replace('/', "_")
}

/// A session's file: in hexadecimal.
pub(super) fn hex(session: SessionId) -> String {
    session.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the flag so that vfsxd sees it whole or not at all, also after a loss of power. Needs root.
/// `last`: nothing is lost if vfsxd has the session's events up to this one after all: it was only late to say so.
pub fn write(path: &Path, lost: Lost, pid: u32, last: Option<u64>) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    make_directory(dir)?;
    let new = path.with_extension("new");
    let mut file = create(&new)?;
    file.write_all(text(lost, pid, last).as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(dir)?.sync_all()
}

/// A standing flag. Dropping it leaves the file, unlocked.
#[derive(Debug)]
pub struct Standing {
    path: PathBuf,
    _locked: fs::File,
}

impl Standing {
    /// `path` as [`standing_path`] gives it; vfsxd sees the flag only locked and whole: it must never get the lock of a live process. One
    /// that is there already is replaced. Needs root.
    /// `last`: that of a session that is over; nothing is lost if vfsxd has its events up to this one after all.
    pub fn raise(path: &Path, lost: Lost, pid: u32, last: Option<u64>) -> io::Result<Self> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        make_runtime_directory(dir)?;
        let new = path.with_extension("new");
        let result = create_locked(&new, &text(lost, pid, last)).and_then(|file| {
            fs::rename(&new, path)?;
            Ok(file)
        });
        if result.is_err() {
            let _ = fs::remove_file(&new);
        }
        Ok(Self {
            path: path.to_owned(),
            _locked: result?,
        })
    }

    /// All changes were taken after all, or the flag proper is written. Needs root.
    pub fn lower(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The socket's directory is for whoever may connect.
fn make_runtime_directory(path: &Path) -> io::Result<()> {
    if let Some(beside) = path.ancestors().nth(3) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(beside)?;
    }
    make_directory(path)
}

/// An empty file, for root only: smbd's umask lets everything through.
pub(super) fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn create_locked(path: &Path, text: &str) -> io::Result<fs::File> {
    let mut file = create(path)?;
    file.try_lock()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

fn text(lost: Lost, pid: u32, last: Option<u64>) -> String {
    let reason = match lost.reason {
        GapReason::RingFull => "RingFull",
        GapReason::DaemonAbsent => "DaemonAbsent",
        GapReason::Panic => "Panic",
        GapReason::Unrepresentable => "Unrepresentable",
    };
    let last = last.map(|last| format!(",\"last\":{last}")).unwrap_or_default();
    format!(
        "{{\"since_ns\":{},\"reason\":\"{reason}\",\"pid\":{pid}{last}}}\n",
        lost.since_ns
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_one_line_of_json_and_nothing_else_stays() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let path = path(dir.path(), "a/b", SessionId([0xab; 16]));
        write(
            &path,
            Lost {
                since_ns: 17,
                reason: GapReason::DaemonAbsent,
            },
            42,
            Some(9),
        )
        .expect("written");
        let text = fs::read_to_string(&path).expect("readable");
        assert_eq!(
            text,
            "{\"since_ns\":17,\"reason\":\"DaemonAbsent\",\"pid\":42,\"last\":9}\n"
        );
        let names: Vec<_> = fs::read_dir(dir.path().join("gaps/a_b"))
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names, ["ab".repeat(16).as_str()]);
    }

    #[test]
    fn a_standing_flag_can_be_locked_only_after_its_process() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let path = standing_path(&dir.path().join("sock"), "data", SessionId([1; 16]));
        let lost = Lost {
            since_ns: 1,
            reason: GapReason::DaemonAbsent,
        };
        let live = dir.path().join("gaps/data/live").join("01".repeat(16));
        let standing = Standing::raise(&path, lost, 42, None).expect("raised");
        assert_eq!(fs::read_to_string(&live).expect("readable"), text(lost, 42, None));
        assert!(fs::File::open(&live).expect("open").try_lock().is_err());
        drop(standing);
        assert!(fs::File::open(&live).expect("open").try_lock().is_ok());
        Standing::raise(&path, lost, 42, None)
            .expect("raised again")
            .lower()
            .expect("lowered");
        assert!(!live.exists());
    }

    /// vfsxd tries to lock every standing flag that it sees, and takes one that it could lock for that of a killed process.
    #[test]
    fn a_standing_flag_never_shows_before_it_is_locked() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let path = standing_path(&dir.path().join("sock"), "data", SessionId([1; 16]));
        let lost = Lost {
            since_ns: 1,
            reason: GapReason::DaemonAbsent,
        };
        let live = dir.path().join("gaps/data/live").join("01".repeat(16));
        fs::create_dir_all(live.parent().expect("directory")).expect("directory");
        let probed = fs::File::create(&live).expect("what raise would show too early");
        probed.try_lock().expect("vfsxd's look");
        let _standing = Standing::raise(&path, lost, 42, None).expect("raised all the same");
        assert_eq!(fs::read_to_string(&live).expect("readable"), text(lost, 42, None));
        assert!(fs::File::open(&live).expect("open").try_lock().is_err());
        let files = fs::read_dir(dir.path().join("gaps/data/live")).expect("directory");
        assert_eq!(files.count(), 1);
    }
}
