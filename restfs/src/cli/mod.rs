//! Commands: `serve` and `init`, and those that call the RPC as any client does.

mod access;
mod bucket;
mod gc;
mod init;
mod look;
mod output;
mod purge;
mod rebuild;
mod restore;
mod scrub;
mod serve;
mod target;
mod token;

use access::Access;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use output::Output;
use restfs_lib::client::ClientError;
use std::path::PathBuf;
use std::process::ExitCode;
pub(crate) use target::fuzz as fuzz_target;

/// RestFS: keeps buckets of files with their whole history.
#[derive(Debug, Parser)]
#[command(name = "restfs", version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration of the server on this machine
    #[arg(long, global = true, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
    /// What to log on standard error, as in RUST_LOG: error, warn, info, debug, trace, or per module
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// A server on another machine, instead of the one of `--config`.
#[derive(Debug, Args)]
struct Remote {
    /// Server: wss://HOST[:PORT], ws://HOST[:PORT] or unix:///PATH
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// Token for `--url`; better in a file, where other users' `ps` does not show it
    #[arg(
        long,
        global = true,
        env = "RESTFS_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// File with the token for `--url`
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// PEM file with the server's certificate or its authority, for wss://
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// SHA-256 of the server's certificate, for wss://
    #[arg(long, global = true, value_name = "HEX", conflicts_with = "ca_file")]
    fingerprint: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM; SIGHUP reads the certificate again
    Serve(serve::Serve),
    /// Make configuration, certificate, bucket and token, and say what vfsxd needs
    Init(init::Init),
    /// Make, list, change and delete buckets
    #[command(subcommand)]
    Bucket(bucket::BucketCommand),
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List a directory: BUCKET[@POINT]:/PATH
    Ls(look::Ls),
    /// Show an object's properties and attributes: BUCKET[@POINT]:/PATH
    Stat(look::Stat),
    /// Write a file's content to standard output: BUCKET[@POINT]:/PATH
    Cat(look::Cat),
    /// List a bucket's recovery points, or a file's history: BUCKET[:/PATH]
    Log(look::Log),
    /// Restore a bucket as it was at a point into a directory
    Restore(restore::Restore),
    /// Make the metadata database anew from the commit log, with the server stopped
    Rebuild(rebuild::Rebuild),
    /// Read everything that is stored and check it; damaged blocks are asked for again
    Scrub(scrub::Scrub),
    /// Make recovery points below one unrestorable, to give back what only they need
    Purge(purge::Purge),
    /// Remove blocks that no file needs at any recovery point, and give their space back
    Gc(gc::Gc),
}

/// Runs the command; errors go to standard error as one line.
pub async fn main(arguments: Arguments) -> ExitCode {
    let Arguments { common, command } = arguments;
    match run(common, command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// What the server answers stands for itself; the method's name says nothing to who typed a command.
fn one_line(error: &anyhow::Error) -> String {
    let text = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Remote { message, .. }) => message.clone(),
        _ => chain(error),
    };
    // A library's text may have line breaks, and a server's whatever it likes.
    output::name(text.replace('\n', " ").as_bytes())
}

/// An error with its causes, but no cause that the text before has already told.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

async fn run(common: Common, command: Command) -> Result<ExitCode> {
    let out = Output { json: common.json };
    match command {
        Command::Serve(serve) => serve.run(&common).await?,
        Command::Init(init) => {
            log_quietly(&common)?;
            init.run(&common, out).await?;
        }
        Command::Bucket(command) => {
            with_server(&common, async |access| command.run(access, out).await).await?
        }
        Command::Token(command) => {
            with_server(&common, async |access| command.run(access, out).await).await?
        }
        Command::Ls(command) => with_server(&common, async |access| command.run(access, out).await).await?,
        Command::Stat(command) => with_server(&common, async |access| command.run(access, out).await).await?,
        Command::Cat(command) => with_server(&common, async |access| command.run(access).await).await?,
        Command::Log(command) => with_server(&common, async |access| command.run(access, out).await).await?,
        Command::Rebuild(rebuild) => {
            log_quietly(&common)?;
            rebuild.run(&common, out).await?;
        }
        Command::Purge(command) => {
            with_server(&common, async |access| command.run(access, out).await).await?
        }
        Command::Gc(command) => with_server(&common, async |access| command.run(access, out).await).await?,
        Command::Scrub(command) => {
            return with_server(&common, async |access| command.run(access, out).await).await;
        }
        Command::Restore(command) => {
            return with_server(&common, async |access| command.run(access, out).await).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn with_server<T>(common: &Common, work: impl AsyncFnOnce(&Access) -> Result<T>) -> Result<T> {
    log_quietly(common)?;
    let access = Access::open(common).await?;
    let result = work(&access).await;
    access.close().await;
    result
}

fn log_quietly(common: &Common) -> Result<()> {
    serve::start_log(common.log.as_deref(), "warn", false)
}
