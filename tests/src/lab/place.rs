//! Where a server of the lab runs and keeps its data, when that is not just this machine and the lab's directory.

use anyhow::{Context, Result};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The servers refuse a directory that others can look into.
const ONLY_OWN: u32 = 0o700;

#[derive(Debug, Clone, Default)]
pub struct Place {
    /// What comes before the server's own command line, such as `nsenter --net=FILE`. It must become the server (exec), whose
    /// process id the lab takes for it.
    pub command: Vec<String>,
    /// An empty directory for the data.
    pub data: Option<PathBuf>,
    /// Where a site listens and its clients find it; loopback otherwise.
    pub address: Option<Ipv4Addr>,
}

impl Place {
    pub(super) fn run<const N: usize>(&self, argv: [String; N]) -> Vec<String> {
        self.command.iter().cloned().chain(argv).collect()
    }

    /// Makes `path` the directory of the data.
    pub(super) fn make_data(&self, path: &Path) -> Result<()> {
        match &self.data {
            Some(data) => fs::set_permissions(data, fs::Permissions::from_mode(ONLY_OWN))
                .and_then(|()| symlink(data, path)),
            None => fs::DirBuilder::new().mode(ONLY_OWN).create(path),
        }
        .with_context(|| format!("create {}", path.display()))
    }

    pub(super) fn host(&self) -> String {
        self.address
            .map_or_else(|| "localhost".to_owned(), |address| address.to_string())
    }

    pub(super) fn listens_on(&self) -> Ipv4Addr {
        self.address.unwrap_or(Ipv4Addr::LOCALHOST)
    }
}
