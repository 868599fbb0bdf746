//! `restfs`: the server and its commands.

use clap::Parser;
use restfs::cli::Arguments;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    restfs::cli::main(Arguments::parse()).await
}
