//! What can go wrong, sorted by what the caller does about it.

use crate::wire::{Code, ErrorData, RpcError};

#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// Cannot be used as written; a person has to correct the configuration.
    #[error("{0}")]
    Endpoint(String),
    /// No connection, or it broke; try again later. Whether a call under way was carried out is unknown.
    #[error("{url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The server is not the one expected.
    #[error("{url}: TLS: {reason}")]
    Tls { url: String, reason: String },
    /// No token, or not a good one.
    #[error("{url}: the server refuses the token: {reason}")]
    Unauthorized { url: String, reason: String },
    /// It answers, but not as a RestFS server does.
    #[error("{url}: {reason}")]
    Protocol { url: String, reason: String },
    /// No answer in time. Whether the call was carried out is unknown.
    #[error("{url}: no answer to {method} within {seconds} s")]
    Timeout {
        url: String,
        method: &'static str,
        seconds: u64,
    },
    /// The server's answer to this call.
    #[error("{method}: {message}")]
    Remote {
        method: &'static str,
        code: Code,
        message: String,
        data: ErrorData,
    },
    /// The call does not fit into a message; nothing was sent.
    #[error("{method}: {reason}")]
    TooLarge { method: &'static str, reason: String },
}

impl ClientError {
    /// The server's code, when it was the server that answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Remote { code, .. } => Some(*code),
            Self::Unauthorized { .. } => Some(Code::Unauthorized),
            _ => None,
        }
    }

    /// The same call may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Remote { code, .. } => matches!(code, Code::Full | Code::Unavailable | Code::Internal),
            _ => false,
        }
    }

    pub(super) fn remote(method: &'static str, error: RpcError) -> Self {
        Self::Remote {
            method,
            code: error.code,
            message: error.message,
            data: error.data,
        }
    }
}
