//! Rounds: while clients of several processes work, every place that the change log marks as exact is a state that the
//! share had, in the order in which it had them.

use super::rig::{BLOCK, Fed, Rig, block_on, join, kind_of};
use crate::catalog::store::{EndRow, Key, LogRow, Prefix, page};
use crate::catalog::{Moment, Options, Sessions, Status};
use crate::journal::{Body, GapReason, Metadata, Range, SessionEnd, monotonic_ns};
use bytes::Bytes;
use dr_replicator::{BatchLimits, ChangeSource, ReadBlock};
use proptest::prelude::*;
use restfs_lib::content::hash_block;
use restfs_lib::kv::{Kv, KvRead, MemoryKv};
use restfs_lib::model::{BucketId, HashAlgorithm, Kind, ObjectId, Op};
use restfs_lib::tree::{self, History, Tree};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vfsx_proto::ring::{LONG_WRITE, WRITE_ENDED_AFTER};

const PROCESSES: usize = 3;
const POLL: Duration = Duration::from_micros(200);

/// Path -> what is there. Times are left out: those of what is changing are known only about.
type State = BTreeMap<String, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    is_dir: bool,
    mode: u32,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    size: u64,
    /// Keys of blocks; `None` for zeros and holes.
    blocks: Vec<Option<[u8; 32]>>,
}

/// An announced write that has not been made yet.
struct Flight {
    process: usize,
    path: String,
    offset: u64,
    data: Vec<u8>,
    began_ns: u64,
    fails: bool,
}

/// The clients' side: what is done, and what of it is told.
#[derive(Default)]
struct World {
    queues: [VecDeque<(u64, Body)>; PROCESSES],
    flights: Vec<Flight>,
    turn: usize,
    /// Sessions do not say how far they are.
    unsure: bool,
    /// They tell ranges only.
    map: bool,
    /// Answers to those who ask for a moment wait.
    held: bool,
    /// Moments asked for.
    asked: usize,
}

impl World {
    fn tell(&mut self, process: usize, began_ns: u64, body: Body) {
        self.queues[process].push_back((began_ns, body));
    }

    /// One event reaches the journal; which process' is a matter of chance.
    fn deliver(&mut self, fed: &Fed, salt: usize) -> bool {
        self.turn = self.turn.wrapping_mul(31).wrapping_add(salt);
        let first = self.turn % PROCESSES;
        let mut waiting = (0..PROCESSES).map(|i| (first + i) % PROCESSES);
        let Some(process) = waiting.find(|p| !self.queues[*p].is_empty()) else {
            return false;
        };
        let (began_ns, body) = self.queues[process].pop_front().unwrap();
        fed.feed(process as u8 + 1, began_ns, body);
        true
    }
}

struct Modules {
    world: Arc<Mutex<World>>,
    fed: Arc<Fed>,
}

impl Sessions for Modules {
    fn copying(&self) -> bool {
        !self.world.lock().unwrap().map
    }

    fn moment(&self, _limit: Duration) -> Moment {
        let mut world = self.world.lock().unwrap();
        let clock_ns = monotonic_ns();
        world.asked += 1;
        while world.held {
            drop(world);
            std::thread::sleep(POLL);
            world = self.world.lock().unwrap();
        }
        if world.unsure {
            return Moment {
                clock_ns,
                sequence: self.fed.newest(),
                writers: Vec::new(),
                unsure: Some("nobody says".to_owned()),
            };
        }
        while world.deliver(&self.fed, 7) {}
        Moment {
            clock_ns,
            sequence: self.fed.newest(),
            ..Moment::default()
        }
    }

