//! Asks and tells a running vfsxd. Documented in `docs/vfsxd.md`.

mod client;
mod outcome;
mod progress;
mod table;

use clap::{Args, Parser, Subcommand};
use client::Client;
use outcome::Failure;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use vfsx_daemon::config::{DEFAULT_PATH, UnitError, control_socket, parse_duration};
use vfsx_daemon::control::Request;

/// How often `--watch` asks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Control of vfsxd. Exit code 0: done, 1: failed, 2: wrong usage.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// vfsxd's control socket; else the one that the configuration names.
    #[arg(long, global = true)]
    socket: Option<PathBuf>,
    /// vfsxd's configuration file.
    #[arg(long, global = true, default_value = DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows how each share and site is.
    Status {
        /// One JSON object.
        #[arg(long)]
        json: bool,
        /// Again every second, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// Waits until everything done on the share before now is committed at its sites.
    ///
    /// Speaks for captured changes: an open gap is warned about and does not make it fail.
    Settle {
        #[command(flatten)]
        target: Target,
        /// Gives up after this time, with exit code 1.
        #[arg(long, default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// Compares the share with what vfsxd knows of it, takes over what differs, and closes a gap. Clients work on.
    Sync {
        /// Only this share.
        #[arg(long)]
        share: Option<String>,
    },
    /// Ships nothing until `resume`, also after a restart. Changes are kept.
    Pause {
        #[command(flatten)]
        target: Target,
    },
    /// Ships again.
    Resume {
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Args)]
struct Target {
    /// Only this share.
    #[arg(long)]
    share: Option<String>,
    /// Only this site.
    #[arg(long)]
    site: Option<String>,
}

fn duration(text: &str) -> Result<Duration, UnitError> {
    parse_duration(text)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let socket = match &arguments.socket {
        Some(path) => path.clone(),
        None => control_socket(&arguments.config).map_err(|e| Failure::failed(e.to_string()))?,
    };
    match &arguments.command {
        Command::Status { json, watch } => status(&socket, *json, *watch),
        Command::Settle { target, timeout } => {
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            let (share, site) = (target.share.clone(), target.site.clone());
            act(
                &socket,
                &Request::Settle {
                    share,
                    site,
                    timeout_ms,
                },
            )
        }
        Command::Sync { share } => act(&socket, &Request::Sync { share: share.clone() }),
        Command::Pause { target } => act(
            &socket,
            &Request::Pause {
                share: target.share.clone(),
                site: target.site.clone(),
            },
        ),
        Command::Resume { target } => act(
            &socket,
            &Request::Resume {
                share: target.share.clone(),
                site: target.site.clone(),
            },
        ),
    }
}

fn status(socket: &Path, json: bool, watch: bool) -> Result<(), Failure> {
    loop {
        let report = Client::ask(socket, &Request::Status {})?.status()?;
        let text = if json {
            table::json(&report)?
        } else {
            table::human(&report)
        };
        outcome::print(&text, watch && !json)?;
        if !watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

fn act(socket: &Path, request: &Request) -> Result<(), Failure> {
    let mut shown = progress::Shown::new();
    let done = Client::ask(socket, request)?.outcome(|progress| shown.show(progress))?;
    drop(shown);
    outcome::tell(&done, matches!(request, Request::Pause { .. }))
}
