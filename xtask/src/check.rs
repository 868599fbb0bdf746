//! `cargo xtask test`: everything that says whether the project is sound.

use crate::build::{self, Profile, cargo};
use crate::{packages, rights};
use anyhow::Result;

/// Crate whose tests run smbd and so need root.
const END_TO_END: &str = "vfsx-tests";

pub fn run() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    build::prepare()?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "xtask/pages",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ])?;
    build::everything(Profile::Dev)?;
    if rights::is_root() {
        return cargo(&["test", "--workspace", "--no-fail-fast"]);
    }
    cargo(&["test", "--workspace", "--exclude", END_TO_END, "--no-fail-fast"])?;
    let runner = format!(
        "CARGO_TARGET_{}_RUNNER",
        host()?.to_uppercase().replace(['-', '.'], "_")
    );
    println!("$ cargo test --package {END_TO_END}, by sudo");
    let mut command = build::command();
    command
        .args(["test", "--package", END_TO_END, "--no-fail-fast"])
        .env(runner, "sudo");
    packages::run(&mut command, "the end-to-end tests")
}

/// The target triple of this machine's compiler.
fn host() -> Result<String> {
    let output = std::process::Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.unwrap_or_default().to_owned())
}
