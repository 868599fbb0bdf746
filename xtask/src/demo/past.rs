//! A moment of the share, kept to compare an earlier recovery point with.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use vfsx_tests::lab::{Lab, Site};

pub struct Moment {
    pub point: u64,
    /// Copy of the share as it was.
    pub copy: PathBuf,
}

/// Called when the share is settled and no client works on it.
pub fn remember(lab: &Lab, site: &Site, scratch: &Path) -> Result<Moment> {
    let point = site.head()?;
    let copy = scratch.join("copy");
    let output = Command::new("cp")
        .args(["--archive", "--sparse=always"])
        .args([lab.share("data")?, &copy])
        .output()
        .context("run cp")?;
    ensure!(
        output.status.success(),
        "copy of the share: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(Moment { point, copy })
}
