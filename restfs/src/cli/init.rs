//! `restfs init`: from nothing to a server that vfsxd can replicate to.

use super::Common;
use super::access::Access;
use super::output::Output;
use super::token::write_secret;
use crate::config::Config;
use crate::interface::fingerprint;
use anyhow::{Context, Result, bail};
use clap::Args;
use rcgen::{CertificateParams, DnType, KeyPair};
use restfs_lib::client::{Client, DEFAULT_PORT};
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::Role;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Where files and history are kept: a new or empty directory on a disk with room
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Names and addresses under which the primary reaches this machine; the first one is for vfsxd's URL
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Bucket to make, with a replicator's token
    #[arg(long, default_value = "data")]
    bucket: String,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)))]
    listen: SocketAddr,
}

/// What was made.
#[derive(serde::Serialize)]
struct Made {
    config: String,
    data_dir: String,
    cert: String,
    key: String,
    fingerprint: String,
    url: String,
    bucket: String,
    token: String,
}

impl Init {
    pub(super) async fn run(self, common: &Common, out: Output) -> Result<()> {
        if common.remote.url.is_some() {
            bail!("init: it works on this machine; leave --url out");
        }
        let config = std::path::absolute(&common.config)?;
        let data = std::path::absolute(&self.data)?;
        let folder = config.parent().context("--config has no folder")?;
        if config.exists() {
            bail!(
                "configuration {}: it exists; remove it, or choose another one with --config",
                config.display()
            );
        }
        make_folder(folder, 0o755)?;
        make_folder(&data, 0o700)?;
        let hosts = self.hosts();
        let (cert, key) = (folder.join("tls/cert.pem"), folder.join("tls/key.pem"));
        make_folder(&folder.join("tls"), 0o755)?;
        if cert.exists() && key.exists() {
            eprintln!("note: using the certificate that is there: {}", cert.display());
        } else {
            make_certificate(&hosts, &cert, &key)?;
        }
        let text = self.toml(&data, &cert, &key);
        let parsed = Config::parse(&text, &config)?;
        let access = Access::in_process(&parsed).await?;
        let token = make_bucket(access.client(), &self.bucket).await;
        access.close().await;
        let token = token?;
        // Last: with a configuration, everything else is there.
        write_new(&config, &text)?;
        let host = hosts.first().map_or("localhost", String::as_str);
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let fingerprint = hex::encode(fingerprint(&cert)?.0);
        let made = Made {
            config: config.display().to_string(),
            data_dir: data.display().to_string(),
            cert: cert.display().to_string(),
            key: key.display().to_string(),
            fingerprint,
            url: format!("wss://{host}:{}", self.listen.port()),
            bucket: self.bucket,
            token,
        };
        out.show(&made, guide)
    }

    /// Loopback too, for a first try on one machine.
    fn hosts(&self) -> Vec<String> {
        let mut hosts = self.host.clone();
        if hosts.is_empty() {
            let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
            hosts.push(own);
        }
        for loopback in ["localhost", "127.0.0.1", "::1"] {
            if !hosts.iter().any(|host| host == loopback) {
                hosts.push(loopback.to_owned());
            }
        }
        hosts
    }

    fn toml(&self, data: &Path, cert: &Path, key: &Path) -> String {
        let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
        format!(
            "# RestFS server: where the files are kept, where to listen, how it proves who it is.\n\
             data_dir = {}\n\
             listen = \"{}\"\n\
             \n\
             [tls]\n\
             cert = {}\n\
             key = {}\n",
            quoted(data),
            self.listen,
            quoted(cert),
            quoted(key)
        )
    }
}

async fn make_bucket(client: &Client, bucket: &str) -> Result<String> {
    let params = BucketCreateParams {
        bucket: bucket.to_owned(),
        layout: None,
    };
    client.call::<BucketCreate>(&params).await?;
    let params = TokenCreateParams {
        name: format!("replicator of {bucket}"),
        role: Role::Replicator,
        bucket: Some(bucket.to_owned()),
    };
    Ok(client.call::<TokenCreate>(&params).await?.token)
}

/// Signed by its own key; vfsxd knows it by its fingerprint.
fn make_certificate(hosts: &[String], cert: &Path, key: &Path) -> Result<()> {
    let mut params = CertificateParams::new(hosts.to_vec()).context("--host")?;
    params
        .distinguished_name
        .push(DnType::CommonName, hosts.first().map_or("restfs", String::as_str));
    let pair = KeyPair::generate().context("making a key")?;
    let certificate = params.self_signed(&pair).context("making a certificate")?;
    write_secret(key, &pair.serialize_pem())?;
    write_new(cert, &certificate.pem())
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("making the folder {}", path.display()))
}

/// Never over a file that is there.
fn write_new(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

fn guide(made: &Made) -> String {
    let Made {
        config,
        data_dir,
        cert,
        key,
        fingerprint,
        url,
        bucket,
        token,
    } = made;
    let name = url
        .trim_start_matches("wss://")
        .split([':', ']'])
        .next()
        .unwrap_or("site")
        .trim_start_matches('[');
    format!(
        "RestFS is set up.\n\
         \n\
         configuration  {config}\n\
         data           {data_dir}\n\
         certificate    {cert}\n\
         key            {key}\n\
         \n\
         Start it:\n\
         \n    restfs serve --config {config}\n\
         \n\
         On the primary, put this into /etc/vfsx/vfsxd.toml:\n\
         \n    [[site]]\n    name = \"{name}\"\n    url = \"{url}\"\n    bucket = \"{bucket}\"\n    \
         token_file = \"/etc/vfsx/{name}.token\"\n    fingerprint = \"{fingerprint}\"\n\
         \n\
         and this line into /etc/vfsx/{name}.token, readable by root only (it is not shown again):\n\
         \n    {token}\n"
    )
}
