//! `restfs serve`.

use super::Common;
use crate::BLOCKING_THREADS;
use crate::config::Config;
use crate::server::Server;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use restfs_lib::client::may_be_logged;
use restfs_lib::manager::{self, Watchdog};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Local connections, packs, the commit log.
const FILES_BESIDE: u64 = 512;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Write the process id into this file once the server is ready, and remove it at the end
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

impl Serve {
    pub(super) async fn run(self, common: &Common) -> Result<()> {
        let config = Config::read(&common.config)?;
        let level = common.log.as_deref().or(config.log.level.as_deref());
        start_log(level, "info", config.log.json)?;
        raise_open_files(config.max_connections);
        let mut terminate = signal(SignalKind::terminate()).context("signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
        let mut hangup = signal(SignalKind::hangup()).context("signals")?;
        let server = Server::start(&config).await?;
        let pid_file = self.pid_file.as_deref().map(PidFile::write).transpose()?;
        tracing::info!(
            address = %server.address(),
            tls = config.tls.is_some(),
            data_dir = %config.data_dir.display(),
            "ready"
        );
        manager::ready();
        let mut watchdog = Watchdog::from_environment();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => reload(&server),
                () = watchdog.tell() => {}
            }
        }
        tracing::info!("ending");
        manager::stopping();
        server.stop().await;
        drop(pid_file);
        Ok(())
    }
}

/// Each connection takes one, and each thread that reads the database two.
fn raise_open_files(connections: usize) {
    let needed = (connections + 2 * BLOCKING_THREADS) as u64 + FILES_BESIDE;
    match manager::raise_open_files() {
        Ok(Some(most)) if most < needed => tracing::warn!(
            "{most} files may be open at once, which is too few for limits.connections = {connections}: raise LimitNOFILE to {needed}"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!("the limit of open files stays as it is: {error}"),
    }
}

/// Other changes of the configuration need a restart.
fn reload(server: &Server) {
    let _reload = manager::reloading();
    match server.reload() {
        Ok(()) => tracing::info!("the certificate was read again"),
        Err(error) => tracing::error!("the old certificate stays in use: {error}"),
    }
}

/// `level` wins over `RUST_LOG`, that over `default`.
pub(super) fn start_log(level: Option<&str>, default: &str, json: bool) -> Result<()> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let text = level
        .map(str::to_owned)
        .or(from_environment)
        .unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::try_new(&text)
        .map_err(|e| anyhow!("log level {text:?}: {e}; it is such as info or debug"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let secrets = filter_fn(may_be_logged);
    let started = match json {
        true => builder.json().finish().with(secrets).try_init(),
        false => builder.finish().with(secrets).try_init(),
    };
    started.map_err(|e| anyhow!("log: {e}"))
}

struct PidFile<'a>(&'a Path);

impl<'a> PidFile<'a> {
    fn write(path: &'a Path) -> Result<Self> {
        let text = format!("{}\n", std::process::id());
        std::fs::write(path, text).with_context(|| format!("pid file {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}
