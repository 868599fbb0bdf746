//! `cargo xtask lab`: the private stack, left running.

use crate::build::{self, Profile};
use crate::mode::Mode;
use crate::rights;
use anyhow::{Result, ensure};
use std::path::PathBuf;
use vfsx_tests::lab::{self, LAB_JSON, Lab, LabOptions};

#[derive(clap::Args)]
pub struct Arguments {
    /// Directory of the lab; must be new or empty.
    dir: PathBuf,
    /// End the lab that runs in DIR. Its files stay.
    #[arg(long, conflicts_with_all = ["sites", "mode", "vfs_objects", "no_vfsxd"])]
    stop: bool,
    /// Number of recovery sites.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    sites: u16,
    /// How the module reports writes.
    #[arg(long, value_enum, default_value_t = Mode::Map)]
    mode: Mode,
    /// `vfs objects` of share `data`; `vfsx` stands for the module just built.
    #[arg(long, default_value = "vfsx")]
    vfs_objects: String,
    /// Do not start vfsxd: start it later by the `start` command in lab.json.
    #[arg(long)]
    no_vfsxd: bool,
    /// The programs are built already.
    #[arg(long, hide = true)]
    built: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.stop {
        rights::go_on_as_root("--built")?;
        return Lab::open(&arguments.dir)?.stop();
    }
    let has_module = arguments
        .vfs_objects
        .split_whitespace()
        .any(|word| word == "vfsx");
    ensure!(
        has_module,
        "--vfs-objects {:?} lacks vfsx: add the word where it belongs",
        arguments.vfs_objects
    );
    lab::check_unused(&arguments.dir)?;
    if !arguments.built {
        build::prepare()?;
        build::everything(Profile::Release)?;
    }
    rights::go_on_as_root("--built")?;
    let mut options = LabOptions::new(build::binaries(Profile::Release)?);
    options.sites = usize::from(arguments.sites);
    options.samba.vfs_objects = arguments.vfs_objects.clone();
    options.samba.mode = arguments.mode.into();
    options.vfsxd = !arguments.no_vfsxd;
    let lab = Lab::start(&arguments.dir, &options)?;
    println!("{}", lab.dir().join(LAB_JSON).display());
    Ok(())
}
