//! A commit that has seen its blocks and not yet written its rows, with a collection in between: the one moment at which neither
//! sees what the other is about to do.

use crate::common::*;
use bytes::Bytes;
use restfs::auth::Identity;
use restfs::metadata::commits;
use restfs::service::{GcOptions, ScrubOptions, Service, Space, Upkeep};
use restfs::storage::fs::{FsStore, Options};
use restfs::storage::{
    BlockStore, CollectOptions, Collection, ScrubPosition, ScrubStep, StoreError, StoreStats,
};
use restfs_lib::model::{BlockKey, Compression};
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::ObjectAt;
use restfs_lib::wire::{Encoding, Payload, RpcError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a collection of a few blocks takes that nothing holds up.
const HELD: Duration = Duration::from_secs(3);

/// A store whose `flush` waits: a commit calls it between its look for the blocks and its rows.
struct Held {
    inner: FsStore,
    hold: AtomicBool,
    waiting: Mutex<bool>,
    changed: Condvar,
}

impl Held {
    fn until_somebody_waits(&self) {
        let waiting = self.waiting.lock().unwrap();
        let (waiting, _) = self
            .changed
            .wait_timeout_while(waiting, PATIENCE, |waiting| !*waiting)
            .unwrap();
        assert!(*waiting, "nobody came");
    }

    fn let_go(&self) {
        self.hold.store(false, Ordering::SeqCst);
        *self.waiting.lock().unwrap() = false;
        self.changed.notify_all();
    }
}

impl BlockStore for Held {
    fn put(&self, key: BlockKey, content: &[u8], compression: Compression) -> Result<(), StoreError> {
        self.inner.put(key, content, compression)
    }

    fn flush(&self) -> Result<(), StoreError> {
        if self.hold.load(Ordering::SeqCst) {
            let mut waiting = self.waiting.lock().unwrap();
            *waiting = true;
            self.changed.notify_all();
            drop(
                self.changed
                    .wait_timeout_while(waiting, PATIENCE, |waiting| *waiting)
                    .unwrap(),
            );
        }
        self.inner.flush()
    }

    fn get(&self, key: BlockKey) -> Result<Bytes, StoreError> {
        self.inner.get(key)
    }

    fn check(&self, key: BlockKey) -> Result<u64, StoreError> {
        self.inner.check(key)
    }

    fn contains(&self, key: BlockKey) -> Result<bool, StoreError> {
        self.inner.contains(key)
    }

    fn missing(&self, keys: &[BlockKey]) -> Result<Vec<BlockKey>, StoreError> {
        self.inner.missing(keys)
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.inner.stats()
    }

    fn scrub(&self, from: ScrubPosition, budget: u64) -> Result<ScrubStep, StoreError> {
        self.inner.scrub(from, budget)
    }

    fn collect(&self, options: CollectOptions) -> Result<Box<dyn Collection>, StoreError> {
        self.inner.collect(options)
    }

    fn mark_lost(&self, key: BlockKey) -> Result<(), StoreError> {
        self.inner.mark_lost(key)
    }

    fn damages_found(&self) -> u64 {
        self.inner.damages_found()
    }
}

async fn call<M: Method>(service: &Arc<Service>, params: M::Params) -> Result<M::Result, RpcError> {
    let identity = Arc::new(Identity::local());
    let params = Payload::encode(Encoding::Bson, &params)?;
    service.call(&identity, M::NAME, params).await?.decode()
}

async fn put(service: &Arc<Service>, content: &[u8]) {
    let (key, bytes, _) = block(content);
    let put = BlockPutParams {
        blocks: vec![BlockContent {
            key: key.into(),
            length: u32::try_from(content.len()).unwrap(),
            compression: restfs_lib::wire::values::Compression::None,
            content: restfs_lib::wire::Content(bytes),
        }],
    };
    call::<BlockPut>(service, put).await.unwrap();
}

fn params(last: u64, ops: Vec<restfs_lib::model::Op>) -> CommitParams {
    CommitParams {
        bucket: BUCKET.to_owned(),
        source: SOURCE.to_owned(),
        epoch: 1,
        first: last,
        last,
        resync: false,
        time: restfs_lib::model::Time::from_ns(1).into(),
        exact: true,
        ops: ops.into_iter().map(Into::into).collect(),
    }
}

struct Rig {
    service: Arc<Service>,
    store: Arc<Held>,
    _dir: tempfile::TempDir,
}

/// A bucket, and a block that nobody names.
async fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let kv = Arc::new(commits::open(dir.path(), 1 << 20).unwrap());
    let store = Arc::new(Held {
        inner: FsStore::open(&dir.path().join("blocks"), &Options::default()).unwrap(),
        hold: AtomicBool::new(false),
        waiting: Mutex::default(),
        changed: Condvar::new(),
    });
    let upkeep = Upkeep::new(
        kv.clone(),
        dir.path(),
        ScrubOptions::default(),
        GcOptions::default(),
    );
    let space = Space::new(dir.path(), NO_RESERVE);
    let service = Service::new(kv, store.clone(), upkeep, space).unwrap();
    let create = BucketCreateParams {
        bucket: BUCKET.to_owned(),
        layout: None,
    };
    call::<BucketCreate>(&service, create).await.unwrap();
    put(&service, b"never named").await;
    Rig {
        service,
        store,
        _dir: dir,
    }
}