    fn ended(&self, moment: &Moment, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let announced = match moment.unsure {
            None => moment.clock_ns,
            Some(_) => monotonic_ns(),
        };
        loop {
            let world = self.world.lock().unwrap();
            if !world.flights.iter().any(|f| f.began_ns <= announced) {
                return true;
            }
            drop(world);
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Clients that work on the share, and on a copy of it in the order in which their calls begin: the states that it has are
/// those that the share may be in.
struct Clients {
    rig: Rig,
    world: Arc<Mutex<World>>,
    shadow: TempDir,
    states: Vec<State>,
    next_handle: u64,
}

impl Clients {
    fn new() -> Self {
        Self::with_options(|_| {})
    }

    fn with_options(change: impl FnOnce(&mut Options)) -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let modules = Arc::clone(&world);
        let rig = Rig::with_sessions(
            |_| {},
            change,
            |fed| {
                Arc::new(Modules {
                    world: modules,
                    fed: Arc::clone(fed),
                })
            },
        );
        rig.settle();
        let shadow = tempfile::tempdir().unwrap();
        Self {
            states: vec![state_of(shadow.path())],
            rig,
            world,
            shadow,
            next_handle: 1,
        }
    }

    /// A call of a client that begins and ends now.
    fn call(&mut self, process: usize, act: impl Fn(&Path) -> bool, tell: impl FnOnce(&Rig) -> Vec<Body>) {
        self.call_knowing(process, |_| (), act, |rig, ()| tell(rig));
    }

    /// The same; `before` takes note of what is there before it.
    fn call_knowing<T>(
        &mut self,
        process: usize,
        before: impl FnOnce(&Rig) -> T,
        act: impl Fn(&Path) -> bool,
        tell: impl FnOnce(&Rig, T) -> Vec<Body>,
    ) {
        let mut world = self.world.lock().unwrap();
        let began_ns = monotonic_ns();
        let before = before(&self.rig);
        if !act(self.rig.share.path()) {
            return;
        }
        assert!(act(self.shadow.path()), "the copy is another");
        self.states.push(state_of(self.shadow.path()));
        for body in tell(&self.rig, before) {
            world.tell(process, began_ns, body);
        }
    }

    fn create(&mut self, process: usize, dir: &str, name: &str, described: bool) {
        let path = join(dir, name);
        let act = |root: &Path| {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(root.join(&path))
                .is_ok()
        };
        self.call(process, act, |rig| created(rig, dir, name, described));
    }

    fn mkdir(&mut self, process: usize, dir: &str, name: &str, described: bool) {
        let path = join(dir, name);
        let act = |root: &Path| fs::create_dir(root.join(&path)).is_ok();
        self.call(process, act, |rig| created(rig, dir, name, described));
    }

    fn rename(&mut self, process: usize, from: &str, to: &str) {
        if from == to || to.starts_with(&format!("{from}/")) {
            return;
        }
        let (from_dir, from_name) = split(from);
        let (to_dir, to_name) = split(to);
        let before = |rig: &Rig| {
            let there = |path: &str| rig.path(path).symlink_metadata().is_ok();
            (there(from) && there(to_dir)).then(|| Body::Rename {
                from: rig.dir(from_dir),
                from_name: from_name.into(),
                to: rig.dir(to_dir),
                to_name: to_name.into(),
                node: rig.node(from),
                replaced: there(to).then(|| rig.node(to)),
            })
        };
        let act = |root: &Path| fs::rename(root.join(from), root.join(to)).is_ok();
        self.call_knowing(process, before, act, |_, body| body.into_iter().collect());
    }

    fn remove(&mut self, process: usize, path: &str) {
        let (dir, name) = split(path);
        let before = |rig: &Rig| {
            rig.path(path).symlink_metadata().is_ok().then(|| Body::Unlink {
                dir: rig.dir(dir),
                name: name.into(),
                node: rig.node(path),
            })
        };
        let act =
            |root: &Path| fs::remove_file(root.join(path)).is_ok() || fs::remove_dir(root.join(path)).is_ok();
        self.call_knowing(process, before, act, |_, body| body.into_iter().collect());
    }

    fn chmod(&mut self, process: usize, path: &str, mode: u32, described: bool) {
        let value = mode.to_be_bytes();
        let act = |root: &Path| {
            let path = root.join(path);
            let done = fs::set_permissions(&path, fs::Permissions::from_mode(mode)).is_ok();
            done && rustix::fs::setxattr(&path, "user.x", &value, rustix::fs::XattrFlags::empty()).is_ok()
        };
        self.call(process, act, |rig| vec![touched(rig, path, described)]);
    }

    fn resize(&mut self, process: usize, path: &str, size: u64) {
        let handle = self.handle();
        let act = |root: &Path| {
            let file = fs::OpenOptions::new().write(true).open(root.join(path));
            file.is_ok_and(|file| file.set_len(size).is_ok())
        };
        self.call(process, act, |rig| {
            let node = rig.node(path);
            vec![
                opened(rig, path, handle),
                Body::Resized { handle, node, size },
                touched(rig, path, true),
                Body::Closed { handle, node },
            ]
        });
    }

    /// A write of which only the range is told, when it has ended.
    fn write_untold(&mut self, process: usize, path: &str, offset: u64, data: &[u8]) {
        let handle = self.handle();
        let act = |root: &Path| write_at(&root.join(path), offset, data);
        self.call(process, act, |rig| {
            let node = rig.node(path);
            let ranges = vec![Range {
                start: offset,
                end: offset + data.len() as u64,
            }];
            let dirty = Body::Dirty {
                handle,
                node,
                path_hint: path.as_bytes().to_vec(),
                ranges,
                whole: false,
            };
            vec![opened(rig, path, handle), dirty, Body::Closed { handle, node }]
        });
    }

    /// A write is announced. It is made when [`Clients::land`] says so. Meanwhile nothing else is done to the file.
    fn write(&mut self, process: usize, path: &str, offset: u64, data: Vec<u8>, fails: bool) {
        if !self.rig.path(path).is_file() || self.is_busy(path) {
            return;
        }
        let handle = self.handle();
        let mut world = self.world.lock().unwrap();
        let began_ns = monotonic_ns();
        let node = self.rig.node(path);
        world.tell(process, began_ns, opened(&self.rig, path, handle));
        let bytes = Bytes::from(data.clone());
        let body = Body::Write {
            handle,
            node,
            start: offset,
            length: data.len() as u64,
            data: Some(bytes),
        };
        world.tell(process, began_ns, body);
        if !fails {
            assert!(write_at(&self.shadow.path().join(path), offset, &data));
        }
        self.states.push(state_of(self.shadow.path()));
        world.flights.push(Flight {
            process,
            path: path.to_owned(),
            offset,
            data,
            began_ns,
            fails,
        });
    }

    /// An announced write ends.
    fn land(&mut self, which: usize) {
        let mut world = self.world.lock().unwrap();
        if world.flights.is_empty() {
            return;
        }
        let which = which % world.flights.len();
        let flight = world.flights.swap_remove(which);
        if !flight.fails {
            let path = self.rig.path(&flight.path);
            assert!(write_at(&path, flight.offset, &flight.data));
        }
        let took = monotonic_ns().saturating_sub(flight.began_ns);
        if flight.fails || u128::from(took) >= LONG_WRITE.as_nanos() {
            let body = Body::Dirty {
                handle: 0,
                node: self.rig.node(&flight.path),
                path_hint: flight.path.as_bytes().to_vec(),
                ranges: vec![Range {
                    start: flight.offset,
                    end: flight.offset + flight.data.len() as u64,
                }],
                whole: false,
            };
            world.tell(flight.process, monotonic_ns(), body);
        }
    }

    fn land_all(&mut self) {
        while !self.world.lock().unwrap().flights.is_empty() {
            self.land(0);
        }
    }

    fn is_busy(&self, path: &str) -> bool {
        let world = self.world.lock().unwrap();
        let beneath = format!("{path}/");
        world
            .flights
            .iter()
            .any(|f| f.path == path || f.path.starts_with(&beneath))
    }

    fn deliver(&mut self, count: usize, salt: usize) {
        let mut world = self.world.lock().unwrap();
        for _ in 0..count {
            world.deliver(&self.rig.fed, salt);
        }
    }

    /// All is told and taken in, and the newest state is marked.
    fn settle(&mut self) -> Status {
        self.world.lock().unwrap().unsure = false;
        self.land_all();
        while self.world.lock().unwrap().deliver(&self.rig.fed, 3) {}
        self.rig.settle();
        self.rig.wait("the newest state is exact", |s| {
            let kv = self.rig.catalog.shared().kv.read().unwrap();
            s.head == last_mark(&*kv)
        })
    }

    /// What is marked is what the share was, and in the end what it is. How many states were marked.
    fn check(&mut self) -> usize {
        self.settle();
        self.rig.check();
        assert_eq!(state_of(self.rig.share.path()), state_of(self.shadow.path()));
        let mut at = 0;
        let marked = self.marked_states();
        for (number, (change, state)) in marked.iter().enumerate() {
            let found = self.states[at..].iter().position(|s| s == state);
            let Some(found) = found else {
                let nearest = &self.states[at];
                panic!(
                    "mark {number} at change {change} is no state of the share, or one of before:\n{}",
                    differences(state, nearest)
                );
            };
            at += found;
        }
        let newest = marked.last().map(|(_, state)| state);
        assert_eq!(newest, self.states.last(), "the newest state is marked");
        marked.len()
    }

    fn marked_states(&self) -> Vec<(u64, State)> {
        let kv = self.rig.catalog.shared().kv.read().unwrap();
        let replica = MemoryKv::new();
        let mut txn = replica.write().unwrap();
        let bucket = tree::bucket::create(&mut *txn, "replica", Default::default(), 0)
            .unwrap()
            .id;
        let mut states = Vec::new();
        for (key, row) in page::<LogRow>(&*kv, Prefix::Log, &[], None, usize::MAX >> 1).unwrap() {
            let Key::Log(change) = key else { panic!() };
            let op = Op::try_from(row.op).unwrap();
            tree::apply(&mut *txn, bucket, change, History::Keep, &op).unwrap();
            if row.end == EndRow::Exact {
                states.push((change, state_in(&*txn, bucket)));
            }
        }
        states
    }

    /// All that was done is told and applied, but for what is to be read.
    fn apply(&mut self) {
        while self.world.lock().unwrap().deliver(&self.rig.fed, 3) {}
        let fed = self.rig.fed();
        self.rig.wait("all is applied", |s| s.applied == fed);
    }

    fn handle(&mut self) -> u64 {
        self.next_handle += 1;
        self.next_handle
    }
}

fn last_mark(kv: &dyn KvRead) -> u64 {
    let rows = page::<LogRow>(kv, Prefix::Log, &[], None, usize::MAX >> 1).unwrap();
    let last = rows.iter().rfind(|(_, row)| row.end == EndRow::Exact);
    match last {
        Some((Key::Log(change), _)) => *change,
        _ => 0,
    }
}

fn differences(a: &State, b: &State) -> String {
    let all: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let lines = all.into_iter().filter(|path| a.get(*path) != b.get(*path));
    let text = |entry: Option<&Entry>| {
        entry.map_or("-".to_owned(), |e| {
            let blocks: Vec<_> = e
                .blocks
                .iter()
                .map(|b| b.map_or("0".to_owned(), |k| format!("{:02x}{:02x}", k[0], k[1])))
                .collect();
            format!(
                "{} {:o} {} {:?} {blocks:?}",
                e.is_dir, e.mode, e.size, e.attributes
            )
        })
    };
    lines
        .map(|path| {
            format!(
                "{path}: marked {}, was {}\n",
                text(a.get(path)),
                text(b.get(path))
            )
        })
        .collect()
}

fn created(rig: &Rig, dir: &str, name: &str, described: bool) -> Vec<Body> {
    let path = join(dir, name);
    let create = Body::Create {
        dir: rig.dir(dir),
        name: name.into(),
        node: rig.node(&path),
        kind: kind_of(&rig.path(&path)),
    };
    let mut all = vec![create];
    all.extend(described.then(|| touched(rig, &path, true)));
    all
}

fn opened(rig: &Rig, path: &str, handle: u64) -> Body {
    Body::Opened {
        handle,
        node: rig.node(path),
        path_hint: path.as_bytes().to_vec(),
    }
}

fn touched(rig: &Rig, path: &str, described: bool) -> Body {
    let (node, path_hint) = (rig.node(path), path.as_bytes().to_vec());
    if !described {
        let changed = crate::journal::Changed {
            stat: true,
            xattrs: true,
        };
        return Body::Touched {
            node,
            path_hint,
            changed,
        };
    }
    let meta = rig.path(path).symlink_metadata().unwrap();
    let metadata = Metadata {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: (meta.mtime(), meta.mtime_nsec() as u32),
        atime: (meta.atime(), meta.atime_nsec() as u32),
        xattrs: xattrs(&rig.path(path)).into_iter().collect(),
    };
    Body::Metadata {
        node,
        path_hint,
        metadata,
    }
}

fn write_at(path: &Path, offset: u64, data: &[u8]) -> bool {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.is_ok_and(|file| file.write_all_at(data, offset).is_ok())
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut value = vec![0; 1024];
    match rustix::fs::getxattr(path, "user.x", &mut value[..]) {
        Ok(length) => BTreeMap::from([(b"user.x".to_vec(), value[..length].to_vec())]),
        Err(_) => BTreeMap::new(),
    }
}

/// A directory on disk.
fn state_of(root: &Path) -> State {
    let mut state = State::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = join(&dir, &name);
            let full = root.join(&path);
            let meta = full.symlink_metadata().unwrap();
            let content = if meta.is_dir() {
                Vec::new()
            } else {
                fs::read(&full).unwrap()
            };
            if meta.is_dir() {
                todo.push(path.clone());
            }
            let entry = Entry {
                is_dir: meta.is_dir(),
                mode: meta.mode() & 0o7777,
                attributes: xattrs(&full),
                size: content.len() as u64,
                blocks: content.chunks(BLOCK as usize).map(key_of).collect(),
            };
            state.insert(path, entry);
        }
    }
    state
}

