//! Asks and tells a running vfsxd. Documented in `docs/vfsxd.md`.

mod client;
mod outcome;
mod progress;
mod table;
mod verify;

use clap::Parser;
use client::Client;
use outcome::Failure;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use vfsx_daemon::cli::vfsxctl::{Arguments, Command};
use vfsx_daemon::config::control_socket;
use vfsx_daemon::control::Request;

/// How often `--watch` asks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

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
        Command::Reconcile { share } => act(&socket, &Request::Sync { share: share.clone() }),
        Command::Verify {
            share,
            deep,
            repair,
            site,
            rate,
            json,
        } => {
            let request = Request::Verify {
                share: share.clone(),
                site: site.clone(),
                deep: *deep,
                repair: *repair,
                rate: rate.map(|rate| rate.0),
            };
            verify::run(&socket, &request, *json)
        }
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
