//! `restfs`: the server and its commands.

use clap::Parser;
use restfs::cli::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(restfs::BLOCKING_THREADS)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(restfs::cli::main(arguments)),
        Err(error) => {
            eprintln!("error: starting threads: {error}; too many run on this machine");
            ExitCode::FAILURE
        }
    }
}
