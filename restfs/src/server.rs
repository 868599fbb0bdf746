//! A running server: data directory, service, sockets.

use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::interface::{Certificate, Hub, Limits, ListenError, TlsError, bind_tcp, bind_unix};
use crate::service::Service;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Others may fill the disk, too.
const LOOK_AT_SPACE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("starting a thread: {0}; too many run on this machine")]
    Thread(std::io::Error),
}

pub struct Server {
    address: SocketAddr,
    socket: PathBuf,
    ending: watch::Sender<bool>,
    certificate: Option<Arc<Certificate>>,
    serving: JoinHandle<()>,
    cleaning: JoinHandle<()>,
    watching: JoinHandle<()>,
    upkeep: Arc<Service>,
    // Given up last: nobody else opens the stores before they are closed.
    data_dir: DataDir,
}

impl Server {
    /// Serves when it returns. Nothing of the network is touched before the data directory is known to be good.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let certificate = match &config.tls {
            Some(tls) => Some(Certificate::read(&tls.cert, &tls.key)?),
            None => None,
        };
        let tls = certificate.as_ref().map(Certificate::acceptor).transpose()?;
        let data_dir = DataDir::create(&config.data_dir)?;
        let service = data_dir.open(config)?;
        let tcp = bind_tcp(config.listen, tls).await?;
        let address = tcp.address().unwrap_or(config.listen);
        let socket = data_dir.socket();
        let unix = bind_unix(&socket)?;
        let (ending, watched) = watch::channel(false);
        let limits = Limits {
            connections: config.max_connections,
            memory: config.message_memory,
        };
        let hub = Hub::new(service.clone(), limits, watched);
        service.start_upkeep().map_err(StartError::Thread)?;
        let upkeep = service.clone();
        let watching = tokio::spawn(watch_space(service.clone()));
        let cleaning = tokio::spawn(finish_deletions(service));
        let serving = tokio::spawn(hub.serve(vec![tcp, unix]));
        Ok(Self {
            address,
            socket,
            ending,
            certificate,
            serving,
            cleaning,
            watching,
            upkeep,
            data_dir,
        })
    }

    /// Where it listens; the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads the certificate again, for new connections. After an error the old one stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.certificate
            .as_ref()
            .map_or(Ok(()), |certificate| certificate.reload())
    }

    /// Takes no more calls, finishes those under way, closes the stores.
    pub async fn stop(self) {
        self.ending.send_replace(true);
        if let Err(error) = self.serving.await {
            tracing::error!("the server broke off: {error}");
        }
        // Goes on at the next start.
        for task in [self.cleaning, self.watching] {
            task.abort();
            let _ = task.await;
        }
        self.upkeep.end().await;
        drop(self.upkeep);
        let _ = std::fs::remove_file(&self.socket);
        drop(self.data_dir);
    }
}

async fn watch_space(service: Arc<Service>) {
    loop {
        // Of the metadata in the kernel's memory: it takes microseconds.
        service.watch_space();
        tokio::time::sleep(LOOK_AT_SPACE).await;
    }
}

/// Rows of buckets that were being deleted, and of points that were being purged, when the last run ended.
async fn finish_deletions(service: Arc<Service>) {
    if let Err(error) = service.purge_deleted().await {
        tracing::error!("removing the rows of deleted buckets: {error}");
    }
    service.finish_purges().await;
}
