//! One recovery site: a restfs with its own data, certificate and token.

use super::description::SiteDescription;
use super::process::Service;
use super::{BUCKET, Binaries, ports, service};
use crate::rpc::Rpc;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[derive(Debug, Clone)]
pub struct Site {
    pub description: SiteDescription,
    pub service: Service,
    /// Certificate vfsxd trusts.
    pub certificate: PathBuf,
    /// File with the token vfsxd shows.
    pub token: PathBuf,
    restfs: PathBuf,
}

impl Site {
    /// Writes configuration, certificate and start script, makes the bucket and the replicator's token.
    pub(super) fn prepare(lab: &Path, number: usize, binaries: &Binaries) -> Result<Self> {
        let name = format!("site{number}");
        let dir = lab.join("sites").join(&name);
        fs::create_dir_all(&dir)?;
        let port = ports::free()?;
        let config = dir.join("restfs.toml");
        let service = service(lab, &name);
        let description = SiteDescription {
            name,
            url: format!("wss://localhost:{port}"),
            config: config.clone(),
            bucket: BUCKET.to_owned(),
            pid_file: service.pid_file.clone(),
            start: vec![service.start_script.display().to_string()],
            log: service.log.clone(),
        };
        fs::write(&config, restfs_toml(&dir, port))?;
        let site = Self::with(lab, &description, service);
        let argv = [
            &site.restfs.display().to_string(),
            "serve",
            "--config",
            &config.display().to_string(),
        ];
        let ready = ["x"];
        let _ = (argv, ready);
        Ok(site)
    }

    pub(super) fn open(lab: &Path, description: &SiteDescription) -> Self {
        Self::with(lab, description, service(lab, &description.name))
    }

    /// Unix socket of the running server, for the admin commands.
    pub fn socket(&self) -> PathBuf {
        self.description.config.with_file_name("data").join("restfs.sock")
    }

    /// Restores the bucket, as of `point` or its newest, into the new directory `out`.
    pub fn restore(&self, point: Option<u64>, out: &Path) -> Result<()> {
        let at = point.map(|point| format!("@{point}")).unwrap_or_default();
        self.restfs(&["restore", &format!("{BUCKET}{at}"), &out.display().to_string()])
            .map(drop)
    }

    /// The newest recovery point.
    pub fn head(&self) -> Result<u64> {
        let answer = Rpc::connect(self)?.call("bucket.info", json!({ "bucket": BUCKET }))?;
        let info = answer.map_err(|error| anyhow!("bucket.info at {}: {error}", self.description.name))?;
        info.get("head")
            .and_then(Value::as_u64)
            .context("bucket.info without head")
    }

    /// Runs `restfs` on this site's data.
    pub fn restfs<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String> {
        let output = self.restfs_output(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "restfs at {}: {}",
            self.description.name,
            said.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn restfs_output<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Output> {
        let mut command = Command::new(&self.restfs);
        command
            .args(arguments.iter().map(AsRef::as_ref))
            .arg("--config")
            .arg(&self.description.config);
        command
            .output()
            .with_context(|| format!("run {}", self.restfs.display()))
    }

    fn with(lab: &Path, description: &SiteDescription, service: Service) -> Self {
        let dir = lab.join("sites").join(&description.name);
        Self {
            certificate: dir.join("tls/cert.pem"),
            token: dir.join("replicator.token"),
            restfs: Binaries::in_dir(&lab.join("bin")).restfs,
            description: description.clone(),
            service,
        }
    }
}

pub(super) fn export_argv(lab: &Path, binaries: &Binaries) -> Vec<String> {
    let config = lab.join("sites/{site}/restfs.toml");
    let words = [
        &*binaries.restfs.to_string_lossy(),
        "restore",
        "--config",
        &config.to_string_lossy(),
        BUCKET,
        "{out}",
    ];
    words.map(str::to_owned).to_vec()
}

fn restfs_toml(dir: &Path, port: u16) -> String {
    format!("data = {dir:?}\nlisten = \"127.0.0.1:{port}\"\n")
}
