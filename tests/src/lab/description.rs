//! `lab.json`: where everything in a lab is, for programs outside this repository.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// System user the shares belong to and SMB clients log in as.
pub const LAB_USER: &str = "vfsxlab";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    pub smb: SmbDescription,
    pub vfsxd: VfsxdDescription,
    pub sites: Vec<SiteDescription>,
    /// Returns 0 when everything done before is committed at every site.
    pub settle: Vec<String>,
    /// Restores the newest state of share `data` at `{site}` into the directory `{out}`.
    pub export: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SmbDescription {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub shares: BTreeMap<String, ShareDescription>,
    pub conf: PathBuf,
    pub pid_file: PathBuf,
    /// Starts smbd in the background and returns when it is ready. The module is found only this way.
    pub start: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShareDescription {
    pub path: PathBuf,
    pub vfsx: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VfsxdDescription {
    pub config: PathBuf,
    pub socket: PathBuf,
    pub pid_file: PathBuf,
    /// Starts vfsxd in the background and returns when it is ready.
    pub start: Vec<String>,
    pub log: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteDescription {
    pub name: String,
    pub url: String,
    pub config: PathBuf,
    pub bucket: String,
    pub pid_file: PathBuf,
    /// Starts restfs in the background and returns when it is ready.
    pub start: Vec<String>,
    pub log: PathBuf,
}

impl Description {
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(super::LAB_JSON);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(super::LAB_JSON);
        let text = fs::read_to_string(&path).with_context(|| format!("no lab: {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("not a lab's description: {}", path.display()))
    }
}
