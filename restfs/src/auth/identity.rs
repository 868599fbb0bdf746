//! Who is asking.

use restfs_lib::model::BucketId;
use restfs_lib::wire::values::Role;
use restfs_lib::wire::{Code, RpcError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Any token.
    Nothing,
    /// Reads a bucket, or blocks.
    Read,
    /// Edits a bucket by hand.
    Write,
    /// Commits of a source, and its blocks.
    Replicate,
    /// Buckets and tokens themselves.
    Administer,
}

#[derive(Debug, Clone)]
pub struct Identity {
    /// The token's name, or `local`.
    pub name: String,
    pub role: Role,
    /// The one bucket it is good for.
    pub bucket: Option<BucketId>,
    /// Cleared when its token is revoked, so that open connections end with it.
    pub(super) live: Arc<AtomicBool>,
}

impl Identity {
    /// Root or the server's own user, on its Unix socket or in its process.
    pub fn local() -> Self {
        Self {
            name: "local".to_owned(),
            role: Role::Admin,
            bucket: None,
            live: Arc::new(AtomicBool::new(true)),
        }
    }

    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// By role alone; [`Self::check_bucket`] looks at the bucket.
    pub fn check(&self, need: Need) -> Result<(), RpcError> {
        if !self.is_live() {
            return Err(RpcError::new(
                Code::Unauthorized,
                format!("token `{}` has been revoked", self.name),
            ));
        }
        if allows(self.role, need) {
            return Ok(());
        }
        let text = format!(
            "token `{}` has the role {}, which may not do this",
            self.name, self.role
        );
        Err(RpcError::new(Code::Forbidden, text))
    }

    /// `None`: there is no such bucket, which a token bound to another one does not learn.
    pub fn check_bucket(&self, bucket: Option<BucketId>, name: &str) -> Result<(), RpcError> {
        match self.bucket {
            Some(own) if bucket != Some(own) => {
                let text = format!("token `{}` is not good for bucket `{name}`", self.name);
                Err(RpcError::new(Code::Forbidden, text))
            }
            _ => Ok(()),
        }
    }
}

fn allows(role: Role, need: Need) -> bool {
    match need {
        Need::Nothing | Need::Read => true,
        Need::Write => matches!(role, Role::Admin | Role::Writer),
        Need::Replicate => matches!(role, Role::Admin | Role::Replicator),
        Need::Administer => role == Role::Admin,
    }
}
