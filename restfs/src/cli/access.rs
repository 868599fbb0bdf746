//! How a command reaches the data: a server by URL, the one of this machine by its socket, or, when none runs, the data
//! directory itself. All three are the same RPC.

use super::Common;
use crate::config::Config;
use crate::data_dir::{DataDir, socket_of};
use crate::interface::{Hub, Limits, serve_local};
use crate::service::Service;
use anyhow::{Context, Result, anyhow, bail};
use restfs_lib::client::{Client, ClientError, Endpoint, Trust, Url};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes in the pipe to a service in this process.
const PIPE: usize = 1024 * 1024;

pub(super) struct Access {
    client: Client,
    local: Option<Local>,
}

/// The service of a data directory that no server runs on.
struct Local {
    ending: watch::Sender<bool>,
    serving: JoinHandle<()>,
    service: Arc<Service>,
    _data_dir: DataDir,
}

impl Access {
    pub(super) async fn open(common: &Common) -> Result<Self> {
        if let Some(url) = &common.remote.url {
            let client = Client::connect(&remote(common, url)?).await?;
            return Ok(Self { client, local: None });
        }
        let config = Config::read(&common.config)?;
        match running(&config.data_dir).await? {
            Some(client) => Ok(Self { client, local: None }),
            None => Self::in_process(&config).await,
        }
    }

    /// Opens the data directory, which nobody else uses as long as this lives.
    pub(super) async fn in_process(config: &Config) -> Result<Self> {
        let data_dir = DataDir::create(&config.data_dir)?;
        let service = data_dir.open(config)?;
        let (ending, watched) = watch::channel(false);
        let limits = Limits {
            connections: 1,
            memory: config.message_memory,
        };
        let hub = Hub::new(service.clone(), limits, watched);
        let (near, far) = tokio::io::duplex(PIPE);
        let serving = tokio::spawn(serve_local(hub, far));
        let endpoint = unix_endpoint(&data_dir.socket());
        let client = Client::over(near, &endpoint).await?;
        Ok(Self {
            client,
            local: Some(Local {
                ending,
                serving,
                service,
                _data_dir: data_dir,
            }),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Finishes what is under way and closes the stores.
    pub(super) async fn close(self) {
        drop(self.client);
        if let Some(local) = self.local {
            local.ending.send_replace(true);
            let _ = local.serving.await;
            local.service.end().await;
        }
    }
}

/// The server that runs on this data directory.
async fn running(data_dir: &Path) -> Result<Option<Client>> {
    let socket = socket_of(data_dir);
    // Asked first, since the client's error has no kind.
    match tokio::net::UnixStream::connect(&socket).await {
        Ok(_) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!(
                "socket {}: {error}; run this as root or as the user that runs restfs",
                socket.display()
            );
        }
        Err(error) => return Err(anyhow!(error).context(format!("socket {}", socket.display()))),
    }
    match Client::connect(&unix_endpoint(&socket)).await {
        Ok(client) => Ok(Some(client)),
        Err(ClientError::Unauthorized { .. }) => {
            bail!(
                "socket {}: it is for root and the user that runs restfs; run this as one of them",
                socket.display()
            )
        }
        Err(error) => Err(error.into()),
    }
}

fn unix_endpoint(socket: &Path) -> Endpoint {
    Endpoint {
        url: Url::Unix(socket.to_owned()),
        token: None,
        trust: Trust::Nobody,
        encoding: Default::default(),
        limits: Default::default(),
        wire: Default::default(),
    }
}

fn remote(common: &Common, url: &str) -> Result<Endpoint> {
    let mut endpoint = Endpoint::new(url)?;
    endpoint.token = match &common.remote.token_file {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("token file {}", path.display()))?;
            Some(text.trim().to_owned())
        }
        None => common.remote.token.clone(),
    };
    endpoint.trust = match (&common.remote.ca_file, &common.remote.fingerprint) {
        (Some(path), _) => Trust::CaFile(path.clone()),
        (None, Some(text)) => Trust::from_fingerprint(text)?,
        (None, None) => Trust::Nobody,
    };
    Ok(endpoint)
}
