//! vfsxd of the lab.

use super::description::VfsxdDescription;
use super::process::Service;
use super::{Binaries, Site, service};
use anyhow::Result;
use std::fs;
use std::path::Path;

pub(super) struct Prepared {
    pub(super) description: VfsxdDescription,
    pub(super) service: Service,
}

pub(super) fn prepare(dir: &Path, binaries: &Binaries, sites: &[Site]) -> Result<Prepared> {
    let service = service(dir, "vfsxd");
    let description = VfsxdDescription {
        config: dir.join("vfsxd.toml"),
        socket: dir.join("run/vfsx.sock"),
        pid_file: service.pid_file.clone(),
        start: vec![service.start_script.display().to_string()],
        log: service.log.clone(),
    };
    let _ = (binaries, sites, fs::metadata("/"));
    Ok(Prepared { description, service })
}

pub(super) fn settle_argv(binaries: &Binaries, socket: &Path) -> Vec<String> {
    vec![
        binaries.vfsxctl.display().to_string(),
        "settle".into(),
        "--socket".into(),
        socket.display().to_string(),
    ]
}