fn key_of(block: &[u8]) -> Option<[u8; 32]> {
    let zeros = block.iter().all(|b| *b == 0);
    (!zeros).then(|| hash_block(block, HashAlgorithm::Blake3).key.0)
}

/// A tree of the store.
fn state_in(kv: &dyn KvRead, bucket: BucketId) -> State {
    let tree = Tree::head(kv, bucket);
    let mut state = State::new();
    let mut todo = vec![(ObjectId::ROOT, String::new())];
    while let Some((dir, path)) = todo.pop() {
        for (name, id) in tree.entries(dir, None, 1000).unwrap() {
            let path = join(&path, std::str::from_utf8(&name).unwrap());
            let (object, _) = tree.object(id).unwrap().expect("an object with a name");
            if object.kind == Kind::Directory {
                todo.push((id, path.clone()));
            }
            let mut blocks: Vec<Option<[u8; 32]>> = vec![None; object.layout.blocks_in(object.size) as usize];
            for (segment, row, _) in tree.segments(id, 0, 1000).unwrap() {
                for (position, block, _) in row.blocks {
                    let index = object.layout.block_at(segment, position);
                    let zeros = vec![0; block.length as usize];
                    let is_zero = hash_block(&zeros, HashAlgorithm::Blake3).key == block.key;
                    let length = object.layout.expected_length(index, object.size);
                    assert_eq!(block.length, length, "length of block {index} of {path}");
                    blocks[index as usize] = (!is_zero).then_some(block.key.0);
                }
            }
            let entry = Entry {
                is_dir: object.kind == Kind::Directory,
                mode: object.mode,
                attributes: tree.attributes(id).unwrap().into_iter().collect(),
                size: object.size,
                blocks,
            };
            state.insert(path, entry);
        }
    }
    state
}

