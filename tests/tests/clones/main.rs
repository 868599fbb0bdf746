//! Files that clients rewrite while they are read: with a file system that clones, what is shipped is one moment's.

mod clients;

use anyhow::{Context, Result, ensure};
use dr_replicator::{BatchLimits, ChangeSource, Cursor, ReadBlock};
use restfs_lib::content::hash_block;
use restfs_lib::model::{BlockKey, BlockRef, HashAlgorithm, ObjectId, Op};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::future::Future;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use vfsx_daemon::catalog::{Catalog, NoSessions, Options, RecordSource, RecordsError, ScanState};
use vfsx_daemon::journal::{Body, NodeRef, Range, Record, Session};
use vfsx_tests::loopfs::{FileSystem, LoopFs};
use vfsx_tests::wait;

const MIB: usize = 1 << 20;
const BLOCK: usize = 64 << 10;
const LIMIT: Duration = Duration::from_secs(60);
/// States of a file that is rewritten all the time which are looked at. Without clones one of the first is torn.
const STATES: usize = 12;

/// A journal in memory.
#[derive(Default)]
struct Fed {
    records: Mutex<Vec<Record>>,
    more: Condvar,
}

impl RecordSource for Fed {
    fn read(&self, after: u64, limit: usize, wait: Duration) -> Result<Vec<Record>, RecordsError> {
        let newest = |records: &mut Vec<Record>| records.last().map_or(0, |record| record.sequence);
        let records = self.records.lock().expect("nobody panics with it");
        let waited = self
            .more
            .wait_timeout_while(records, wait, |records| newest(records) <= after);
        let (records, _) = waited.expect("nobody panics with it");
        let new = records.iter().filter(|record| record.sequence > after);
        Ok(new.take(limit).cloned().collect())
    }
}

/// A share with one file, and its catalog.
struct Share {
    catalog: Catalog,
    fed: Arc<Fed>,
    root: PathBuf,
    node: NodeRef,
    _state: TempDir,
}

impl Share {
    fn open(root: &Path, content: &[u8], cache_bytes: usize) -> Result<Self> {
        fs::write(root.join("file"), content)?;
        let state = tempfile::tempdir()?;
        let mut options = Options::new(
            root.to_owned(),
            state.path().join("catalog.db"),
            vec!["site".to_owned()],
        );
        options.cache_bytes = cache_bytes;
        options.flush_age = Duration::from_secs(3600);
        // The machine may be slow. What is to be seen is that nothing is torn, not that writers are spared.
        options.clone_rest = 0;
        let catalog = Catalog::open(options)?;
        let fed = Arc::new(Fed::default());
        catalog.start(fed.clone(), Arc::new(NoSessions))?;
        let node = node(&root.join("file"))?;
        let share = Self {
            catalog,
            fed,
            root: root.to_owned(),
            node,
            _state: state,
        };
        share.settle()?;
        Ok(share)
    }

    fn path(&self) -> PathBuf {
        self.root.join("file")
    }

    fn feed(&self, body: Body) {
        let mut records = self.fed.records.lock().expect("nobody panics with it");
        let sequence = records.len() as u64 + 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        records.push(Record {
            sequence,
            time_ns: now.as_nanos() as i64,
            session: Session([1; 16]),
            session_sequence: sequence,
            began_ns: 0,
            body,
        });
        self.fed.more.notify_all();
    }

    /// As a client's module says it.
    fn written(&self, length: usize) {
        let path_hint = b"file".to_vec();
        let end = length as u64;
        self.feed(Body::Dirty {
            handle: 1,
            node: self.node,
            path_hint,
            ranges: vec![Range { start: 0, end }],
            whole: false,
        });
        self.feed(Body::Closed {
            handle: 1,
            node: self.node,
        });
    }

    fn settle(&self) -> Result<()> {
        let fed = self.fed.records.lock().expect("nobody panics with it").len() as u64;
        let settled = || {
            let status = self.catalog.status();
            (status.applied == fed && status.covered == fed && status.scan.state == ScanState::Done)
                .then_some(())
        };
        wait::until("the catalog is settled", LIMIT, settled, || {
            format!("{:#?}", self.catalog.status())
        })
    }

    /// All changes after `after`, in batches that end with a transaction.
    fn changes(&self, after: u64) -> Result<Vec<dr_replicator::Change>> {
        let limits = BatchLimits::of_log(usize::MAX);
        Ok(block_on(self.catalog.changes(after, limits))?.changes)
    }

    fn head(&self) -> u64 {
        self.catalog.status().head
    }

    /// Files without a name in the share that this process holds open.
    fn clones(&self) -> usize {
        let handles = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let targets = handles.filter_map(|handle| fs::read_link(handle.path()).ok());
        targets
            .filter(|path| path.starts_with(&self.root) && path.to_string_lossy().ends_with(" (deleted)"))
            .count()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.catalog.stop();
    }
}

