//! Configuration of SMB clients that this tool runs, apart from the machine's own.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use vfsx_tests::lab::Lab;

/// Writes a client's `smb.conf` into `dir`, which also holds what Samba's clients keep. `more` are further lines.
pub fn configure(dir: &Path, more: &str) -> Result<PathBuf> {
    let state = dir.display();
    let text = format!(
        "[global]\nworkgroup = VFSXLAB\nprivate dir = {state}\nlock directory = {state}\nstate directory = {state}\n\
         cache directory = {state}\npid directory = {state}\n{more}"
    );
    let path = dir.join("client.conf");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// File with the name and password of the lab's user, as Samba's clients take it.
pub fn credentials(lab: &Lab) -> PathBuf {
    lab.dir().join("samba/private/auth")
}