#[derive(Debug, Clone)]
struct Step {
    call: u8,
    a: usize,
    b: usize,
    process: usize,
    deliver: usize,
    pause: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0u8..26,
        0usize..1000,
        0usize..20_000,
        0..PROCESSES,
        0usize..4,
        0u64..6,
    );
    let step = step.prop_map(|(call, a, b, process, deliver, pause)| Step {
        call,
        a,
        b,
        process,
        deliver,
        pause,
    });
    proptest::collection::vec(step, 1..120)
}

fn act(clients: &mut Clients, step: &Step) {
    let paths: Vec<String> = state_of(clients.rig.share.path()).into_keys().collect();
    let full = |p: &String| clients.rig.path(p);
    let dirs: Vec<String> = std::iter::once(String::new())
        .chain(paths.iter().filter(|p| full(p).is_dir()).cloned())
        .collect();
    let files: Vec<String> = paths.iter().filter(|p| full(p).is_file()).cloned().collect();
    let dir = dirs[step.a % dirs.len()].clone();
    let name = format!("n{}", step.b % 6);
    let file = (!files.is_empty()).then(|| files[step.a % files.len()].clone());
    let any = (!paths.is_empty()).then(|| paths[step.b % paths.len()].clone());
    let process = step.process;
    let described = !step.a.is_multiple_of(4);
    let data = vec![step.b as u8 | 1; 1 + step.a * 11 % 9000];
    let offset = step.b as u64;
    match (step.call, file, any) {
        (0..=2, _, _) => clients.create(process, &dir, &name, described),
        (3, _, _) => clients.mkdir(process, &dir, &name, described),
        (4..=11, Some(file), _) => {
            clients.write(process, &file, offset, data, step.a.is_multiple_of(13));
            if step.call < 9 {
                clients.land(usize::MAX - 1);
            }
        }
        (12, Some(file), _) if !clients.is_busy(&file) => clients.write_untold(process, &file, offset, &data),
        (13, Some(file), _) if !clients.is_busy(&file) => clients.resize(process, &file, offset),
        (14, Some(file), _) if !clients.is_busy(&file) => clients.remove(process, &file),
        (15, _, Some(path)) if !clients.is_busy(&path) => clients.remove(process, &path),
        (16..=18, _, Some(from)) => {
            let to = join(&dir, &name);
            if !clients.is_busy(&from) && !clients.is_busy(&to) {
                clients.rename(process, &from, &to);
            }
        }
        (19 | 20, _, Some(path)) => clients.chmod(process, &path, 0o700 | (step.b as u32 % 64), described),
        (21..=23, _, _) => clients.land(step.a),
        (24 | 25, _, _) => {
            let mut world = clients.world.lock().unwrap();
            world.unsure = !world.unsure;
        }
        _ => {}
    }
    clients.deliver(step.deliver, step.b);
    std::thread::sleep(Duration::from_millis(step.pause));
}

fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_time: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_marked_exact_is_a_state_that_the_share_had(steps in steps()) {
        let mut clients = Clients::new();
        for step in &steps {
            act(&mut clients, step);
        }
        let marks = clients.check();
        prop_assert!(marks > 0);
        prop_assert!(clients.rig.catalog.status().gap.is_none());
    }
}

/// Works without a pause while `until` says so, then checks. How many states were exact meanwhile.
fn without_pause(clients: &mut Clients, time: Duration, mut work: impl FnMut(&mut Clients, u64)) -> u64 {
    let before = clients.rig.catalog.status().cuts.exact;
    let until = Instant::now() + time;
    let mut round = 0;
    while Instant::now() < until {
        work(clients, round);
        clients.deliver(4, round as usize);
        round += 1;
    }
    let status = clients.rig.catalog.status();
    println!("{round} rounds of work, {:?}", status.cuts);
    assert_eq!(status.cuts.fuzzy, 0, "{:?}", status.cuts.last_failure);
    status.cuts.exact - before
}

const WHILE: Duration = Duration::from_millis(1500);

#[test]
fn a_database_that_is_written_without_pause_has_exact_states_all_the_time() {
    let mut clients = Clients::new();
    clients.create(0, "", "db", true);
    clients.write(0, "db", 0, vec![1; 64 * BLOCK as usize], false);
    clients.land_all();
    clients.settle();
    // Pages smaller than a block, some again and again, and a log that grows and is emptied.
    clients.create(0, "", "log", true);
    let exact = without_pause(&mut clients, WHILE, |clients, round| {
        let page = match round % 3 {
            0 => 0,
            _ => round * 7919 % 250,
        };
        clients.write(0, "db", page * 1024, vec![round as u8 | 1; 1024], false);
        clients.land_all();
        clients.write(0, "log", round % 50 * 100, vec![round as u8 | 1; 100], false);
        clients.land_all();
        if round % 50 == 49 {
            clients.resize(0, "log", 0);
        }
        std::thread::sleep(Duration::from_micros(300));
    });
    assert!(exact >= 5, "{exact}");
    clients.check();
}

