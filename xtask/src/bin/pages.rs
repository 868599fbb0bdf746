//! `pages DIR`: manual pages and shell completions of every program, made from its own options, in DIR as they belong
//! into PREFIX/share. A program of its own, so that `cargo xtask` need not build what it describes.

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let out = PathBuf::from(std::env::args_os().nth(1).context("usage: pages DIR")?);
    for command in commands() {
        manual(&out, &command)?;
        completions(&out, command)?;
    }
    Ok(())
}

fn commands() -> [Command; 3] {
    [
        restfs::cli::Arguments::command(),
        vfsx_daemon::cli::vfsxctl::Arguments::command(),
        vfsx_daemon::cli::vfsxd::Arguments::command(),
    ]
}

/// One page for the program and one for each of its commands.
fn manual(out: &Path, command: &Command) -> Result<()> {
    let dir = out.join("man/man1");
    fs::create_dir_all(&dir)?;
    clap_mangen::generate_to(command.clone(), &dir).with_context(|| format!("write {}", dir.display()))
}

fn completions(out: &Path, command: Command) -> Result<()> {
    for (shell, dir) in [
        (Shell::Bash, "bash-completion/completions"),
        (Shell::Zsh, "zsh/site-functions"),
        (Shell::Fish, "fish/vendor_completions.d"),
    ] {
        let dir = out.join(dir);
        fs::create_dir_all(&dir)?;
        let (mut command, name) = (command.clone(), command.get_name().to_owned());
        let file = match shell {
            Shell::Bash => name.clone(),
            Shell::Zsh => format!("_{name}"),
            _ => format!("{name}.fish"),
        };
        let mut content = Vec::new();
        clap_complete::generate(shell, &mut command, name, &mut content);
        fs::write(dir.join(&file), content).with_context(|| format!("write {file}"))?;
    }
    Ok(())
}
