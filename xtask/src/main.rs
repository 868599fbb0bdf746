//! Project commands: what a person with the checkout runs.

// A program has no outside: `pub` says what the other modules may use.
#![allow(unreachable_pub)]

mod bench;
mod build;
mod check;
mod demo;
mod fuzz;
mod install;
mod lab;
mod mode;
mod packages;
mod parity;
mod report;
mod rights;
mod samba_headers;
mod smb_client;
mod thrash;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Project commands",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the whole way of the data on this machine: share, changes, recovery site, restore, comparison.
    ///
    /// Installs missing packages, builds, starts a private smbd, vfsxd and restfs on loopback, copies a tree in with
    /// real clients, changes it, restores the replica and compares everything. The last line of the output is one
    /// JSON object. Exit code 0 only when the replica is identical.
    Demo(demo::Arguments),
    /// Installs what is missing, builds and runs every test: format, lints, unit, end to end on a real smbd.
    Test(check::Arguments),
    /// Starts a private stack in DIR and leaves it running; `DIR/lab.json` says where everything is.
    Lab(lab::Arguments),
    /// Runs the benchmarks, each beside its peers in the same run, and prints a table.
    Bench(bench::Arguments),
    /// Runs Samba's own test suites on a share with the module and on one without, and shows every difference.
    ///
    /// Installs smbtorture, starts private labs, runs each test on the share with vfsx and on two without, and again where
    /// they differ; then compares the replica with the share. A test whose runs without vfsx differ is flaky and not judged.
    /// Exit code 0 only when no test differs and every replica is identical.
    Parity(parity::Arguments),
    /// Plays rounds in which servers are killed, links cut, disks filled and clocks set while clients work.
    ///
    /// Each round starts a private smbd, vfsxd and two recovery sites in network namespaces. Whatever the status said on the way must
    /// have been true, and in the end every site must be identical with the share. The state of a failed round is kept.
    /// The last line of the output is one JSON object. Exit code 0 only when no round failed.
    Thrash(thrash::Arguments),
    /// Gives every decoder bytes that nobody of ours would send, and looks for ones that break it.
    ///
    /// Builds the targets with coverage counted, which takes minutes the first time, and runs them one after another, or the one that
    /// is named. What is found on the way is kept beneath the target directory, so a later run goes on from there; an input that
    /// breaks a target is left in `fuzz/crashes` there. Exit code 0 only when there is none.
    Fuzz(fuzz::Arguments),
    /// Makes the headers of the installed Samba ready, which the module is built against.
    SambaHeaders,
    /// Installs the module, the programs, their units, manual pages, completions and example configurations.
    Install(install::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => check::run(&arguments),
        Command::Lab(arguments) => lab::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Parity(arguments) => parity::run(&arguments),
        Command::Thrash(arguments) => thrash::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::SambaHeaders => samba_headers::ensure().map(|dir| println!("{}", dir.display())),
        Command::Install(arguments) => install::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", report::one_line(&error));
            ExitCode::FAILURE
        }
    }
}
