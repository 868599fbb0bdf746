//! `cargo xtask bench`: the benchmarks, each beside its peers in the same run.

mod process;
mod rpc;

use crate::build::Profile;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// A tenth of the load.
    #[arg(long)]
    quick: bool,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Unoptimized programs: to try the command, not for figures.
    #[arg(long, hide = true)]
    dev: bool,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Figures {
    /// Its fields stand at the top.
    #[serde(flatten)]
    rpc: rpc::Report,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let profile = if arguments.dev {
        Profile::Dev
    } else {
        Profile::Release
    };
    let figures = Figures {
        rpc: rpc::run(arguments.quick, profile)?,
    };
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&figures)?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
