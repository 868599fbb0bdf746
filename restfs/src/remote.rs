//! A bucket at one point, read through the RPC: what a restore reads from, on this machine or another one.

use crate::restore::{ContentSource, Entry, Page, SourceError};
use bytes::Bytes;
use restfs_lib::client::{Client, ClientError};
use restfs_lib::model::{BlockKey, Object, ObjectId, Segment};
use restfs_lib::wire::Code;
use restfs_lib::wire::values::ObjectAt;
use std::future::Future;
use tokio::runtime::Handle;

pub struct Remote {
    client: Client,
    bucket: String,
    /// `None`: a bucket without commits, which is empty.
    point: Option<u64>,
    runtime: Handle,
}

impl Remote {
    /// `runtime` drives the client. The source's calls block, so they are not for its own threads.
    pub fn new(client: Client, bucket: String, point: Option<u64>, runtime: Handle) -> Self {
        Self {
            client,
            bucket,
            point,
            runtime,
        }
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> Result<T, SourceError> {
        self.runtime.block_on(call).map_err(source_error)
    }
}

impl ContentSource for Remote {
    fn resolve(&self, path: &[u8]) -> Result<ObjectId, SourceError> {
        let path = if path.starts_with(b"/") {
            path.to_vec()
        } else {
            [b"/", path].concat()
        };
        let found = self.wait(self.client.stat(&self.bucket, ObjectAt::path(path), self.point))?;
        Ok(ObjectId(found.id))
    }

    fn object(&self, id: ObjectId) -> Result<Object, SourceError> {
        let found = self.wait(self.client.stat(&self.bucket, ObjectAt::Id(id.0), self.point))?;
        Object::try_from(found.object).map_err(|error| SourceError::Damaged(error.message))
    }

    fn entries(&self, dir: ObjectId, after: Option<&[u8]>, limit: usize) -> Result<Page<Entry>, SourceError> {
        let at = ObjectAt::Id(dir.0);
        let (found, more) = self.wait(self.client.entries(&self.bucket, at, self.point, after, limit))?;
        let entry = |e: restfs_lib::client::Entry| Entry {
            name: e.name,
            child: e.id,
            object: e.object,
        };
        Ok(Page {
            items: found.into_iter().map(entry).collect(),
            more,
        })
    }

    fn attributes(&self, id: ObjectId) -> Result<Vec<(Vec<u8>, Vec<u8>)>, SourceError> {
        let found = self.wait(
            self.client
                .attributes(&self.bucket, ObjectAt::Id(id.0), self.point),
        )?;
        Ok(found
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect())
    }

    fn segments(&self, id: ObjectId, from: u64, limit: usize) -> Result<Page<(u64, Segment)>, SourceError> {
        let at = ObjectAt::Id(id.0);
        let (items, more) = self.wait(self.client.segments(&self.bucket, at, self.point, from, limit))?;
        Ok(Page { items, more })
    }

    fn block(&self, key: BlockKey) -> Result<Bytes, SourceError> {
        let blocks = self.wait(self.client.get_blocks(&[key]))?;
        blocks
            .into_iter()
            .next()
            .ok_or_else(|| SourceError::Missing(format!("block {key}")))
    }

    fn blocks(&self, keys: &[BlockKey]) -> Vec<Result<Bytes, SourceError>> {
        match self.runtime.block_on(self.client.get_blocks(keys)) {
            Ok(blocks) if blocks.len() == keys.len() => blocks.into_iter().map(Ok).collect(),
            // One bad block must not take the others with it.
            _ => keys.iter().map(|key| self.block(*key)).collect(),
        }
    }
}

fn source_error(error: ClientError) -> SourceError {
    match error {
        ClientError::Remote {
            code: Code::NotFound,
            message,
            ..
        } => match message.strip_suffix(" does not exist") {
            Some(what) => SourceError::Missing(what.to_owned()),
            None => SourceError::Damaged(message),
        },
        ClientError::Remote {
            code: Code::Corrupt,
            message,
            ..
        } => SourceError::Damaged(message),
        other => SourceError::Failed(other.to_string()),
    }
}
