//! What a source does, and comparing trees.

use super::methods;
use crate::wire::bytes::Hex;
use crate::wire::values::{Op, RowKey, Time};
use serde::{Deserialize, Serialize};

methods! {
    ReplicationPosition = "replication.position": PositionParams => PositionResult;
    /// Blocks it names are made durable, then it is applied in one transaction; answered when that is durable.
    ReplicationCommit = "replication.commit": CommitParams => CommitResult;
    TreeDigest = "tree.digest": TreeDigestParams => TreeDigestResult;
    TreeGroups = "tree.groups": TreeGroupsParams => TreeGroupsResult;
    TreeRows = "tree.rows": TreeRowsParams => TreeRowsResult;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionParams {
    pub bucket: String,
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionResult {
    /// Absent: the bucket has nothing of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: u64,
    /// Last change committed.
    pub sequence: u64,
    /// The bucket's head.
    pub point: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitParams {
    pub bucket: String,
    pub source: String,
    pub epoch: u64,
    /// First and last change it covers. A part of a resync names its number, from 1, and the base; sources of older versions
    /// say 0 for the number.
    pub first: u64,
    pub last: u64,
    pub resync: bool,
    /// When the newest change in it was made, by the source's clock.
    pub time: Time,
    pub exact: bool,
    pub ops: Vec<Op>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitResult {
    pub point: u64,
    /// It was committed before; this is the point made then.
    pub repeated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeDigestParams {
    pub bucket: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDigestResult {
    pub digest: Hex<32>,
    /// The head it is of.
    pub point: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeGroupsParams {
    pub bucket: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    pub limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    pub group: u64,
    pub digest: Hex<32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeGroupsResult {
    /// In ascending order, without empty ones; fewer than `limit` only at the end.
    pub groups: Vec<GroupInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeRowsParams {
    pub bucket: String,
    pub group: u64,
    /// Rows after this one; absent: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RowKey>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowInfo {
    pub row: RowKey,
    pub digest: Hex<32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRowsResult {
    /// In ascending order of [`RowKey`].
    pub rows: Vec<RowInfo>,
    pub more: bool,
}