impl Rig {
    /// A collection begins when `change` has its blocks and not its rows, and `change` goes on when the collection had time to go
    /// wrong. Then `/late` has its content, and only what nobody names has gone.
    async fn collect_in_the_middle_of<M: Method>(self, change: M::Params)
    where
        M::Params: 'static,
    {
        let Self { service, store, .. } = &self;
        store.inner.flush().unwrap();
        store.hold.store(true, Ordering::SeqCst);
        let changing = tokio::spawn({
            let service = service.clone();
            async move { call::<M>(&service, change).await.map(drop) }
        });
        let waited = store.clone();
        tokio::task::spawn_blocking(move || waited.until_somebody_waits())
            .await
            .unwrap();
        let now = GcStartParams {
            rate: Some(0),
            grace: Some(0),
            dry_run: false,
        };
        call::<GcStart>(service, now).await.unwrap();
        // It cannot come to its end as long as the change is where it is.
        let until = Instant::now() + HELD;
        while Instant::now() < until && self.status().await.running.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        store.let_go();
        changing.await.unwrap().unwrap();
        let until = Instant::now() + PATIENCE;
        let ended = loop {
            let status = self.status().await;
            if status.running.is_none() {
                break status;
            }
            assert!(Instant::now() < until, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(ended.last.unwrap().removed_blocks, 1);
        let read = ObjectReadParams {
            bucket: BUCKET.to_owned(),
            object: ObjectAt::path("/late"),
            point: None,
            offset: 0,
            length: 100,
        };
        assert_eq!(
            call::<ObjectRead>(service, read).await.unwrap().content.0,
            "named"
        );
        self.service.end().await;
    }

    async fn status(&self) -> GcStatusResult {
        call::<GcStatus>(&self.service, NoParams {}).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_waits_for_commits_that_have_seen_their_blocks() {
    let rig = rig().await;
    put(&rig.service, b"named").await;
    let mut ops = vec![root()];
    ops.extend(file(2, "late", b"named"));
    rig.collect_in_the_middle_of::<ReplicationCommit>(params(1, ops))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_waits_for_edits_that_have_stored_their_content() {
    let rig = rig().await;
    let edits = |edit| BucketApplyParams {
        bucket: BUCKET.to_owned(),
        edits: vec![edit],
    };
    let create = Edit::Create {
        path: "/late".into(),
        mode: 0o600,
    };
    call::<BucketApply>(&rig.service, edits(create)).await.unwrap();
    let write = Edit::Write {
        object: ObjectAt::path("/late"),
        offset: 0,
        content: restfs_lib::wire::Content(Bytes::from_static(b"named")),
    };
    rig.collect_in_the_middle_of::<BucketApply>(edits(write)).await;
}