#[test]
fn files_written_in_turn_are_never_seen_in_another_order() {
    let mut clients = Clients::new();
    clients.create(0, "", "a", true);
    clients.create(1, "", "b", true);
    let exact = without_pause(&mut clients, WHILE, |clients, round| {
        for (process, file) in [(0, "a"), (1, "b")] {
            clients.write(process, file, round * 16, round.to_be_bytes().repeat(2), false);
            clients.land_all();
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    assert!(exact >= 5, "{exact}");
    clients.check();
}

#[test]
fn names_that_change_without_pause_have_exact_states_all_the_time() {
    let mut clients = Clients::new();
    for dir in ["x", "y"] {
        clients.mkdir(0, "", dir, true);
        clients.create(0, dir, "file", true);
    }
    clients.settle();
    let exact = without_pause(&mut clients, WHILE, |clients, round| {
        match round % 4 {
            0 => clients.rename(0, "x", "z"),
            1 => clients.rename(1, "y", "x"),
            2 => clients.rename(0, "z", "y"),
            _ => clients.rename(2, "x/file", "y/file"),
        }
        if round % 8 == 7 {
            clients.create(2, "x", "file", true);
        }
        std::thread::sleep(Duration::from_micros(200));
    });
    assert!(exact >= 5, "{exact}");
    clients.check();
}

#[test]
fn small_files_that_are_made_and_replaced_without_pause_have_exact_states_all_the_time() {
    let mut clients = Clients::new();
    let exact = without_pause(&mut clients, WHILE, |clients, round| {
        let process = (round % 3) as usize;
        let (temporary, file) = (format!("t{process}"), format!("f{}", round % 20));
        clients.create(process, "", &temporary, true);
        clients.write(process, &temporary, 0, vec![round as u8 | 1; 6000], false);
        clients.land_all();
        clients.chmod(process, &temporary, 0o640, true);
        clients.rename(process, &temporary, &file);
        std::thread::sleep(Duration::from_micros(500));
    });
    assert!(exact >= 5, "{exact}");
    clients.check();
}

#[test]
fn a_state_before_content_that_a_site_has_already_is_not_exact_there() {
    let mut clients = Clients::with_options(|options| {
        options.cache_bytes = 1;
        options.kept_bytes = 0;
    });
    clients.create(0, "", "f", true);
    clients.write(0, "f", 0, vec![1; BLOCK as usize], false);
    let first = clients.settle().head;
    clients.write(0, "f", 0, vec![2; BLOCK as usize], false);
    let newest = clients.settle().head;
    let catalog = &clients.rig.catalog;
    let is_exact = |head: u64| {
        let limits = BatchLimits {
            max_ops: head as usize,
            max_bytes: u64::MAX,
        };
        let batch = block_on(catalog.changes(0, limits)).unwrap();
        assert_eq!(batch.changes.last().map(|change| change.sequence), Some(head));
        batch.exact
    };
    assert!(is_exact(first) && is_exact(newest));
    let changes = clients.rig.changes(0);
    let put = changes.iter().find_map(|change| match &change.op {
        Op::PutBlocks { id, segment, blocks } => blocks
            .first()
            .map(|(position, block)| (*id, *segment, *position, *block)),
        _ => None,
    });
    let (id, segment, position, block) = put.unwrap();
    let read = block_on(catalog.read_block(id, segment, position, block.unwrap())).unwrap();
    assert!(matches!(read, ReadBlock::Newer(..)), "{read:?}");
    assert!(!is_exact(first) && is_exact(newest));
}

/// The first block of a file, as the change that put it named it, is not to be had any more: what is there now.
fn read_newer(clients: &Clients, path: &str) {
    let file = clients.rig.id(path).unwrap();
    let changes = clients.rig.changes(0);
    let put = changes.iter().find_map(|change| match &change.op {
        Op::PutBlocks { id, segment, blocks } if *id == file => Some((*segment, blocks[0])),
        _ => None,
    });
    let (segment, (position, block)) = put.unwrap();
    let read = clients
        .rig
        .catalog
        .read_block(file, segment, position, block.unwrap());
    let read = block_on(read).unwrap();
    assert!(matches!(read, ReadBlock::Newer(..)), "{read:?}");
}

fn without_content_kept() -> Clients {
    let mut clients = Clients::with_options(|options| {
        options.cache_bytes = 1;
        options.kept_bytes = 0;
    });
    clients.create(0, "", "f", true);
    clients.create(0, "", "g", true);
    clients.write(0, "f", 0, vec![1; BLOCK as usize], false);
    clients.settle();
    clients
}

#[test]
fn content_that_a_site_needed_from_disk_is_in_no_exact_state_of_a_time_before() {
    let mut clients = without_content_kept();
    // A round that waits for this write: what follows is no part of it.
    clients.write(0, "g", 0, vec![1; 100], false);
    clients.apply();
    clients.create(1, "", "h", true);
    clients.write(1, "f", 0, vec![2; BLOCK as usize], false);
    clients.land(1);
    read_newer(&clients, "f");
    clients.check();
}

#[test]
fn content_that_a_site_needed_from_disk_after_a_moment_is_in_no_exact_state_of_that_moment() {
    let mut clients = without_content_kept();
    clients.write(0, "g", 0, vec![1; 100], false);
    clients.apply();
    let asked = {
        let mut world = clients.world.lock().unwrap();
        world.held = true;
        world.asked
    };
    // Its round has ended, and the next moment is taken.
    clients.land(0);
    let world = Arc::clone(&clients.world);
    clients
        .rig
        .wait("a moment", |_| world.lock().unwrap().asked > asked);
    clients.create(1, "", "h", true);
    clients.write(1, "f", 0, vec![2; BLOCK as usize], false);
    clients.land(0);
    read_newer(&clients, "f");
    clients.world.lock().unwrap().held = false;
    clients.check();
}

#[test]
fn while_a_write_takes_long_no_state_without_it_is_exact_and_none_with_a_part_of_it() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.create(0, "", "g", true);
    let before = clients.settle().cuts.exact;
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.chmod(1, "g", 0o700, true);
    clients.apply();
    let until = Instant::now() + WRITE_ENDED_AFTER + WRITE_ENDED_AFTER / 2;
    while Instant::now() < until {
        clients.create(1, "", "h", true);
        clients.remove(1, "h");
        clients.deliver(10, 1);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(clients.rig.catalog.status().cuts.exact, before);
    clients.check();
}

#[test]
fn what_was_told_late_is_not_laid_over_what_was_done_after_it() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.create(0, "", "g", true);
    clients.write(0, "f", 0, vec![9; 100], false);
    clients.settle();
    clients.world.lock().unwrap().unsure = true;
    // Two writes of the same bytes, and only the second is told in time.
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.land(0);
    clients.write(1, "f", 0, vec![2; 100], false);
    clients.land(0);
    for (began_ns, body) in clients.world.lock().unwrap().queues[1].drain(..) {
        clients.rig.fed.feed(2, began_ns, body);
    }
    let fed = clients.rig.fed();
    clients
        .rig
        .wait("the second is read", |s| s.applied == fed && s.dirty_objects == 0);
    // From the next moment on all is known. Its round has the first, and waits for this one.
    clients.write(0, "g", 0, vec![1; 100], false);
    let world = Arc::clone(&clients.world);
    let asked = {
        let mut world = world.lock().unwrap();
        world.held = true;
        world.asked
    };
    clients
        .rig
        .wait("a moment", |_| world.lock().unwrap().asked > asked);
    {
        let mut world = world.lock().unwrap();
        (world.unsure, world.held) = (false, false);
    }
    let records = fed + 4;
    clients.rig.wait("the first is applied", |s| s.applied == records);
    clients.write(2, "f", 50, vec![3; 10], false);
    clients.land(1);
    clients.check();
}

/// What reads too soon has done so after this time.
const TOO_SOON: Duration = Duration::from_millis(300);

/// Somebody waits for what is in the journal, and all the same a write under way is not taken for ended.
fn is_read_when_it_has_ended(clients: &mut Clients) {
    clients.rig.catalog.hurry(clients.rig.fed());
    std::thread::sleep(TOO_SOON);
    assert_ne!(clients.rig.catalog.status().dirty_objects, 0);
    clients.land_all();
    clients.rig.settle();
    clients.rig.check_disk();
}

fn within_a_write() -> Clients {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.settle();
    clients.write(0, "f", 0, vec![2; 100], false);
    clients.apply();
    clients
}

#[test]
fn a_write_under_way_when_exact_states_end_is_read_when_it_has_ended() {
    let mut clients = within_a_write();
    clients.world.lock().unwrap().map = true;
    is_read_when_it_has_ended(&mut clients);
}

#[test]
fn a_write_under_way_when_vfsxd_starts_is_read_when_it_has_ended() {
    let mut clients = within_a_write();
    clients.rig.catalog.stop();
    clients.world.lock().unwrap().map = true;
    clients.rig.restart();
    is_read_when_it_has_ended(&mut clients);
}

#[test]
fn a_gap_ends_exact_states_until_the_share_was_compared() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.settle();
    // Done in a call that nobody told of, by a process that is gone.
    fs::create_dir(clients.rig.path("untold")).unwrap();
    fs::create_dir(clients.shadow.path().join("untold")).unwrap();
    clients.states.push(state_of(clients.shadow.path()));
    let gap = Body::Gap {
        since_ns: 1,
        reason: GapReason::Killed,
    };
    clients.world.lock().unwrap().tell(1, monotonic_ns(), gap);
    clients.write(0, "f", 0, vec![1; 100], false);
    clients.land_all();
    let status = clients.settle();
    assert!(status.gap.is_none() && clients.rig.id("untold").is_some());
    clients.check();
}

#[test]
fn a_process_that_dies_in_its_writes_leaves_what_is_on_disk() {
    let mut clients = Clients::new();
    clients.create(0, "", "f", true);
    clients.write(0, "f", 0, vec![1; 5 * BLOCK as usize], false);
    clients.land_all();
    clients.settle();
    // Announced and never made, in the middle of others that are.
    let node = clients.rig.node("f");
    for at in [0, 3 * BLOCK] {
        let body = Body::Write {
            handle: 77,
            node,
            start: at,
            length: 100,
            data: Some(Bytes::from(vec![9; 100])),
        };
        let mut world = clients.world.lock().unwrap();
        let began = monotonic_ns();
        world.tell(2, began, opened(&clients.rig, "f", 77));
        world.tell(2, began, body);
    }
    clients.write(0, "f", BLOCK, vec![3; 100], false);
    clients.land_all();
    clients.deliver(10, 1);
    std::thread::sleep(Duration::from_millis(100));
    let ended = Body::SessionEnded {
        how: SessionEnd::Closed,
    };
    clients.world.lock().unwrap().tell(2, monotonic_ns(), ended);
    clients.settle();
    clients.rig.check();
}
