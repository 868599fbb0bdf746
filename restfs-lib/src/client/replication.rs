//! Calls of a source, in the model's types.

use super::{Client, ClientError};
use crate::model::{Digest, Op, RowKey, Time};
use crate::tree::commit::Position;
use crate::wire::limits::MAX_PAGE;
use crate::wire::method::*;
use crate::wire::{Code, RpcError};
use std::sync::atomic::Ordering;

/// One commit of a source: one recovery point.
#[derive(Debug, Clone)]
pub struct Commit {
    pub source: String,
    pub epoch: u64,
    /// First and last change it covers. A part of a resync names its number, from 1, and the base.
    pub first: u64,
    pub last: u64,
    pub resync: bool,
    /// When the newest change in it was made, by the source's clock.
    pub time_ns: i64,
    pub exact: bool,
    pub ops: Vec<Op>,
}

impl Client {
    /// `None`: the bucket has nothing of this source. `point` is the bucket's head.
    pub async fn position(&self, bucket: &str, source: &str) -> Result<Option<Position>, ClientError> {
        let params = PositionParams {
            bucket: bucket.to_owned(),
            source: source.to_owned(),
        };
        let result = self.call::<ReplicationPosition>(&params).await?;
        Ok(result.position.map(|p| Position {
            epoch: p.epoch,
            sequence: p.sequence,
            point: p.point,
        }))
    }

    /// The recovery point it made, or made when it was sent the first time.
    pub async fn commit(&self, bucket: &str, commit: &Commit) -> Result<u64, ClientError> {
        let mut params = CommitParams {
            bucket: bucket.to_owned(),
            source: commit.source.clone(),
            epoch: commit.epoch,
            first: commit.first,
            last: commit.last,
            resync: commit.resync,
            time: Time::from_ns(commit.time_ns.into()).into(),
            exact: commit.exact,
            ops: commit.ops.iter().cloned().map(Into::into).collect(),
        };
        if !commit.resync || commit.first == 0 {
            return Ok(self.call::<ReplicationCommit>(&params).await?.point);
        }
        if !self.0.without_parts.load(Ordering::Relaxed) {
            match self.call::<ReplicationCommit>(&params).await {
                Err(error) if error.code() == Some(Code::InvalidParams) => {}
                result => return Ok(result?.point),
            }
        }
        // A server of an older version takes no number of a part. To others the rest is invalid again.
        params.first = 0;
        let result = self.call::<ReplicationCommit>(&params).await?;
        if !self.0.without_parts.swap(true, Ordering::Relaxed) {
            tracing::info!(
                url = self.url(),
                "the server is of a version that does not look at the order in which a comparison's parts come"
            );
        }
        Ok(result.point)
    }

    /// Digest of the bucket's head and its point.
    pub async fn digest(&self, bucket: &str) -> Result<(Digest, u64), ClientError> {
        let result = self
            .call::<TreeDigest>(&TreeDigestParams {
                bucket: bucket.to_owned(),
            })
            .await?;
        Ok((result.digest.into(), result.point))
    }

    /// Fewer than `limit` only at the end.
    pub async fn groups(
        &self,
        bucket: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Digest)>, ClientError> {
        let mut groups: Vec<(u64, Digest)> = Vec::new();
        while groups.len() < limit {
            let page = (limit - groups.len()).min(MAX_PAGE);
            let params = TreeGroupsParams {
                bucket: bucket.to_owned(),
                after: groups.last().map(|(group, _)| *group).or(after),
                limit: page as u32,
            };
            let found = self.call::<TreeGroups>(&params).await?.groups;
            let numbers = params.after.into_iter().chain(found.iter().map(|g| g.group));
            if found.len() > page || !numbers.is_sorted_by(|a, b| a < b) {
                return Err(self.odd("tree.groups: more than asked for, or out of order"));
            }
            let end = found.len() < page;
            groups.extend(found.into_iter().map(|g| (g.group, g.digest.into())));
            if end {
                break;
            }
        }
        Ok(groups)
    }

    /// Rows of a group after `after`; fewer than `limit` only at the end.
    pub async fn rows(
        &self,
        bucket: &str,
        group: u64,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, ClientError> {
        let mut rows: Vec<(RowKey, Digest)> = Vec::new();
        while rows.len() < limit {
            let last = rows.last().map(|(row, _)| row.clone()).or_else(|| after.clone());
            let params = TreeRowsParams {
                bucket: bucket.to_owned(),
                group,
                after: last.map(Into::into),
                limit: (limit - rows.len()).min(MAX_PAGE) as u32,
            };
            let result = self.call::<TreeRows>(&params).await?;
            if result.rows.is_empty() && result.more {
                return Err(self.odd("tree.rows: more rows promised, none sent"));
            }
            for row in result.rows {
                let key: RowKey = row.row.try_into().map_err(|e: RpcError| self.odd(&e.message))?;
                // A list that goes round would never end.
                let before = rows.last().map(|(row, _)| row).or(after.as_ref());
                if rows.len() == limit || before.is_some_and(|before| *before >= key) {
                    return Err(self.odd("tree.rows: more than asked for, or out of order"));
                }
                rows.push((key, row.digest.into()));
            }
            if !result.more {
                break;
            }
        }
        Ok(rows)
    }

    pub(super) fn odd(&self, reason: &str) -> ClientError {
        ClientError::Protocol {
            url: self.url().to_owned(),
            reason: reason.to_owned(),
        }
    }
}
