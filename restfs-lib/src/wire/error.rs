//! Errors of a call, as numbers that do not change.

use super::bytes::Hex;
use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// What kind of error. Negative ones are JSON-RPC's own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// `error.code` on the wire.
            pub fn number(self) -> i32 {
                match self { $(Self::$name => $number,)* }
            }

            /// Name in texts and logs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// A code this version does not know is an internal error of the other end.
            pub fn from_number(number: i32) -> Self {
                match number { $($number => Self::$name,)* _ => Self::Internal }
            }
        }
    };
}

codes! {
    /// The message is not JSON or BSON.
    Parse = -32700, "parse error";
    /// The message is no JSON-RPC 2.0 request.
    InvalidRequest = -32600, "invalid request";
    MethodNotFound = -32601, "method not found";
    /// A parameter is missing, unknown, of the wrong type or out of its bounds.
    InvalidParams = -32602, "invalid params";
    /// A fault of the server; its log says more.
    Internal = -32603, "internal error";
    /// No token, or not one of this server.
    Unauthorized = 1, "unauthorized";
    /// The token's role or bucket does not cover this.
    Forbidden = 2, "forbidden";
    NotFound = 3, "not found";
    Exists = 4, "exists";
    /// What is asked for makes no sense for the object as it is: a directory that is not empty, content of a directory.
    Invalid = 5, "invalid";
    /// The state does not allow it now: a replicated bucket edited by hand, another source's bucket.
    Conflict = 6, "conflict";
    /// A newer epoch is in force (`data.epoch`): this source must not write any more.
    Fenced = 7, "fenced";
    /// The commit does not follow the source's position (`data.epoch`, `data.sequence`).
    OutOfOrder = 8, "out of order";
    /// Blocks named by the commit are not in the store (`data.missing`, the first of them).
    MissingBlocks = 9, "missing blocks";
    /// No space left; nothing was stored. Succeeds when there is space again.
    Full = 10, "full";
    /// Stored data does not match its hash.
    Corrupt = 11, "corrupt";
    /// Over a limit of size or count.
    TooLarge = 12, "too large";
    /// The server ends or has too many connections; try again.
    Unavailable = 13, "unavailable";
}

/// The `error` member of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    pub code: Code,
    pub message: String,
    pub data: ErrorData,
}

/// Facts for programs. Absent ones do not apply.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorData {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Hex<32>>,
}

/// Keys that `data.missing` names at most.
pub const MAX_MISSING_NAMED: usize = 1024;

impl RpcError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: ErrorData::default(),
        }
    }

    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParams, message)
    }
}
