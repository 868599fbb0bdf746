//! `cargo xtask bench`: the benchmarks, each beside its peers in the same run.

mod gc;
mod module;
mod process;
mod rpc;
mod site;

use crate::build::{self, Profile};
use crate::{packages, rights};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// A tenth of the load, fewer rounds.
    #[arg(long)]
    quick: bool,
    /// One of the benchmarks.
    #[arg(long, value_enum)]
    only: Option<Benchmark>,
    /// With `--only module`: only the loads in whose name this is, and no single operations. May be given more than once.
    #[arg(long, value_name = "PART OF A NAME")]
    load: Vec<String>,
    /// With `--only module`: only counts what smbd does for single operations, nothing by the clock. With `--load`: those of these loads.
    #[arg(long)]
    operations: bool,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Unoptimized programs: to try the command, not for figures.
    #[arg(long, hide = true)]
    dev: bool,
    /// The programs are built already.
    #[arg(long, hide = true)]
    built: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Requests of many clients at a RestFS server, beside redis.
    Rpc,
    /// Collections of blocks that nothing needs any more, beside clients that write.
    Gc,
    /// What the module costs a share, beside one without and one with full_audit.
    Module,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Figures {
    /// Its fields stand at the top.
    #[serde(flatten)]
    rpc: Option<rpc::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gc: Option<gc::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<module::Report>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let profile = if arguments.dev {
        Profile::Dev
    } else {
        Profile::Release
    };
    if (arguments.operations || !arguments.load.is_empty()) && arguments.only != Some(Benchmark::Module) {
        bail!("--load and --operations are for --only module");
    }
    let choice = module::Choice::new(arguments.quick, &arguments.load, arguments.operations)?;
    let wants = |benchmark| arguments.only.is_none_or(|only| only == benchmark);
    if !arguments.built {
        packages::ensure(&[rpc::PACKAGES, module::PACKAGES].concat())?;
        build::prepare()?;
        build::everything(profile)?;
    }
    if wants(Benchmark::Module) {
        rights::go_on_as_root("--built")?;
    }
    let figures = Figures {
        rpc: wants(Benchmark::Rpc)
            .then(|| rpc::run(arguments.quick, profile))
            .transpose()?,
        gc: wants(Benchmark::Gc)
            .then(|| gc::run(arguments.quick, profile))
            .transpose()?,
        module: wants(Benchmark::Module)
            .then(|| module::run(arguments.quick, &choice, profile))
            .transpose()?,
    };
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&figures)?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
