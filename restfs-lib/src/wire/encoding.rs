//! The two encodings of a message, and values that are encoded already.

use super::error::{Code, RpcError};
use serde::{Serialize, de::DeserializeOwned};

/// How a connection's messages are encoded; agreed on as WebSocket subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// Text messages.
    Json,
    /// Binary messages: payloads travel as they are.
    #[default]
    Bson,
}

impl Encoding {
    pub const ALL: [Self; 2] = [Self::Bson, Self::Json];

    /// Value of `Sec-WebSocket-Protocol`.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "restfs.json",
            Self::Bson => "restfs.bson",
        }
    }

    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.subprotocol() == name)
    }
}

impl std::str::FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "bson" => Ok(Self::Bson),
            _ => Err(format!("unknown encoding `{text}`: it is `bson` or `json`")),
        }
    }
}

/// Params or a result, encoded. Always an object (JSON) or a document (BSON).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub(super) encoding: Encoding,
    pub(super) bytes: Vec<u8>,
}

impl Payload {
    pub fn encode<T: Serialize>(encoding: Encoding, value: &T) -> Result<Self, RpcError> {
        let bytes = match encoding {
            Encoding::Json => serde_json::to_vec(value).map_err(unencodable)?,
            Encoding::Bson => bson::serialize_to_vec(value).map_err(unencodable)?,
        };
        Ok(Self { encoding, bytes })
    }

    /// An error names the field.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        match self.encoding {
            // By name only: an array would make the order of members part of the interface.
            Encoding::Json if !self.bytes.starts_with(b"{") => {
                Err(RpcError::invalid_params("params must be an object"))
            }
            Encoding::Json => serde_json::from_slice(&self.bytes).map_err(undecodable),
            Encoding::Bson => bson::deserialize_from_slice(&self.bytes).map_err(undecodable),
        }
    }

    pub fn empty(encoding: Encoding) -> Self {
        let bytes = match encoding {
            Encoding::Json => b"{}".to_vec(),
            Encoding::Bson => vec![5, 0, 0, 0, 0],
        };
        Self { encoding, bytes }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Encoded length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn unencodable(error: impl std::fmt::Display) -> RpcError {
    RpcError::new(Code::Internal, format!("value cannot be encoded: {error}"))
}

fn undecodable(error: impl std::fmt::Display) -> RpcError {
    RpcError::new(Code::InvalidParams, error.to_string())
}
