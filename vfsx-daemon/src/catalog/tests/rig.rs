//! A share in a scratch directory, its catalog, and a journal that the test writes.

use crate::catalog::exclude::Exclude;
use crate::catalog::share::{Doubt, Type, now, see_raw as see};
use crate::catalog::store::{Key, NodeRow, StampRow, get, put};
use crate::catalog::{
    Catalog, NoSessions, Options, RecordSource, RecordsError, Sessions, SiteStatus, Status,
};
use crate::journal::{Body, DirRef, NodeKind, NodeRef, Range, Record, Session};
use dr_replicator::{Batch, BatchLimits, Change, ChangeSource, Cursor};
use restfs_lib::content::hash_block;
use restfs_lib::kv::{
    Kv, KvError, KvRead, KvTransaction, KvWrite, MemoryKv, Pair, SqliteKv, SqliteOptions, Synchronous,
};
use restfs_lib::model::{Digest, Kind, Object, ObjectId, Op};
use restfs_lib::tree::{self, History, Tree};
use rustix::fd::AsFd;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) const BLOCK: u64 = 4096;
const LONGEST_WAIT: Duration = Duration::from_secs(240);

/// A journal in memory.
#[derive(Default)]
pub(super) struct Fed {
    records: Mutex<Vec<Record>>,
    more: Condvar,
    /// Records that were lost before the next one.
    skipped: std::sync::atomic::AtomicU64,
}

impl RecordSource for Fed {
    fn read(&self, after: u64, limit: usize, wait: Duration) -> Result<Vec<Record>, RecordsError> {
        let records = self.records.lock().unwrap();
        let newest = |r: &Vec<Record>| r.last().map_or(0, |r| r.sequence);
        let (records, _) = self
            .more
            .wait_timeout_while(records, wait, |r| newest(r) <= after)
            .unwrap();
        let from = records.partition_point(|r| r.sequence <= after);
        Ok(records.iter().skip(from).take(limit).cloned().collect())
    }
}

impl Fed {
    /// A record of a call that began at this time.
    pub(super) fn feed(&self, session: u8, began_ns: u64, body: Body) {
        let mut records = self.records.lock().unwrap();
        let skipped = self.skipped.swap(0, std::sync::atomic::Ordering::Relaxed);
        let sequence = records.last().map_or(0, |r| r.sequence) + 1 + skipped;
        records.push(Record {
            sequence,
            time_ns: sequence as i64,
            session: Session([session; 16]),
            session_sequence: sequence,
            began_ns,
            body,
        });
        self.more.notify_all();
    }

    pub(super) fn newest(&self) -> u64 {
        self.records.lock().unwrap().last().map_or(0, |r| r.sequence)
    }
}

/// A store that may stop taking transactions at one of them: what a crash leaves behind.
struct Crashing {
    store: Arc<SqliteKv>,
    crash: Arc<Mutex<Option<(u64, bool)>>>,
}

impl Kv for Crashing {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
        self.store.read()
    }

    fn write(&self) -> Result<Box<dyn KvTransaction + '_>, KvError> {
        Ok(Box::new(CrashingWrite {
            txn: self.store.write()?,
            crash: &self.crash,
        }))
    }
}

struct CrashingWrite<'a> {
    txn: Box<dyn KvTransaction + 'a>,
    crash: &'a Mutex<Option<(u64, bool)>>,
}

impl KvRead for CrashingWrite<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.txn.get(key)
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        self.txn.scan(from, to, limit)
    }
}

impl KvWrite for CrashingWrite<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.txn.put(key, value)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), KvError> {
        self.txn.delete(key)
    }
}

impl KvTransaction for CrashingWrite<'_> {
    fn commit(self: Box<Self>) -> Result<(), KvError> {
        let mut crash = self.crash.lock().unwrap();
        match &mut *crash {
            None => return self.txn.commit(),
            Some((0, false)) => {}
            Some((0, happens)) => {
                *happens = false;
                self.txn.commit()?;
            }
            Some((left, _)) => {
                *left -= 1;
                return self.txn.commit();
            }
        }
        Err(KvError::Io("the power is gone".to_owned()))
    }
}

