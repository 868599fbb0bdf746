//! The daemon of the primary site. Documented in `docs/vfsxd.md`.

use anyhow::{Context, Result};
use clap::Parser;
use restfs_lib::client::may_be_logged;
use restfs_lib::manager::{self, Watchdog};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use vfsx_daemon::cli::vfsxd::Arguments;
use vfsx_daemon::config::Config;
use vfsx_daemon::control::ControlServer;
use vfsx_daemon::engine::Engine;
use vfsx_daemon::intake;
use vfsx_daemon::metrics::MetricsServer;

/// Its connection, and its memory.
const FILES_OF_A_SESSION: u64 = 2;
/// Journals, catalogs, files that are read, sites.
const FILES_BESIDE: u64 = 1024;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Outermost cause first. Most errors name their cause already.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.replace('\n', " ")
}

fn run(arguments: &Arguments) -> Result<()> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        for warning in &config.warnings {
            eprintln!("warning: {warning}");
        }
        return Ok(());
    }
    start_log(arguments, &config)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    prepare_process(config.sessions_max);
    // Before there are threads: it takes what it finds out of the environment.
    let handed_over = intake::handed_over(&config.socket)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(serve(arguments, config, handed_over))
}

fn start_log(arguments: &Arguments, config: &Config) -> Result<()> {
    let from_environment = std::env::var("RUST_LOG").ok();
    let chosen = arguments
        .log
        .clone()
        .or(from_environment)
        .or_else(|| config.log.clone());
    let text = chosen.unwrap_or_else(|| "info".into());
    let filter = EnvFilter::try_new(&text)
        .with_context(|| format!("log filter `{text}`: use a level such as info"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let secrets = filter_fn(may_be_logged);
    if arguments.log_json {
        log.json().finish().with(secrets).init()
    } else {
        log.with_ansi(false).finish().with(secrets).init()
    }
    Ok(())
}

/// Files are for this user only; each smbd process takes descriptors for each of its tree connects.
fn prepare_process(sessions_max: usize) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let needed = (sessions_max as u64) * FILES_OF_A_SESSION + FILES_BESIDE;
    match manager::raise_open_files() {
        Ok(Some(most)) if most < needed => tracing::warn!(
            "{most} files may be open at once, which is too few for sessions_max = {sessions_max}: raise LimitNOFILE to {needed}"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

async fn serve(arguments: &Arguments, mut config: Config, handed_over: Option<UnixListener>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut reload = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;

    let engine = Engine::start(&config, handed_over).await?;
    let control = ControlServer::start(&config.control, engine.shares())?;
    let metrics = match config.metrics {
        Some(address) => Some(MetricsServer::start(address, engine.shares()).await?),
        None => None,
    };
    if let Some(path) = &arguments.pid_file {
        write_pid(path)?;
    }
    manager::ready();
    tracing::info!(
        shares = config.shares.len(),
        sites = config.sites.len(),
        "vfsxd is ready"
    );
    let mut watchdog = Watchdog::from_environment();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => {
                let _reload = manager::reloading();
                config = reloaded(&engine, config, &arguments.config);
            }
            () = watchdog.tell() => {}
        }
    }
    tracing::info!("stopping");
    manager::stopping();
    drop((control, metrics));
    engine.stop().await;
    if let Some(path) = &arguments.pid_file {
        // One that stays behind names a process that is gone.
        let _ = std::fs::remove_file(path);
    }
    tracing::info!("stopped");
    Ok(())
}

/// The configuration in force after SIGHUP: the new one, or the old one when that cannot be taken.
fn reloaded(engine: &Engine, old: Config, path: &Path) -> Config {
    match Config::load(path) {
        Ok(new) => {
            for warning in &new.warnings {
                tracing::warn!("{warning}");
            }
            for line in engine.reload(&old, &new) {
                tracing::warn!("{line}");
            }
            tracing::info!("configuration read again: the sites' limits are in force");
            // What needs a restart stays as it was, so that the next reload says so again.
            Config {
                sites: with_limits_of(old.sites, &new),
                ..old
            }
        }
        Err(error) => {
            tracing::error!(%error, "the configuration in force stays");
            old
        }
    }
}

fn with_limits_of(mut sites: Vec<vfsx_daemon::config::Site>, new: &Config) -> Vec<vfsx_daemon::config::Site> {
    for site in &mut sites {
        if let Some(changed) = new.sites.iter().find(|other| other.name == site.name) {
            site.limit = changed.limit;
        }
    }
    sites
}

fn write_pid(path: &Path) -> Result<()> {
    std::fs::write(path, format!("{}\n", std::process::id()))
        .with_context(|| format!("pid file {} cannot be written", path.display()))
}
