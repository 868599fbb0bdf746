//! A bucket of a RestFS server as a site.

use crate::site::{Block, BlockFault, Commit, Committed, Position, Recounted, Site, SiteError};
use async_trait::async_trait;
use bytes::Bytes;
use restfs_lib::client::{Client, ClientError, Endpoint, WireCount};
use restfs_lib::model::{BlockKey, Digest, ObjectId, RowKey};
use restfs_lib::wire::{Code, ErrorData};
use tokio::sync::Mutex;

/// One connection with many calls under way. It is made when it is first needed, and again when it has broken.
pub struct RestfsSite {
    endpoint: Endpoint,
    bucket: String,
    wire: WireCount,
    /// Held while connecting, so that calls at the same time share one attempt.
    client: Mutex<Option<Client>>,
}

impl RestfsSite {
    /// Does not connect yet.
    pub fn new(mut endpoint: Endpoint, bucket: impl Into<String>) -> Self {
        let wire = endpoint.wire.part();
        endpoint.wire = wire.clone();
        Self {
            endpoint,
            bucket: bucket.into(),
            wire,
            client: Mutex::new(None),
        }
    }

    /// Where the site has an object that this end does not know. `None`: it has none, or without a name.
    pub async fn path_of(&self, id: ObjectId) -> Result<Option<Vec<u8>>, SiteError> {
        Ok(self.client().await?.path_of(&self.bucket, id).await?)
    }

    async fn client(&self) -> Result<Client, SiteError> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = Box::pin(Client::connect(&self.endpoint)).await?;
        tracing::info!(url = client.url(), bucket = self.bucket, "connected");
        Ok(kept.insert(client).clone())
    }
}

#[async_trait]
impl Site for RestfsSite {
    async fn position(&self, source: &str) -> Result<Option<Position>, SiteError> {
        Ok(self.client().await?.position(&self.bucket, source).await?)
    }

    async fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>, SiteError> {
        Ok(self.client().await?.missing(keys).await?)
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<u64, SiteError> {
        Ok(self.client().await?.put_blocks(blocks).await?)
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, SiteError> {
        match self.client().await?.commit(&self.bucket, commit).await {
            Ok(point) => Ok(Committed { point }),
            Err(ClientError::Remote {
                code: Code::Invalid,
                message,
                ..
            }) => Err(SiteError::Inapplicable(message)),
            Err(error) => Err(error.into()),
        }
    }

    async fn digest(&self) -> Result<Digest, SiteError> {
        let (digest, _point) = self.client().await?.digest(&self.bucket).await?;
        Ok(digest)
    }

    async fn groups(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, Digest)>, SiteError> {
        Ok(self.client().await?.groups(&self.bucket, after, limit).await?)
    }

    async fn rows(
        &self,
        group: u64,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, SiteError> {
        Ok(self
            .client()
            .await?
            .rows(&self.bucket, group, after, limit)
            .await?)
    }

    async fn check_blocks(&self, keys: &[BlockKey]) -> Result<Vec<(BlockKey, BlockFault)>, SiteError> {
        Ok(self.client().await?.check_blocks(keys).await?)
    }

    async fn wanted(&self, after: Option<BlockKey>, limit: usize) -> Result<Vec<BlockKey>, SiteError> {
        Ok(self.client().await?.wanted(&self.bucket, after, limit).await?)
    }

    async fn get_block(&self, key: BlockKey) -> Result<Bytes, SiteError> {
        let got = self.client().await?.get_blocks(&[key]).await?;
        let none = || SiteError::Refused(format!("block {key} was promised and did not come"));
        got.into_iter().next().ok_or_else(none)
    }

    async fn recount(&self, after: Option<u64>) -> Result<(Vec<Recounted>, bool), SiteError> {
        Ok(self.client().await?.recount(&self.bucket, after).await?)
    }

    fn wire_bytes(&self) -> u64 {
        self.wire.total()
    }
}

impl From<ClientError> for SiteError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } | ClientError::Timeout { .. } => {
                Self::Unreachable(error.to_string())
            }
            ClientError::Endpoint(_)
            | ClientError::Tls { .. }
            | ClientError::Unauthorized { .. }
            | ClientError::Protocol { .. }
            | ClientError::TooLarge { .. } => Self::Refused(error.to_string()),
            ClientError::Remote {
                code,
                ref data,
                ref message,
                ..
            } => answered(code, data, message).unwrap_or_else(|| Self::Refused(error.to_string())),
        }
    }
}

/// What the server's error means. `None`: a person is needed.
fn answered(code: Code, data: &ErrorData, message: &str) -> Option<SiteError> {
    match code {
        Code::Full => Some(SiteError::Full(message.to_owned())),
        Code::Unavailable => Some(SiteError::Unreachable(message.to_owned())),
        Code::Fenced => Some(SiteError::Fenced {
            epoch: data.epoch.unwrap_or(0),
        }),
        Code::OutOfOrder => Some(SiteError::OutOfOrder {
            epoch: data.epoch.unwrap_or(0),
            sequence: data.sequence.unwrap_or(0),
        }),
        Code::MissingBlocks => Some(SiteError::MissingBlocks(
            data.missing.iter().map(|key| BlockKey(key.0)).collect(),
        )),
        Code::Parse
        | Code::InvalidRequest
        | Code::MethodNotFound
        | Code::InvalidParams
        | Code::Internal
        | Code::Unauthorized
        | Code::Forbidden
        | Code::NotFound
        | Code::Exists
        | Code::Invalid
        | Code::Conflict
        | Code::Corrupt
        | Code::TooLarge => None,
    }
}

#[cfg(test)]
mod tests;