pub(super) struct Rig {
    options: Options,
    crash: Arc<Mutex<Option<(u64, bool)>>>,
    pub(super) share: TempDir,
    pub(super) state: TempDir,
    pub(super) fed: Arc<Fed>,
    pub(super) catalog: Catalog,
    sessions: Arc<dyn Sessions>,
}

pub(super) fn options(share: &Path, state: &Path) -> Options {
    let mut options = Options::new(
        share.to_owned(),
        state.join("catalog.db"),
        vec!["site".to_owned(), "other".to_owned()],
    );
    options.layout.block_size = BLOCK as u32;
    options.layout.segment_blocks = 4;
    options.flush_age = Duration::from_millis(20);
    options.grace = Duration::from_millis(200);
    options
}

impl Rig {
    /// An empty share, its first scan done.
    pub(super) fn new() -> Self {
        let rig = Self::with(|_| {});
        rig.settle();
        rig
    }

    /// A share with content, not waited for.
    pub(super) fn with(fill: impl FnOnce(&Path)) -> Self {
        Self::with_options(fill, |_| {})
    }

    pub(super) fn with_options(fill: impl FnOnce(&Path), change: impl FnOnce(&mut Options)) -> Self {
        Self::with_sessions(fill, change, |_| Arc::new(NoSessions))
    }

    pub(super) fn with_sessions(
        fill: impl FnOnce(&Path),
        change: impl FnOnce(&mut Options),
        sessions: impl FnOnce(&Arc<Fed>) -> Arc<dyn Sessions>,
    ) -> Self {
        let share = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        fill(share.path());
        past_the_tick();
        let crash = Arc::new(Mutex::new(None));
        let mut options = options(share.path(), state.path());
        change(&mut options);
        let catalog = open(&options, &crash);
        let fed = Arc::new(Fed::default());
        let sessions = sessions(&fed);
        catalog.start(fed.clone(), sessions.clone()).unwrap();
        let rig = Self {
            sessions,
            options,
            crash,
            share,
            state,
            fed,
            catalog,
        };
        // Holds the whole change log, so that it can be compared.
        rig.save_cursor("other", 0);
        rig
    }

    /// Begins anew with what is in the store.
    pub(super) fn restart(&mut self) {
        self.catalog.stop();
        *self.crash.lock().unwrap() = None;
        self.catalog = open(&self.options, &self.crash);
        self.catalog
            .start(self.fed.clone(), self.sessions.clone())
            .unwrap();
    }

    /// After so many transactions one fails, and all after it. `happens`: that one is in the store all the same.
    pub(super) fn crash_after(&self, commits: u64, happens: bool) {
        *self.crash.lock().unwrap() = Some((commits, happens));
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.share.path().join(path)
    }

    pub(super) fn node(&self, path: &str) -> NodeRef {
        node_of(&self.path(path))
    }

    /// A directory as the module would name it.
    pub(super) fn dir(&self, path: &str) -> DirRef {
        DirRef {
            node: self.node(path),
            path_hint: path.as_bytes().to_vec(),
        }
    }

    pub(super) fn feed(&self, body: Body) {
        self.feed_as(1, body);
    }

    pub(super) fn feed_as(&self, session: u8, body: Body) {
        self.fed.feed(session, 0, body);
    }

    pub(super) fn fed(&self) -> u64 {
        self.fed.newest()
    }

    pub(super) fn skip_records(&self, count: u64) {
        self.fed
            .skipped
            .store(count, std::sync::atomic::Ordering::Relaxed);
    }

    pub(super) fn created(&self, dir: &str, name: &str, kind: NodeKind) {
        let node = self.node(&join(dir, name));
        self.feed(Body::Create {
            dir: self.dir(dir),
            name: name.into(),
            node,
            kind,
        });
    }

