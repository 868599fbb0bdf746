//! Where changes come from.

use async_trait::async_trait;
use bytes::Bytes;
use restfs_lib::content::Difference;
use restfs_lib::model::{BlockRef, Digest, ObjectId, Op, RowKey};

/// One change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Place in the change log: 1, 2, 3 ...
    pub sequence: u64,
    /// Journal sequence of the event it came from.
    pub journal: u64,
    /// When the event was noted, nanoseconds since the epoch.
    pub time_ns: i64,
    pub op: Op,
    /// Of an op that puts blocks: position -> how the block differs from the one that was there before. Where nothing is
    /// said, nothing is known.
    pub since: Vec<(u32, Difference)>,
}

#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub max_ops: usize,
    /// Plain bytes of blocks the batch may name.
    pub max_bytes: u64,
    /// It is to be committed: where the source has exact states it ends in one, in the first when the other limits leave room
    /// for none, and is empty when there is none yet.
    pub whole: bool,
    /// States before this change are not exact at the site: it may have newer content.
    pub trusted_from: u64,
}

impl BatchLimits {
    /// To look at the log.
    pub fn of_log(max_ops: usize) -> Self {
        Self {
            max_ops,
            max_bytes: u64::MAX,
            whole: false,
            trusted_from: 0,
        }
    }
}

/// Changes in order, without holes.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// No file had unread dirty ranges when the batch was taken, so it ends in one moment's state.
    pub exact: bool,
    /// Of the states on the way to its end none is to be seen: it is one commit.
    pub whole: bool,
}

/// Content of a block at the source, as of now.
#[derive(Debug, Clone)]
pub enum ReadBlock {
    /// The content the change log speaks of.
    Same(Bytes),
    /// The file has changed since; the catalog now says this, and this is what to ship.
    Newer(BlockRef, Bytes),
    /// The position is a hole by now.
    Hole,
    /// The object is gone: a later change says so.
    Gone,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The change log no longer reaches back to this sequence.
    #[error("the change log starts at {oldest}, change {asked} is gone")]
    TooOld { asked: u64, oldest: u64 },
    #[error("{0}")]
    Failed(String),
    /// Its own disk has no space.
    #[error("{0}")]
    Full(String),
}

#[async_trait]
pub trait ChangeSource: Send + Sync + 'static {
    /// Random name of this source (128 bits in hex), made with its catalog.
    fn source_id(&self) -> String;

    /// Sequence of the newest change; changes whenever there is more to ship.
    fn head(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Changes after `after`; empty when there are none.
    async fn changes(&self, after: u64, limits: BatchLimits) -> Result<Batch, SourceError>;

    /// Sequence of the newest change that is in the log, whether it is to be shipped yet or not.
    async fn newest(&self) -> Result<u64, SourceError>;

    /// The site cannot be given an exact state, since content that these name is not there any more: it has been tried for a
    /// while.
    fn cannot_follow(&self, site: &str);

    /// Content of block `position` of `segment`; `expected` is what the change named.
    async fn read_block(
        &self,
        object: ObjectId,
        segment: u64,
        position: u32,
        expected: BlockRef,
    ) -> Result<ReadBlock, SourceError>;

    /// Where this site's shipping goes on after a restart of this end.
    async fn load_cursor(&self, site: &str) -> Result<Option<Cursor>, SourceError>;

    /// Called after a commit was acknowledged. What all cursors have passed may be dropped from the change log.
    async fn save_cursor(&self, site: &str, cursor: Cursor) -> Result<(), SourceError>;

    /// Digest of the whole tree as of now, with the change sequence it is the state of.
    async fn digest(&self) -> Result<(u64, Digest), SourceError>;

    /// Digests of the groups of the tree, in order, after `after`; fewer than `limit` only at the end.
    async fn groups(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, Digest)>, SourceError>;

    /// Digests of the rows of one group, in the order of [`RowKey`], after `after`; fewer than `limit` only at the end.
    async fn rows(
        &self,
        group: u64,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, SourceError>;

    /// One op for each row, in the same order, that makes it what it is now at the source: a drop for a row that is
    /// not there. The op of a segment row names every position of a segment (`Layout::segment_blocks`), holes
    /// included, so that no block of the site's stays where there is none here.
    async fn ops_for(&self, rows: Vec<RowKey>) -> Result<Vec<Op>, SourceError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// 0: the site is not in step, a resync by difference was begun and has not ended. The change log is needed
    /// from `sequence` on all the same.
    pub epoch: u64,
    /// Last change committed at the site.
    pub sequence: u64,
}
