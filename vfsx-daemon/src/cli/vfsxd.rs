//! Options of vfsxd.

use crate::config::DEFAULT_PATH;
use clap::Parser;
use std::path::PathBuf;

/// Takes in what clients change on Samba shares and ships it to recovery sites.
#[derive(Parser)]
#[command(name = "vfsxd", version)]
pub struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Holds the process id while vfsxd is ready.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Log filter, as `info` or `vfsx_daemon=debug`; else RUST_LOG, else `log` of the configuration, else `info`.
    #[arg(long)]
    pub log: Option<String>,
    /// Logs as lines of JSON.
    #[arg(long)]
    pub log_json: bool,
    /// Checks the configuration, prints its warnings, and ends.
    #[arg(long)]
    pub check: bool,
}