    pub(super) fn written(&self, path: &str, range: std::ops::Range<u64>) {
        let node = self.node(path);
        let path_hint = path.as_bytes().to_vec();
        self.feed(Body::Opened {
            handle: 1,
            node,
            path_hint: path_hint.clone(),
        });
        let ranges = vec![Range {
            start: range.start,
            end: range.end,
        }];
        self.feed(Body::Dirty {
            handle: 1,
            node,
            path_hint,
            ranges,
            whole: false,
        });
        self.feed(Body::Closed { handle: 1, node });
    }

    /// Makes a file by way of a client.
    pub(super) fn make_file(&self, dir: &str, name: &str, content: &[u8]) {
        let path = join(dir, name);
        std::fs::write(self.path(&path), content).unwrap();
        self.created(dir, name, NodeKind::File);
        self.written(&path, 0..content.len() as u64);
    }

    pub(super) fn make_dir(&self, dir: &str, name: &str) {
        std::fs::create_dir(self.path(&join(dir, name))).unwrap();
        self.created(dir, name, NodeKind::Directory);
    }

    pub(super) fn write_at(&self, path: &str, offset: u64, content: &[u8]) {
        std::fs::File::options()
            .write(true)
            .open(self.path(path))
            .unwrap()
            .write_all_at(content, offset)
            .unwrap();
    }

    /// The object's row as it is in the store.
    pub(super) fn node_row(&self, path: &str) -> NodeRow {
        let id = self.id(path).unwrap();
        let kv = self.catalog.inner.shared.kv.read().unwrap();
        get(&*kv, &Key::Object(id)).unwrap().unwrap()
    }

    /// The catalog believes to have read the file as it is now.
    pub(super) fn believe(&self, path: &str, doubt: Doubt) {
        let id = self.id(path).unwrap();
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = std::fs::File::open(self.path(dir)).unwrap();
        let stamp = see(dir.as_fd(), name.as_bytes()).unwrap().unwrap().stamp;
        let row = NodeRow {
            stamp: StampRow::of(stamp, doubt),
            ..self.node_row(path)
        };
        let mut kv = self.catalog.inner.shared.kv.write().unwrap();
        put(&mut *kv, &Key::Object(id), &row).unwrap();
        kv.commit().unwrap();
    }

    pub(super) fn heal(&self) {
        *self.crash.lock().unwrap() = None;
    }

    pub(super) fn wait(&self, what: &str, done: impl Fn(&Status) -> bool) -> Status {
        let status = self.wait_for(what, |s| s.failed.is_some() || done(s));
        assert_eq!(status.failed, None);
        status
    }

