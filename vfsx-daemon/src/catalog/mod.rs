//! The catalog of a share: the RestFS tree as of the journal's applied records, and the log of its changes.
//!
//! `Catalog` is what the rest of vfsxd sees. One applier thread owns all writes; readers read the share's files and hand it
//! what they found; a scan compares the share with the catalog. Drawn in `docs/architecture.md`, bytes in
//! `docs/formats/catalog.md`.

mod options;
mod status;

pub use options::{CatalogError, Options, RecordSource, RecordsError};
pub use status::{Gap, ScanProgress, ScanState, SiteStatus, Status};

use async_trait::async_trait;
use dr_replicator::{Batch, BatchLimits, ChangeSource, Cursor, ReadBlock, SourceError};
use restfs_lib::model::{BlockRef, Digest, ObjectId, Op, RowKey};
use std::sync::Arc;
use tokio::sync::watch;

/// A share's catalog. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {}

impl Catalog {
    /// Opens or creates the catalog. Nothing is read from the journal yet; a new catalog wants a scan.
    pub fn open(options: Options) -> Result<Self, CatalogError> {
        let _ = options;
        unimplemented!()
    }

    /// Starts the applier, the readers and, when one is wanted, the scan.
    pub fn start(&self, records: Arc<dyn RecordSource>) -> Result<(), CatalogError> {
        let _ = records;
        unimplemented!()
    }

    /// Ends all threads after the batch they are at. What is not done is taken up at the next start.
    pub fn stop(&self) {
        unimplemented!()
    }

    /// Highest journal sequence whose records are in the catalog durably: the journal may drop them.
    pub fn applied(&self) -> u64 {
        unimplemented!()
    }

    pub fn status(&self) -> Status {
        unimplemented!()
    }

    /// `None`: the site has no cursor yet.
    pub fn site(&self, site: &str) -> Result<Option<SiteStatus>, CatalogError> {
        let _ = site;
        unimplemented!()
    }

    /// Asks for a comparison of the whole share with the catalog; one that runs already is followed by another. Returns
    /// the value that `ScanProgress::finished` has when the scan asked for has ended.
    pub fn request_scan(&self) -> Result<u64, CatalogError> {
        unimplemented!()
    }

    /// Changes after every transaction of the catalog, cursors included: wait on it, then ask `status` or `site`.
    pub fn progress(&self) -> watch::Receiver<u64> {
        unimplemented!()
    }
}

#[async_trait]
impl ChangeSource for Catalog {
    fn source_id(&self) -> String {
        unimplemented!()
    }

    fn head(&self) -> watch::Receiver<u64> {
        unimplemented!()
    }

    async fn changes(&self, _after: u64, _limits: BatchLimits) -> Result<Batch, SourceError> {
        unimplemented!()
    }

    async fn read_block(
        &self,
        _object: ObjectId,
        _segment: u64,
        _position: u32,
        _expected: BlockRef,
    ) -> Result<ReadBlock, SourceError> {
        unimplemented!()
    }

    async fn load_cursor(&self, _site: &str) -> Result<Option<Cursor>, SourceError> {
        unimplemented!()
    }

    async fn save_cursor(&self, _site: &str, _cursor: Cursor) -> Result<(), SourceError> {
        unimplemented!()
    }

    async fn digest(&self) -> Result<(u64, Digest), SourceError> {
        unimplemented!()
    }

    async fn groups(&self, _after: Option<u64>, _limit: usize) -> Result<Vec<(u64, Digest)>, SourceError> {
        unimplemented!()
    }

    async fn rows(
        &self,
        _group: u64,
        _after: Option<RowKey>,
        _limit: usize,
    ) -> Result<Vec<(RowKey, Digest)>, SourceError> {
        unimplemented!()
    }

    async fn ops_for(&self, _rows: Vec<RowKey>) -> Result<Vec<Op>, SourceError> {
        unimplemented!()
    }
}
