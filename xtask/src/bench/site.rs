//! A recovery site of a benchmark's own: an empty bucket, and a token that may write into it.

use super::process::{Server, free_port, output};
use crate::build::{self, Profile};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const BUCKET: &str = "bench";

pub(super) struct Site {
    programs: PathBuf,
    config: PathBuf,
    token: PathBuf,
    port: u16,
    _server: Server,
}

impl Site {
    /// Its files are in `scratch`.
    pub(super) fn start(scratch: &Path, profile: Profile) -> Result<Self> {
        let programs = build::programs(profile)?;
        let (config, token) = (scratch.join("restfs.toml"), scratch.join("token"));
        let (restfs, data, port) = (programs.join("restfs"), scratch.join("restfs"), free_port()?);
        fs::write(
            &config,
            format!("data_dir = {data:?}\nlisten = \"127.0.0.1:{port}\"\n"),
        )?;
        let command = || {
            let mut command = Command::new(&restfs);
            command.arg("--config").arg(&config);
            command
        };
        output(command().args(["bucket", "create", BUCKET]))?;
        let writer = ["token", "create", "--role", "writer", "--bucket", BUCKET, "bench"];
        output(command().args(writer).arg("--output").arg(&token))?;
        let server = Server::start(command().arg("serve"), port)?;
        Ok(Self {
            programs,
            config,
            token,
            port,
            _server: server,
        })
    }

    /// What a command of `restfs` answers.
    pub(super) fn admin(&self, words: &[&str]) -> Result<Value> {
        let mut command = Command::new(self.programs.join("restfs"));
        command
            .arg("--config")
            .arg(&self.config)
            .arg("--json")
            .args(words);
        serde_json::from_str(&output(&mut command)?).with_context(|| format!("answer to restfs {words:?}"))
    }

    /// `restfs-bench` with this load, on the bucket.
    pub(super) fn load(&self, kind: &str) -> Command {
        let mut command = Command::new(self.programs.join("restfs-bench"));
        command
            .args([kind, "--url", &format!("ws://127.0.0.1:{}", self.port)])
            .args(["--bucket", BUCKET, "--token-file"])
            .arg(&self.token);
        command
    }
}