    /// Waits also when transactions fail.
    pub(super) fn wait_for(&self, what: &str, done: impl Fn(&Status) -> bool) -> Status {
        let until = Instant::now() + LONGEST_WAIT;
        loop {
            let status = self.catalog.status();
            if done(&status) {
                return status;
            }
            assert!(Instant::now() < until, "waited in vain until {what}: {status:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// All records applied, everything read, nothing left to look at.
    pub(super) fn settle(&self) -> Status {
        let fed = self.fed();
        self.wait("the catalog is settled", |s| {
            s.applied == fed
                && s.covered == fed
                && s.dirty_objects == 0
                && s.pending_looks == 0
                && s.displaced == 0
                && s.scan.state == crate::catalog::ScanState::Done
        })
    }

    /// Settled, the same as the disk, and the changes make the same tree elsewhere.
    pub(super) fn check(&self) {
        self.settle();
        self.check_disk();
        self.check_changes();
    }

    pub(super) fn id(&self, path: &str) -> Option<ObjectId> {
        let kv = self.catalog.shared().kv.read().unwrap();
        Tree::head(&*kv, crate::catalog::applier::BUCKET)
            .resolve(path.as_bytes())
            .unwrap()
    }

    pub(super) fn site(&self, site: &str) -> Option<SiteStatus> {
        self.catalog.site(site).unwrap()
    }

    pub(super) fn save_cursor(&self, site: &str, sequence: u64) {
        let saved = self.catalog.save_cursor(site, Cursor { epoch: 1, sequence });
        block_on(saved).unwrap();
    }

    pub(super) fn changes(&self, after: u64) -> Vec<Change> {
        let limits = BatchLimits::of_log(1_000_000);
        block_on(self.catalog.changes(after, limits)).unwrap().changes
    }

    /// What a commit takes that is to be as small as can be.
    pub(super) fn batch(&self, after: u64, max_ops: usize, trusted_from: u64) -> Batch {
        let limits = BatchLimits {
            whole: true,
            trusted_from,
            ..BatchLimits::of_log(max_ops)
        };
        block_on(self.catalog.changes(after, limits)).unwrap()
    }

    /// Names that the catalog is to leave out from now on, after the scan that this makes.
    pub(super) fn exclude(&self, patterns: &str) {
        let since_ns = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
        self.catalog
            .set_exclude(patterns.into(), false, since_ns)
            .unwrap();
        self.settle();
    }

    /// But for names that are excluded.
    pub(super) fn check_disk(&self) {
        let exclude = Exclude::new(&self.catalog.exclude_row().unwrap());
        let kv = self.catalog.shared().kv.read().unwrap();
        let tree = Tree::head(&*kv, crate::catalog::applier::BUCKET);
        let mut seen = BTreeMap::new();
        check_dir(&tree, ObjectId::ROOT, self.share.path(), &exclude, &mut seen);
        assert_eq!(
            tree.totals().unwrap().objects,
            seen.len() as u64,
            "objects that are not on disk"
        );
    }

    /// Applying the change log to another tree makes the catalog's tree.
    pub(super) fn check_changes(&self) {
        let (_, expected) = block_on(self.catalog.digest()).unwrap();
        assert_eq!(replay(&self.changes(0)), expected);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.catalog.stop();
    }
}

fn open(options: &Options, crash: &Arc<Mutex<Option<(u64, bool)>>>) -> Catalog {
    let store = SqliteOptions {
        path: options.database.clone(),
        synchronous: Synchronous::Normal,
        cache_bytes: 1 << 20,
    };
    let store = Arc::new(SqliteKv::open(store).unwrap());
    Catalog::open_on(
        options.clone(),
        Box::new(Crashing {
            store,
            crash: Arc::clone(crash),
        }),
    )
    .unwrap()
}

fn replay(changes: &[Change]) -> Digest {
    let kv = MemoryKv::new();
    let mut txn = kv.write().unwrap();
    let bucket = tree::bucket::create(&mut *txn, "replica", Default::default(), 0)
        .unwrap()
        .id;
    for (point, change) in (1..).zip(changes) {
        check_bases(&Tree::head(&*txn, bucket), change);
        tree::apply(&mut *txn, bucket, point, History::Keep, &change.op).unwrap();
    }
    txn.commit().unwrap();
    let kv = kv.read().unwrap();
    Tree::head(&*kv, bucket).digest().unwrap()
}

/// What a block is said to differ from is what is in its place before the change.
fn check_bases(tree: &Tree<'_>, change: &Change) {
    for (position, since) in &change.since {
        let Op::PutBlocks { id, segment, blocks } = &change.op else {
            panic!("{change:?} puts no blocks")
        };
        assert!(blocks.iter().any(|(p, block)| p == position && block.is_some()));
        let row = tree.segment(*id, *segment).unwrap().map(|(row, _)| row);
        let before = row.and_then(|row| row.block_at(*position));
        assert_eq!(before.map(|block| block.key), Some(since.base), "{change:?}");
    }
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Whatever changes from now on gets other times than what has changed before.
pub(super) fn past_the_tick() {
    let before = now();
    while now() == before {
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

pub(super) fn node_of(path: &Path) -> NodeRef {
    use std::os::unix::ffi::OsStrExt;
    let cwd = rustix::fs::CWD;
    see(cwd, path.as_os_str().as_bytes())
        .unwrap()
        .expect("a file to take the identity of")
        .node
}

/// Compares a directory of the catalog with the disk. `seen`: inode -> object, so that hard links are one object.
fn check_dir(
    tree: &Tree<'_>,
    id: ObjectId,
    path: &Path,
    exclude: &Exclude,
    seen: &mut BTreeMap<u64, ObjectId>,
) {
    check_object(tree, id, path, seen);
    let mut on_disk: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| !exclude.matches(name.as_bytes()))
        .collect();
    on_disk.sort();
    let entries = tree.entries(id, None, usize::MAX >> 1).unwrap();
    let names: Vec<String> = entries
        .iter()
        .map(|(n, _)| String::from_utf8(n.clone()).unwrap())
        .collect();
    assert_eq!(names, on_disk, "names in {}", path.display());
    for (name, (_, child)) in names.iter().zip(entries) {
        let path = path.join(name);
        if path.symlink_metadata().unwrap().is_dir() {
            check_dir(tree, child, &path, exclude, seen);
        } else {
            check_object(tree, child, &path, seen);
        }
    }
}

fn check_object(tree: &Tree<'_>, id: ObjectId, path: &Path, seen: &mut BTreeMap<u64, ObjectId>) {
    let shown = path.display();
    let (object, _) = tree
        .object(id)
        .unwrap()
        .unwrap_or_else(|| panic!("{shown} leads to no object"));
    let meta = path.symlink_metadata().unwrap();
    assert_eq!(
        *seen.entry(meta.ino()).or_insert(id),
        id,
        "{shown}: one inode, one object"
    );
    assert_eq!(
        (object.mode, object.uid, object.gid),
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        "{shown}"
    );
    assert_eq!(
        (object.mtime.seconds, i64::from(object.mtime.nanoseconds)),
        (meta.mtime(), meta.mtime_nsec()),
        "{shown}"
    );
    match &object.kind {
        Kind::File => check_content(tree, id, &object, path),
        Kind::Symlink { target } => {
            assert_eq!(
                std::fs::read_link(path).unwrap(),
                Path::new(std::str::from_utf8(target).unwrap())
            );
        }
        Kind::Directory => assert!(meta.is_dir(), "{shown}"),
        other => panic!("{shown}: {other:?}"),
    }
    if !matches!(object.kind, Kind::Symlink { .. }) {
        let mut value = vec![0; 1024];
        for (name, expected) in tree.attributes(id).unwrap() {
            let length = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
            assert_eq!(&value[..length], expected, "{shown}");
        }
        let mut names = vec![0; 4096];
        let length = rustix::fs::listxattr(path, &mut names[..]).unwrap();
        let on_disk = names[..length]
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .count();
        assert_eq!(tree.attributes(id).unwrap().len(), on_disk, "{shown}");
    }
}

fn check_content(tree: &Tree<'_>, id: ObjectId, object: &Object, path: &Path) {
    let content = std::fs::read(path).unwrap();
    assert_eq!(object.size, content.len() as u64, "{}", path.display());
    let blocks: BTreeMap<u64, _> = tree
        .segments(id, 0, 1_000_000)
        .unwrap()
        .into_iter()
        .flat_map(|(segment, row, _)| {
            row.blocks
                .into_iter()
                .map(move |(p, b, _)| (object.layout.block_at(segment, p), b))
        })
        .collect();
    for (index, chunk) in content.chunks(object.layout.block_size as usize).enumerate() {
        let expected = hash_block(chunk, object.layout.hash);
        match blocks.get(&(index as u64)) {
            Some(block) => assert_eq!(block.key, expected.key, "block {index} of {}", path.display()),
            None => assert!(
                chunk.iter().all(|b| *b == 0),
                "block {index} of {} is missing",
                path.display()
            ),
        }
    }
    let end = object.layout.blocks_in(object.size);
    assert!(
        blocks.keys().all(|i| *i < end),
        "blocks beyond the end of {}",
        path.display()
    );
}

/// Kind of a node as the module would say it.
pub(super) fn kind_of(path: &Path) -> NodeKind {
    use std::os::unix::ffi::OsStrExt;
    match see(rustix::fs::CWD, path.as_os_str().as_bytes())
        .unwrap()
        .unwrap()
        .kind
    {
        Type::File => NodeKind::File,
        Type::Directory => NodeKind::Directory,
        Type::Symlink => NodeKind::Symlink,
        _ => NodeKind::Special,
    }
}
