//! Errors of the block store as errors of a call.

use crate::storage::StoreError;
use restfs_lib::wire::{Code, RpcError};

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Full { .. } => Code::Full,
            StoreError::Corrupt { .. } => Code::Corrupt,
            StoreError::Missing(_) => Code::NotFound,
            StoreError::WrongKey { .. } => Code::InvalidParams,
            StoreError::TooLong(_) => Code::TooLarge,
            StoreError::Failed(_)
            | StoreError::Collecting
            | StoreError::Locked(_)
            | StoreError::Format(_)
            | StoreError::Io { .. }
            | StoreError::Index { .. } => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}
