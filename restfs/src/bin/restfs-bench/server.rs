//! Where the load goes.

use anyhow::{Context, Result};
use restfs_lib::client::{Client, Endpoint, Trust};
use restfs_lib::wire::Encoding;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Server {
    /// Server: ws://HOST:PORT, wss://HOST:PORT or unix:///PATH
    #[arg(long)]
    url: String,
    /// File with the token of a writer
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Certificate to trust with wss://
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// Bucket that takes the load
    #[arg(long)]
    pub(crate) bucket: String,
    #[arg(long, default_value = "bson")]
    encoding: Encoding,
}

impl Server {
    /// So many connections.
    pub(crate) async fn connect(&self, count: u64) -> Result<Vec<Client>> {
        let mut endpoint = Endpoint::new(&self.url)?;
        endpoint.encoding = self.encoding;
        if let Some(path) = &self.token_file {
            let token = std::fs::read_to_string(path)
                .with_context(|| format!("read token file {}", path.display()))?;
            endpoint = endpoint.with_token(token.trim());
        }
        if let Some(path) = &self.ca_file {
            endpoint.trust = Trust::CaFile(path.clone());
        }
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Client::connect(&endpoint).await?);
        }
        Ok(clients)
    }
}
