//! `restfs token`.

use super::access::Access;
use super::output::{self, Output};
use anyhow::{Context, Result};
use clap::Subcommand;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::Role;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and show it, this once
    Create {
        /// For whom it is
        name: String,
        /// admin, replicator, writer or reader
        #[arg(long)]
        role: Role,
        /// The one bucket it is good for; without it, all
        #[arg(long)]
        bucket: Option<String>,
        /// Write it into this new file, readable by its owner only, instead of showing it
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List tokens, without their secrets
    List,
    /// Make a token useless, at once
    Revoke {
        /// As `token list` shows it
        id: String,
    },
}

impl TokenCommand {
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<()> {
        let client = access.client();
        match self {
            Self::Create {
                name,
                role,
                bucket,
                output,
            } => {
                let made = client
                    .call::<TokenCreate>(&TokenCreateParams { name, role, bucket })
                    .await?;
                let Some(path) = output else {
                    return out.show(&made, shown);
                };
                if let Err(error) = write_secret(&path, &made.token) {
                    // A token that nobody has is not left valid.
                    client
                        .call::<TokenRevoke>(&TokenRevokeParams { id: made.id })
                        .await?;
                    return Err(error);
                }
                let written = Written {
                    id: made.id,
                    file: path.display().to_string(),
                };
                out.show(&written, |w| format!("token {} is in {}\n", w.id, w.file))
            }
            Self::List => out.show(&client.call::<TokenList>(&NoParams {}).await?, |found| {
                many(&found.tokens)
            }),
            Self::Revoke { id } => {
                let text = format!("token {id} is revoked\n");
                let done = client.call::<TokenRevoke>(&TokenRevokeParams { id }).await?;
                out.show(&done, |_| text)
            }
        }
    }
}

#[derive(serde::Serialize)]
struct Written {
    id: String,
    file: String,
}

/// A new file that only its owner can read. An existing one is not touched.
pub(super) fn write_secret(path: &Path, secret: &str) -> Result<()> {
    create_secret(path, secret).with_context(|| format!("writing {}", path.display()))
}

fn create_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.trim_end().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn shown(made: &TokenCreateResult) -> String {
    let pairs = [("id", made.id.clone()), ("token", made.token.clone())];
    output::list(&pairs) + "Keep it now: it is not shown again.\n"
}

fn many(tokens: &[TokenInfo]) -> String {
    let row = |t: &TokenInfo| {
        let state = t
            .revoked
            .map_or("valid".to_owned(), |at| format!("revoked {}", output::time(at)));
        let bucket = t.bucket.clone().unwrap_or_else(|| "(all)".to_owned());
        vec![
            t.id.clone(),
            t.name.clone(),
            t.role.to_string(),
            bucket,
            output::time(t.created),
            state,
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    output::table(&["ID", "NAME", "ROLE", "BUCKET", "CREATED", "STATE"], &rows)
}
