//! Files in the data directory that say how far something has come, and what the last one did. Losing one costs a beginning
//! from the beginning.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const VERSION: u32 = 1;

pub(super) struct Saved<S> {
    path: PathBuf,
    state: Mutex<S>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<S> {
    version: u32,
    #[serde(flatten)]
    state: S,
}

impl<S: Clone + Default + Serialize + DeserializeOwned> Saved<S> {
    /// One that cannot be read is as good as none.
    pub(super) fn read(path: PathBuf) -> Self {
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Versioned<S>>(&bytes).ok();
        let found = std::fs::read(&path).ok().and_then(read);
        let state = found
            .filter(|found| found.version == VERSION)
            .map(|found| found.state);
        Self {
            path,
            state: Mutex::new(state.unwrap_or_default()),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full disk costs the position only.
    pub(super) fn write(&self) {
        let state = self.state().clone();
        let versioned = Versioned {
            version: VERSION,
            state,
        };
        if let Err(error) = serde_json::to_vec(&versioned)
            .map_err(io::Error::other)
            .and_then(|bytes| replace(&self.path, &bytes))
        {
            tracing::warn!(
                "{}: {error}; what it keeps goes on from an earlier place after a restart",
                self.path.display()
            );
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}
