//! What can be set for one site.

use std::num::NonZeroU64;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// Unique among the sites of a share: its cursor is kept under this name.
    pub name: String,
    /// Most bytes per second that blocks may take on the wire; `None` is no limit. Can be changed while it runs.
    pub limit: Option<NonZeroU64>,
    /// Messages with blocks, and reads of blocks, under way at once: 1 to 64.
    pub concurrency: usize,
    /// Most ops in a commit.
    pub max_ops: usize,
    /// Most plain bytes of blocks in a commit. A single change that names more is still shipped whole.
    pub max_bytes: u64,
    /// Starts paused.
    pub paused: bool,
    /// How long [`crate::SiteHandle::stop`] waits for the commit that is under way. Whatever happens to that one, the
    /// site's position tells at the next start.
    pub stop_within: Duration,
}

impl SiteOptions {
    /// Many ops amortize the site's fsync; a commit is one message, so it must stay well below the largest one.
    pub const DEFAULT_MAX_OPS: usize = 4096;
    /// What a site takes at most.
    pub const MOST_OPS: usize = restfs_lib::wire::limits::MAX_OPS;
    pub const DEFAULT_MAX_BYTES: u64 = 64 * 1024 * 1024;
    pub const DEFAULT_CONCURRENCY: usize = 8;
    pub const DEFAULT_STOP_WITHIN: Duration = Duration::from_secs(10);

    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            limit: None,
            concurrency: Self::DEFAULT_CONCURRENCY,
            max_ops: Self::DEFAULT_MAX_OPS,
            max_bytes: Self::DEFAULT_MAX_BYTES,
            paused: false,
            stop_within: Self::DEFAULT_STOP_WITHIN,
        }
    }
}
