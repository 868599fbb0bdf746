//! Which sites of a share are paused; survives a restart.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(super) struct Pauses {
    path: PathBuf,
    names: BTreeSet<String>,
}

impl Pauses {
    /// Reads the file of the share's directory; none there means none paused.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("paused");
        let names = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(e) => return Err(e),
        };
        Ok(Self { path, names })
    }

    pub(super) fn contains(&self, site: &str) -> bool {
        self.names.contains(site)
    }

    /// Durable when it returns.
    pub(super) fn set(&mut self, site: &str, paused: bool) -> io::Result<()> {
        let changed = if paused {
            self.names.insert(site.to_owned())
        } else {
            self.names.remove(site)
        };
        if !changed {
            return Ok(());
        }
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.names)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_survives_a_restart() {
        let scratch = tempfile::tempdir().expect("scratch");
        let mut pauses = Pauses::open(scratch.path()).expect("opens");
        pauses.set("a", true).expect("writes");
        pauses.set("b", true).expect("writes");
        pauses.set("a", false).expect("writes");
        let pauses = Pauses::open(scratch.path()).expect("opens");
        assert!(!pauses.contains("a") && pauses.contains("b"));
    }
}
