//! Options of vfsxctl.

use crate::config::{DEFAULT_PATH, UnitError, parse_duration, parse_rate};
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
    ///
    /// Metadata only: content is read of what differs. vfsxd does the same by itself, as [reconcile] of its configuration says.
    #[command(visible_alias = "sync")]
    Reconcile {
        /// Only this share.
        #[arg(long)]
        share: Option<String>,
    },
    /// Tells whether the share and its sites are the same: 0 when they are, 1 when anything differs, which is listed by path.
    ///
    /// Compares what vfsxd knows of the share with what the sites have, in seconds. Clients work on. What they change
    /// meanwhile is looked at again, and is no difference.
    Verify {
        /// Only this share.
        share: Option<String>,
        /// Reads the share's files and every block of the sites again: what nothing has told of, and what went bad on a
        /// disk, is found by that alone.
        #[arg(long)]
        deep: bool,
        /// Mends what differs, then looks again: 0 when nothing is left. What the share holds counts; what a site had before stays
        /// in its history.
        #[arg(long)]
        repair: bool,
        /// Only this site.
        #[arg(long)]
        site: Option<String>,
        /// Bytes per second that --deep reads, here and at each site, as 50MB/s; `none`: as fast as it goes. Else as
        /// configured.
        #[arg(long, value_parser = rate)]
        rate: Option<Rate>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
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

/// 0: none.
#[derive(Debug, Clone, Copy)]
pub struct Rate(pub u64);

fn rate(text: &str) -> Result<Rate, UnitError> {
    Ok(Rate(parse_rate(text)?.map_or(0, std::num::NonZeroU64::get)))
}

fn duration(text: &str) -> Result<Duration, UnitError> {
    parse_duration(text)
}
