//! Options of vfsxctl.

use crate::config::{DEFAULT_PATH, UnitError, parse_duration};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Control of vfsxd. Exit code 0: done, 1: failed, 2: wrong usage.
#[derive(Parser)]
#[command(name = "vfsxctl", version)]
pub struct Arguments {
    /// vfsxd's control socket; else the one that the configuration names.
    #[arg(long, global = true)]
    pub socket: Option<PathBuf>,
    /// vfsxd's configuration file.
    #[arg(long, global = true, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
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
pub struct Target {
    /// Only this share.
    #[arg(long)]
    pub share: Option<String>,
    /// Only this site.
    #[arg(long)]
    pub site: Option<String>,
}

fn duration(text: &str) -> Result<Duration, UnitError> {
    parse_duration(text)
}
