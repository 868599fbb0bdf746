//! Errors of the store and the tree as errors of a call.

use super::error::{Code, RpcError};
use crate::kv::KvError;
use crate::tree::TreeError;

impl From<KvError> for RpcError {
    fn from(error: KvError) -> Self {
        let code = match &error {
            KvError::Full(_) => Code::Full,
            KvError::Corrupt(_) | KvError::Format(_) => Code::Corrupt,
            KvError::KeyTooLong(_) | KvError::ValueTooLong(_) => Code::TooLarge,
            KvError::Conflict | KvError::Io(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<TreeError> for RpcError {
    fn from(error: TreeError) -> Self {
        let code = match error {
            TreeError::Kv(error) => return error.into(),
            TreeError::Corrupt(_) => Code::Corrupt,
            TreeError::Invalid(_) => Code::InvalidParams,
            TreeError::Structure(_) => Code::Invalid,
            TreeError::NoObject(_) | TreeError::NoBucket(_) | TreeError::NoPoint(_) => Code::NotFound,
            TreeError::BucketExists(_) => Code::Exists,
            TreeError::OldPoint { .. } => Code::Conflict,
        };
        Self::new(code, error.to_string())
    }
}
