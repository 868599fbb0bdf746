//! One recovery site: a restfs with its own data, certificate and token.

use super::description::SiteDescription;
use super::process::{Service, quote};
use super::{BUCKET, Binaries, Place, ports, service};
use crate::rpc::Rpc;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
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
    /// Makes configuration, certificate, bucket and the replicator's token as an admin does, and the start script.
    pub(super) fn prepare(lab: &Path, number: usize, binaries: &Binaries, place: &Place) -> Result<Self> {
        let name = format!("site{number}");
        let dir = lab.join("sites").join(&name);
        fs::create_dir_all(&dir)?;
        let port = ports::free()?;
        let service = service(lab, &name);
        let description = SiteDescription {
            name,
            url: format!("wss://{}:{port}", place.host()),
            config: dir.join("restfs.toml"),
            bucket: BUCKET.to_owned(),
            pid_file: service.pid_file.clone(),
            start: vec![service.start_script.display().to_string()],
            log: service.log.clone(),
        };
        let site = Self::with(lab, &description, service);
        place.make_data(&site.data_dir())?;
        site.init(place, port)?;
        let restfs = quote(&binaries.restfs.display().to_string());
        let ready = format!(
            "{restfs} --url {} bucket list",
            quote(&format!("unix://{}", site.socket().display()))
        );
        let config = description.config.display().to_string();
        let restfs = binaries.restfs.display().to_string();
        let argv = place.run([restfs, "serve".into(), "--config".into(), config]);
        site.service.write_script(&argv, &ready)?;
        Ok(site)
    }

    fn init(&self, place: &Place, port: u16) -> Result<()> {
        let data = self.data_dir().display().to_string();
        let (host, listen) = (place.host(), format!("{}:{port}", place.listens_on()));
        let arguments = [
            "init", "--json", "--data", &data, "--host", &host, "--bucket", BUCKET, "--listen", &listen,
        ];
        let made: Value = serde_json::from_str(&self.restfs(&arguments)?).context("answer of restfs init")?;
        let token = made
            .get("token")
            .and_then(Value::as_str)
            .context("restfs init gave no token")?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.token)?
            .write_all(token.as_bytes())?;
        Ok(())
    }

    pub(super) fn open(lab: &Path, description: &SiteDescription) -> Self {
        Self::with(lab, description, service(lab, &description.name))
    }

    /// Unix socket of the running server, for the admin commands.
    pub fn socket(&self) -> PathBuf {
        self.data_dir().join("restfs.sock")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.description.config.with_file_name("data")
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