fn node(path: &Path) -> Result<NodeRef> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let stat = statx(
        CWD,
        path,
        AtFlags::empty(),
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?;
    let btime = &stat.stx_btime;
    Ok(NodeRef {
        dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
        ino: stat.stx_ino,
        btime_ns: btime.tv_sec * 1_000_000_000 + i64::from(btime.tv_nsec),
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn key(content: &[u8]) -> BlockKey {
    hash_block(content, HashAlgorithm::Blake3).key
}

/// Rewrites a file over and over, all of it with one number in one call, and tells of each; a state that the catalog had in
/// which the file has more than one number.
fn torn_state(root: &Path, length: usize, cache_bytes: usize) -> Result<Option<String>> {
    let share = Share::open(root, &vec![0; length], cache_bytes)?;
    let file = File::options().write(true).open(share.path())?;
    let stop = AtomicBool::new(false);
    let numbers: HashMap<BlockKey, u8> = (0..=u8::MAX).map(|n| (key(&[n; BLOCK]), n)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0u8;
            while !stop.load(Ordering::Relaxed) {
                number = number.wrapping_add(1);
                if file.write_all_at(&vec![number; length], 0).is_err() {
                    return;
                }
                share.written(length);
                // Longer than a clone takes, shorter than a read.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let found = look(&share, &numbers);
        stop.store(true, Ordering::Relaxed);
        found
    })
}

fn look(share: &Share, numbers: &HashMap<BlockKey, u8>) -> Result<Option<String>> {
    let (mut at, mut states) = (0, 0);
    let mut blocks: BTreeMap<(u64, u32), u8> = BTreeMap::new();
    let until = Instant::now() + LIMIT;
    while states < STATES {
        ensure!(Instant::now() < until, "{states} states within {LIMIT:?}");
        for change in share.changes(at)? {
            at = change.sequence;
            let Op::PutBlocks {
                segment, blocks: put, ..
            } = change.op
            else {
                continue;
            };
            for (position, block) in put {
                let block = block.context("a hole in a file that has none")?;
                let Some(number) = numbers.get(&block.key) else {
                    return Ok(Some(format!("a block is torn in itself after {states} changes")));
                };
                blocks.insert((segment, position), *number);
            }
            states += 1;
        }
        let mut seen: Vec<u8> = blocks.values().copied().collect();
        seen.dedup();
        if seen.len() > 1 {
            return Ok(Some(format!(
                "after {states} changes the file's parts are of {seen:?}"
            )));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
}

#[test]
fn a_file_that_is_rewritten_while_it_is_read_is_never_torn_where_it_can_be_cloned() {
    for kind in [FileSystem::Xfs, FileSystem::Btrfs] {
        let disk = LoopFs::make(kind).expect("a file system");
        // What stays in memory, what does not, and what is in one block.
        for (length, cache) in [(4 * MIB, 64 * MIB), (4 * MIB, 2 * MIB), (BLOCK, 64 * MIB)] {
            let torn = torn_state(&disk.path(), length, cache).expect("states");
            assert_eq!(torn, None, "{kind:?}, {length} bytes, {cache} of cache");
        }
    }
}

/// Else the test above would show nothing.
#[test]
fn it_is_torn_where_it_cannot_be_cloned() {
    let disk = LoopFs::make(FileSystem::Ext4).expect("a file system");
    assert_ne!(torn_state(&disk.path(), 4 * MIB, 64 * MIB).expect("states"), None);
}

#[test]
fn blocks_that_left_the_memory_are_shipped_as_they_were_when_the_file_was_closed() {
    for kind in [FileSystem::Xfs, FileSystem::Btrfs] {
        let disk = LoopFs::make(kind).expect("a file system");
        let share = Share::open(&disk.path(), &vec![0; 4 * MIB], MIB).expect("a share");
        let head = share.head();
        let file = File::options().write(true).open(share.path()).expect("the file");
        for n in 0..64 {
            file.write_all_at(&[n as u8 + 1; BLOCK], n * BLOCK as u64)
                .expect("write");
        }
        share.written(4 * MIB);
        share.settle().expect("settled");
        assert_eq!(share.clones(), 1, "{kind:?}");
        // The next save has begun, and nobody has told of it.
        file.write_all_at(&vec![255; 4 * MIB], 0).expect("write");
        for (id, segment, position, block) in named(&share, head) {
            let read = block_on(share.catalog.read_block(id, segment, position, block)).expect("a block");
            assert!(
                matches!(read, ReadBlock::Same(_)),
                "{kind:?}, block {position}: {read:?}"
            );
        }
        // When all sites have it, it is let go.
        let cursor = Cursor {
            epoch: 1,
            sequence: share.head(),
        };
        block_on(share.catalog.save_cursor("site", cursor)).expect("saved");
        let gone = || (share.clones() == 0).then_some(());
        wait::until("the clone goes", LIMIT, gone, || format!("{}", share.clones()))
            .expect("no clone is left");
    }
}

fn named(share: &Share, after: u64) -> Vec<(ObjectId, u64, u32, BlockRef)> {
    let mut found = Vec::new();
    for change in share.changes(after).expect("changes") {
        if let Op::PutBlocks { id, segment, blocks } = change.op {
            let blocks = blocks
                .into_iter()
                .filter_map(|(position, block)| Some((position, block?)));
            found.extend(blocks.map(|(position, block)| (id, segment, position, block)));
        }
    }
    assert_eq!(found.len(), 64);
    found
}

#[test]
fn a_clone_leaves_no_trace_in_the_share() {
    for kind in [FileSystem::Xfs, FileSystem::Btrfs] {
        let disk = LoopFs::make(kind).expect("a file system");
        let share = Share::open(&disk.path(), &vec![0; 4 * MIB], MIB).expect("a share");
        let times = |path: &Path| {
            let meta = path.metadata().expect("metadata");
            (
                meta.mtime_nsec(),
                meta.ctime_nsec(),
                meta.atime_nsec(),
                meta.nlink(),
                meta.len(),
            )
        };
        fs::write(share.path(), vec![1; 4 * MIB]).expect("write");
        let before = (times(&share.root), times(&share.path()));
        share.written(4 * MIB);
        share.settle().expect("settled");
        assert_eq!(share.clones(), 1, "{kind:?}");
        assert_eq!((times(&share.root), times(&share.path())), before, "{kind:?}");
        let names: Vec<_> = fs::read_dir(&share.root)
            .expect("list")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(names, ["file"], "{kind:?}");
        let (head, objects) = (share.head(), share.catalog.status().objects);
        let number = share.catalog.request_scan().expect("a scan");
        let finished = || (share.catalog.status().scan.finished >= number).then_some(());
        wait::until("the scan ends", LIMIT, finished, || {
            format!("{:?}", share.catalog.status().scan)
        })
        .expect("an end");
        let status = share.catalog.status();
        assert_eq!(
            (status.head, status.objects, status.scan.differences),
            (head, objects, 0),
            "{kind:?}"
        );
    }
}

#[test]
fn a_file_that_nobody_disturbs_is_read_once_and_not_cloned() {
    for kind in [FileSystem::Xfs, FileSystem::Btrfs] {
        let disk = LoopFs::make(kind).expect("a file system");
        let share = Share::open(&disk.path(), &vec![0; 4 * MIB], 64 * MIB).expect("a share");
        for n in 1..10u8 {
            let read = share.catalog.status().bytes_read;
            let file = File::options().write(true).open(share.path()).expect("the file");
            file.write_all_at(&vec![n; 4 * MIB], 0).expect("write");
            share.written(4 * MIB);
            share.settle().expect("settled");
            let read = share.catalog.status().bytes_read - read;
            assert_eq!((read, share.clones()), (4 * MIB as u64, 0), "{kind:?}");
        }
    }
}

#[test]
fn no_space_is_taken_from_clients_that_may_need_it() {
    for kind in [FileSystem::Xfs, FileSystem::Btrfs] {
        let disk = LoopFs::make(kind).expect("a file system");
        let full = File::create(disk.path().join("full")).expect("a file");
        let stat = rustix::fs::statvfs(disk.path()).expect("free space");
        let rest = stat.f_blocks * stat.f_frsize / 40;
        let length = (stat.f_bavail * stat.f_frsize).saturating_sub(rest);
        rustix::fs::fallocate(&full, rustix::fs::FallocateFlags::empty(), 0, length).expect("room");
        let share = Share::open(&disk.path(), &vec![0; 4 * MIB], MIB).expect("a share");
        let file = File::options().write(true).open(share.path()).expect("the file");
        file.write_all_at(&vec![1; 4 * MIB], 0).expect("write");
        share.written(4 * MIB);
        share.settle().expect("settled");
        assert_eq!(share.clones(), 0, "{kind:?}");
    }
}

#[test]
fn a_file_without_copy_on_write_is_cloned_all_the_same() {
    use rustix::fs::{IFlags, ioctl_setflags};
    let disk = LoopFs::make(FileSystem::Btrfs).expect("a file system");
    let file = File::create(disk.path().join("image")).expect("a file");
    ioctl_setflags(&file, IFlags::NOCOW).expect("no copy on write");
    fs::rename(disk.path().join("image"), disk.path().join("file")).expect("rename");
    let share = Share::open(&disk.path(), &vec![0; 4 * MIB], MIB).expect("a share");
    file.write_all_at(&vec![1; 4 * MIB], 0).expect("write");
    share.written(4 * MIB);
    share.settle().expect("settled");
    assert_eq!(share.clones(), 1);
}
