//! Clients of a share in mode copy, whose modules tell what they do: the share, what its journal has, and what is true of it.

use super::super::rig::{Fed, Rig, join, kind_of};
use crate::catalog::store::{EndRow, Key, LogRow, Prefix, page};
use crate::catalog::{Moment, Options, Sessions, Status};
use crate::journal::{Body, Metadata, Range, monotonic_ns};
use bytes::Bytes;
use restfs_lib::kv::{Kv, MemoryKv};
use restfs_lib::model::Op;
use restfs_lib::tree::{self, History};
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vfsx_proto::ring::LONG_WRITE;

use super::state::*;
pub(super) const PROCESSES: usize = 3;
pub(super) const POLL: Duration = Duration::from_micros(200);

/// An announced write that has not been made yet.
pub(super) struct Flight {
    pub(super) process: usize,
    pub(super) path: String,
    pub(super) offset: u64,
    pub(super) data: Vec<u8>,
    pub(super) began_ns: u64,
    pub(super) fails: bool,
}

/// The clients' side: what is done, and what of it is told.
#[derive(Default)]
pub(super) struct World {
    pub(super) queues: [VecDeque<(u64, Body)>; PROCESSES],
    pub(super) flights: Vec<Flight>,
    pub(super) turn: usize,
    /// Sessions do not say how far they are.
    pub(super) unsure: bool,
    /// They tell ranges only.
    pub(super) map: bool,
    /// Answers to those who ask for a moment wait.
    pub(super) held: bool,
    /// Moments asked for.
    pub(super) asked: usize,
}

impl World {
    pub(super) fn tell(&mut self, process: usize, began_ns: u64, body: Body) {
        self.queues[process].push_back((began_ns, body));
    }

    /// One event reaches the journal; which process' is a matter of chance.
    pub(super) fn deliver(&mut self, fed: &Fed, salt: usize) -> bool {
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

pub(super) struct Modules {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) fed: Arc<Fed>,
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
pub(super) struct Clients {
    pub(super) rig: Rig,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) shadow: TempDir,
    pub(super) states: Vec<State>,
    pub(super) next_handle: u64,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self::with_options(|_| {})
    }

    pub(super) fn with_options(change: impl FnOnce(&mut Options)) -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let modules = Arc::clone(&world);
        let rig = Rig::with_sessions(
            |_| {},
            |options| {
                // Few, so that rounds are more than one transaction.
                options.records = 3;
                change(options);
            },
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
    pub(super) fn call(
        &mut self,
        process: usize,
        act: impl Fn(&Path) -> bool,
        tell: impl FnOnce(&Rig) -> Vec<Body>,
    ) {
        self.call_knowing(process, |_| (), act, |rig, ()| tell(rig));
    }

    /// The same; `before` takes note of what is there before it.
    pub(super) fn call_knowing<T>(
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

    pub(super) fn create(&mut self, process: usize, dir: &str, name: &str, described: bool) {
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

    pub(super) fn mkdir(&mut self, process: usize, dir: &str, name: &str, described: bool) {
        let path = join(dir, name);
        let act = |root: &Path| fs::create_dir(root.join(&path)).is_ok();
        self.call(process, act, |rig| created(rig, dir, name, described));
    }

    pub(super) fn rename(&mut self, process: usize, from: &str, to: &str) {
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

    pub(super) fn remove(&mut self, process: usize, path: &str) {
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

    pub(super) fn chmod(&mut self, process: usize, path: &str, mode: u32, described: bool) {
        let value = mode.to_be_bytes();
        let act = |root: &Path| {
            let path = root.join(path);
            let done = fs::set_permissions(&path, fs::Permissions::from_mode(mode)).is_ok();
            done && rustix::fs::setxattr(&path, "user.x", &value, rustix::fs::XattrFlags::empty()).is_ok()
        };
        self.call(process, act, |rig| vec![touched(rig, path, described)]);
    }

    pub(super) fn resize(&mut self, process: usize, path: &str, size: u64) {
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
    pub(super) fn write_untold(&mut self, process: usize, path: &str, offset: u64, data: &[u8]) {
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
    pub(super) fn write(&mut self, process: usize, path: &str, offset: u64, data: Vec<u8>, fails: bool) {
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
    pub(super) fn land(&mut self, which: usize) {
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

    pub(super) fn land_all(&mut self) {
        while !self.world.lock().unwrap().flights.is_empty() {
            self.land(0);
        }
    }

    pub(super) fn is_busy(&self, path: &str) -> bool {
        let world = self.world.lock().unwrap();
        let beneath = format!("{path}/");
        world
            .flights
            .iter()
            .any(|f| f.path == path || f.path.starts_with(&beneath))
    }

    pub(super) fn deliver(&mut self, count: usize, salt: usize) {
        let mut world = self.world.lock().unwrap();
        for _ in 0..count {
            world.deliver(&self.rig.fed, salt);
        }
    }

    /// All is told and taken in, and the newest state is marked.
    pub(super) fn settle(&mut self) -> Status {
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
    pub(super) fn check(&mut self) -> usize {
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

    pub(super) fn marked_states(&self) -> Vec<(u64, State)> {
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
    pub(super) fn apply(&mut self) {
        while self.world.lock().unwrap().deliver(&self.rig.fed, 3) {}
        let fed = self.rig.fed();
        self.rig.wait("all is applied", |s| s.applied == fed);
    }

    pub(super) fn handle(&mut self) -> u64 {
        self.next_handle += 1;
        self.next_handle
    }
}

pub(super) fn created(rig: &Rig, dir: &str, name: &str, described: bool) -> Vec<Body> {
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

pub(super) fn opened(rig: &Rig, path: &str, handle: u64) -> Body {
    Body::Opened {
        handle,
        node: rig.node(path),
        path_hint: path.as_bytes().to_vec(),
    }
}

pub(super) fn touched(rig: &Rig, path: &str, described: bool) -> Body {
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

pub(super) fn write_at(path: &Path, offset: u64, data: &[u8]) -> bool {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.is_ok_and(|file| file.write_all_at(data, offset).is_ok())
}

pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
