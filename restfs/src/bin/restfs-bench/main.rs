//! `restfs-bench`: loads for a RestFS server, and what it makes of them.

mod requests;
mod server;
mod writes;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "Loads for a RestFS server")]
struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Requests per second of many clients: attributes are set, then read
    Requests(requests::Arguments),
    /// Content that is written, and durable, per second
    Writes(writes::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().load {
        Load::Requests(arguments) => requests::run(&arguments).await,
        Load::Writes(arguments) => writes::run(&arguments).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
