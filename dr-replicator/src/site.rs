//! Where changes go.

use async_trait::async_trait;
use bytes::Bytes;
use restfs_lib::model::{BlockKey, Digest, RowKey};

/// With `since`, the site may have its base; whether it has is for [`Site::put_blocks`] to find out.
pub use restfs_lib::client::Block;
/// The site refuses a hole between commits, and answers one that it has with the old point.
pub use restfs_lib::client::Commit;
pub use restfs_lib::client::Recounted;
/// What a site has of a source.
pub use restfs_lib::tree::commit::Position;
pub use restfs_lib::wire::method::BlockFault;

/// Most plain bytes in one [`Site::put_blocks`]: well below the largest message, so that a message is not long in the
/// way of the next.
pub const MAX_PUT_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub point: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Try again later; the connection is gone.
    #[error("unreachable: {0}")]
    Unreachable(String),
    #[error("the site has no space left: {0}")]
    Full(String),
    /// A newer epoch is in force, or the bucket was released: this source must not write any more.
    #[error("fenced by the site, which is at epoch {epoch}")]
    Fenced { epoch: u64 },
    /// The site's position is not the one this commit follows.
    #[error("the site is at change {sequence} of epoch {epoch}")]
    OutOfOrder { epoch: u64, sequence: u64 },
    /// The commit names blocks that the site does not have (the first of them).
    #[error("the site does not have all blocks of the commit")]
    MissingBlocks(Vec<BlockKey>),
    /// The commit's ops cannot be applied to the site's tree.
    #[error("the site cannot apply the changes: {0}")]
    Inapplicable(String),
    /// Refused for good: token, role, bucket, a limit. Needs a person.
    #[error("{0}")]
    Refused(String),
}

#[async_trait]
pub trait Site: Send + Sync + 'static {
    /// Connects when not connected. `None`: the site has nothing of this source.
    async fn position(&self, source: &str) -> Result<Option<Position>, SiteError>;

    /// Which of these blocks the site does not have. Any number.
    async fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>, SiteError>;

    /// Hands blocks over, at most [`MAX_PUT_BYTES`]; they are durable with the commit that names them. May be called
    /// several times at once. Returns the bytes they took on the wire.
    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<u64, SiteError>;

    /// Durable when it returns.
    async fn commit(&self, commit: &Commit) -> Result<Committed, SiteError>;

    async fn digest(&self) -> Result<Digest, SiteError>;
    /// In order, after `after`; fewer than `limit` only at the end.
    async fn groups(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, Digest)>, SiteError>;
    /// In the order of [`RowKey`], after `after`; fewer than `limit` only at the end.
    async fn rows(
        &self,
        group: u64,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, SiteError>;

    /// Has the site read these blocks from its disk; those that are no good. What it takes is about their bytes of reading
    /// there.
    async fn check_blocks(&self, keys: &[BlockKey]) -> Result<Vec<(BlockKey, BlockFault)>, SiteError>;
    /// Blocks that the site's tree names, now or at an earlier point, and that are lost there as far as it knows: by rising key
    /// after `after`; fewer than `limit` only at the end.
    async fn wanted(&self, after: Option<BlockKey>, limit: usize) -> Result<Vec<BlockKey>, SiteError>;
    /// A block's content, which is that of its key.
    async fn get_block(&self, key: BlockKey) -> Result<Bytes, SiteError>;
    /// Groups after `after`, in order, with what their rows add up to now, and whether there are more.
    async fn recount(&self, after: Option<u64>) -> Result<(Vec<Recounted>, bool), SiteError>;

    /// Bytes sent and received on the wire since the start, all connections.
    fn wire_bytes(&self) -> u64;
}
