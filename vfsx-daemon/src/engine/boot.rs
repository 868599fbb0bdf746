//! Whether the machine has lost power, or crashed, since vfsxd ran last. Then the shares' disks may have kept changes whose
//! events had not reached the journal's: within the moments that its sync takes, and what modules held back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Another one with every boot.
const KERNELS: &str = "/proc/sys/kernel/random/boot_id";
/// In the state directory: the boot that vfsxd runs in, until it stops cleanly.
const NAME: &str = "boot";

pub(super) struct Boot {
    path: PathBuf,
    /// `None`: the kernel tells none.
    current: Option<String>,
}

impl Boot {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(NAME),
            current: fs::read_to_string(KERNELS).ok(),
        }
    }

    /// vfsxd did not stop cleanly, and the machine has booted since.
    pub(super) fn crashed_before(&self) -> bool {
        match (fs::read_to_string(&self.path), &self.current) {
            (Ok(before), Some(current)) => before.trim() != current.trim(),
            (Err(error), _) => error.kind() != ErrorKind::NotFound,
            (Ok(_), None) => true,
        }
    }

    /// From now on what is lost by a crash is looked for. On a full disk what was noted last stays: then it is looked for in
    /// vain, or, in the first run of all, not at all.
    pub(super) fn note(&self) {
        if let Err(error) = self.try_to_note() {
            tracing::error!(path = %self.path.display(), %error, "which boot this is cannot be kept");
        }
    }

    fn try_to_note(&self) -> io::Result<()> {
        if self.path.exists() && !self.crashed_before() {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(self.current.as_deref().unwrap_or_default().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.path.parent().unwrap_or(&self.path))?.sync_all()
    }

    /// A clean stop: everything is in the journal, synced. When this fails, or is not durable, the next boot scans for nothing.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_told_from_a_clean_stop_and_from_a_kill() {
        let scratch = tempfile::tempdir().expect("scratch");
        let boot = Boot::of(scratch.path());
        assert!(!boot.crashed_before(), "the first start");
        boot.note();
        assert!(!boot.crashed_before(), "killed in the same boot");
        let later = Boot {
            current: Some("another".into()),
            ..Boot::of(scratch.path())
        };
        assert!(later.crashed_before());
        later.note();
        assert!(!later.crashed_before(), "dealt with");
        boot.forget();
        assert!(!later.crashed_before(), "stopped cleanly before the boot");
    }
}
