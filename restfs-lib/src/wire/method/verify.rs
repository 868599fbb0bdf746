//! Checking what is stored, for a source that verifies its copy.

use super::{BlockKeys, TreeGroupsParams, methods};
use crate::wire::bytes::Hex;
use serde::{Deserialize, Serialize};

methods! {
    /// Reads blocks from the disk and checks each against its key. They are taken in the order given, at least one, until
    /// enough was read for one call.
    BlockCheck = "block.check": BlockKeys => BlockCheckResult;
    /// Blocks that a bucket names at any point and that are not here, or no good, as far as is known.
    BlockWanted = "block.wanted": BlockWantedParams => BlockWantedResult;
    /// Digests of groups as they are kept, beside what their rows add up to now.
    TreeRecount = "tree.recount": TreeGroupsParams => TreeRecountResult;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockWantedParams {
    pub bucket: String,
    /// Keys after this one; absent: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Hex<32>>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockWantedResult {
    /// In ascending order.
    pub keys: Vec<Hex<32>>,
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCheckResult {
    /// So many of the keys, from the first on, were checked: ask again for the others.
    pub checked: u32,
    pub faults: Vec<BlockFaultInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFaultInfo {
    pub key: Hex<32>,
    pub fault: BlockFault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockFault {
    Missing,
    /// It is there, and is not the key's content. Putting it heals it.
    Damaged,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRecountResult {
    /// In ascending order.
    pub groups: Vec<RecountedGroup>,
    pub more: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecountedGroup {
    pub group: u64,
    pub kept: Hex<32>,
    /// Sum over the rows.
    pub counted: Hex<32>,
}
