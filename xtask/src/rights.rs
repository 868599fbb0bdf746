//! smbd and its shares' owners need root; building does not, and should not leave root's files behind.

use crate::packages;
use anyhow::{Result, bail};
use std::os::unix::process::CommandExt;

/// Goes on as root: returns when this process is root already, else runs this program again by sudo and never
/// returns. `extra` is added to the arguments, to say what has been done already.
pub fn go_on_as_root(extra: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let error = packages::as_root(program)
        .args(std::env::args_os().skip(1))
        .arg(extra)
        .exec();
    bail!("run as root by sudo: {error}: run this command as root")
}

pub fn is_root() -> bool {
    vfsx_tests::lab::is_root()
}
