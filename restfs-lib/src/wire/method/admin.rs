//! The server, tokens, who is asking.

use super::{Done, NoParams, methods};
use crate::wire::values::{Role, Time};
use serde::{Deserialize, Serialize};

methods! {
    ServerInfo = "server.info": NoParams => ServerInfoResult;
    Whoami = "auth.whoami": NoParams => WhoamiResult;
    TokenCreate = "token.create": TokenCreateParams => TokenCreateResult;
    TokenList = "token.list": NoParams => TokenListResult;
    TokenRevoke = "token.revoke": TokenRevokeParams => Done;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfoResult {
    pub version: String,
    pub started: Time,
    pub blocks: u64,
    /// Content of all blocks, each once, uncompressed.
    pub plain_bytes: u64,
    /// The pack files.
    pub stored_bytes: u64,
    /// Blocks found damaged or gone, and not yet written anew.
    pub damaged_blocks: u64,
    /// Of the file system that has it all.
    #[serde(default)]
    pub free_bytes: u64,
    /// With less than this free, new content is refused.
    #[serde(default)]
    pub reserve_bytes: u64,
    /// With less than this free, the server warns.
    #[serde(default)]
    pub warn_bytes: u64,
    pub connections: u64,
    pub max_message: u64,
    pub max_ops: u64,
    pub max_blocks: u64,
    pub max_in_flight: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoamiResult {
    /// The token's name, or `local` on the Unix socket.
    pub name: String,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCreateParams {
    pub name: String,
    pub role: Role,
    /// The one bucket it is good for; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreateResult {
    pub id: String,
    /// Shown this once: the server keeps a hash.
    pub token: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    pub id: String,
    pub name: String,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    pub created: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenListResult {
    pub tokens: Vec<TokenInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRevokeParams {
    pub id: String,
}
