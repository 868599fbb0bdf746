//! `DATA/scrub.json`: how far a scrub has come, and what the last one found. Losing it costs a scrub from the beginning.

use restfs_lib::wire::method::{ScrubPlace, ScrubReport};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const NAME: &str = "scrub.json";
const VERSION: u32 = 1;

pub(super) struct Saved {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// When the schedule began, nanoseconds since the epoch.
    pub(super) since_ns: i64,
    pub(super) running: Option<Running>,
    /// As `scrub.status` answers it.
    pub(super) last: Option<ScrubReport>,
    #[serde(skip)]
    pub(super) error: Option<String>,
}

/// A scrub that has not come to its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) started_ns: i64,
    pub(super) pack: u64,
    pub(super) offset: u64,
    pub(super) read_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) damages: u64,
    pub(super) unused: u64,
    pub(super) places: Vec<ScrubPlace>,
}

impl Saved {
    /// One that cannot be read is as good as none.
    pub(super) fn read(data_dir: &Path) -> Self {
        let path = data_dir.join(NAME);
        let state = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .ok()
                .filter(|state: &State| state.version == VERSION),
            Err(_) => None,
        };
        Self {
            path,
            state: Mutex::new(state.unwrap_or_default()),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full disk costs the position only.
    pub(super) fn write(&self) {
        let mut state = self.state().clone();
        state.version = VERSION;
        if let Err(error) = serde_json::to_vec(&state)
            .map_err(io::Error::other)
            .and_then(|bytes| replace(&self.path, &bytes))
        {
            tracing::warn!(
                "{}: {error}; a scrub goes on from an earlier place after a restart",
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
