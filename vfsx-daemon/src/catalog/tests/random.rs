//! Clients of several smbd processes at work: every call is made on the real directory, its event goes into the queue
//! of its process, and the queues reach the journal in any interleaving.

use super::rig::{Rig, join, kind_of};
use crate::journal::{Body, Changed, Range, SessionEnd};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::fs;
use std::path::Path;

const PROCESSES: usize = 3;

#[derive(Debug, Clone)]
struct Step {
    call: u8,
    a: usize,
    b: usize,
    process: usize,
    /// Events delivered after the call.
    deliver: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..20, 0usize..1000, 0usize..40_000, 0..PROCESSES, 0usize..4);
    let step = step.prop_map(|(call, a, b, process, deliver)| Step {
        call,
        a,
        b,
        process,
        deliver,
    });
    proptest::collection::vec(step, 1..80)
}

struct Clients<'a> {
    rig: &'a Rig,
    queues: [VecDeque<Body>; PROCESSES],
    /// Sessions of the processes: another one after a crash.
    sessions: [u8; PROCESSES],
    next_handle: u64,
    turn: usize,
}

impl<'a> Clients<'a> {
    fn new(rig: &'a Rig) -> Self {
        Self {
            rig,
            queues: Default::default(),
            sessions: [1, 2, 3],
            next_handle: 1,
            turn: 0,
        }
    }

    fn tell(&mut self, process: usize, body: Body) {
        self.queues[process].push_back(body);
    }

    fn deliver(&mut self, count: usize, salt: usize) {
        for i in 0..count {
            self.turn = self.turn.wrapping_mul(31).wrapping_add(salt + i);
            let first = self.turn % PROCESSES;
            let waiting = (0..PROCESSES)
                .map(|i| (first + i) % PROCESSES)
                .find(|p| !self.queues[*p].is_empty());
            let Some(process) = waiting else { return };
            if let Some(body) = self.queues[process].pop_front() {
                let ended = matches!(body, Body::SessionEnded { .. });
                self.rig.feed_as(self.sessions[process], body);
                if ended {
                    self.sessions[process] += PROCESSES as u8;
                }
            }
        }
    }

    fn deliver_all(&mut self, salt: usize) {
        while self.queues.iter().any(|q| !q.is_empty()) {
            self.deliver(1, salt);
        }
    }

    fn act(&mut self, step: &Step) {
        let (dirs, files) = tree(self.rig.share.path());
        let dir = dirs[step.a % dirs.len()].clone();
        let name = format!("n{}", step.b % 7);
        let file = (!files.is_empty()).then(|| files[step.a % files.len()].clone());
        match (step.call, file) {
            (0..=3, _) => self.create(step, &dir, &name),
            (4 | 5, _) => self.mkdir(step, &dir, &name),
            (6 | 7, Some(file)) => self.write(step, &file, true),
            (8, Some(file)) => self.truncate(step, &file),
            (9, Some(file)) => self.remove(step, &file),
            (10, _) => self.remove(step, &dir),
            (11..=14, file) => {
                let all = dirs.iter().skip(1).chain(&files).cloned().collect::<Vec<_>>();
                let from = if step.call == 14 {
                    file
                } else {
                    all.get(step.b % all.len().max(1)).cloned()
                };
                if let Some(from) = from {
                    self.rename(step, &from, &dir, &name);
                }
            }
            (15, Some(file)) => self.link(step, &file, &dir, &name),
            (16, Some(file)) => self.touch(step, &file),
            (17, _) => self.touch(step, &dir),
            (18, _) => self.symlink(step, &dir, &name),
            (19, Some(file)) => {
                self.write(step, &file, false);
                self.tell(
                    step.process,
                    Body::SessionEnded {
                        how: SessionEnd::Closed,
                    },
                );
            }
            _ => {}
        }
        self.deliver(step.deliver, step.b);
    }

    fn created(&mut self, step: &Step, dir: &str, name: &str) {
        let path = join(dir, name);
        let body = Body::Create {
            dir: self.rig.dir(dir),
            name: name.into(),
            node: self.rig.node(&path),
            kind: kind_of(&self.rig.path(&path)),
        };
        self.tell(step.process, body);
    }

    fn create(&mut self, step: &Step, dir: &str, name: &str) {
        let path = join(dir, name);
        if self.rig.path(&path).symlink_metadata().is_err() {
            fs::write(self.rig.path(&path), b"").unwrap();
            self.created(step, dir, name);
            self.write(step, &path, true);
        }
    }

    fn mkdir(&mut self, step: &Step, dir: &str, name: &str) {
        if fs::create_dir(self.rig.path(&join(dir, name))).is_ok() {
            self.created(step, dir, name);
        }
    }

    fn symlink(&mut self, step: &Step, dir: &str, name: &str) {
        if std::os::unix::fs::symlink("n1", self.rig.path(&join(dir, name))).is_ok() {
            self.created(step, dir, name);
        }
    }

    /// `told`: the client goes on to say what it wrote; else its process dies before that.
    fn write(&mut self, step: &Step, path: &str, told: bool) {
        let (offset, length) = (step.b as u64 / 2, 1 + step.a as u64 * 7 % 9000);
        let (node, path_hint, handle) = (self.rig.node(path), path.as_bytes().to_vec(), self.next_handle);
        self.next_handle += 1;
        self.tell(
            step.process,
            Body::Opened {
                handle,
                node,
                path_hint: path_hint.clone(),
            },
        );
        self.rig
            .write_at(path, offset, &vec![step.b as u8; length as usize]);
        if told {
            let ranges = vec![Range {
                start: offset,
                end: offset + length,
            }];
            self.tell(
                step.process,
                Body::Dirty {
                    handle,
                    node,
                    path_hint,
                    ranges,
                    whole: step.a.is_multiple_of(9),
                },
            );
            self.tell(step.process, Body::Closed { handle, node });
        }
    }

    fn truncate(&mut self, step: &Step, path: &str) {
        let file = fs::File::options().write(true).open(self.rig.path(path)).unwrap();
        let size = step.b as u64;
        let changed = size.min(file.metadata().unwrap().len());
        file.set_len(size).unwrap();
        let (node, path_hint, handle) = (self.rig.node(path), path.as_bytes().to_vec(), self.next_handle);
        self.next_handle += 1;
        self.tell(
            step.process,
            Body::Opened {
                handle,
                node,
                path_hint: path_hint.clone(),
            },
        );
        let ranges = vec![Range {
            start: changed,
            end: u64::MAX,
        }];
        self.tell(
            step.process,
            Body::Dirty {
                handle,
                node,
                path_hint,
                ranges,
                whole: false,
            },
        );
        self.tell(step.process, Body::Closed { handle, node });
    }

    fn remove(&mut self, step: &Step, path: &str) {
        let Some((dir, name)) = split(path) else { return };
        let body = Body::Unlink {
            dir: self.rig.dir(dir),
            name: name.into(),
            node: self.rig.node(path),
        };
        let full = self.rig.path(path);
        let done = if full.is_dir() && !full.is_symlink() {
            fs::remove_dir(full)
        } else {
            fs::remove_file(full)
        };
        if done.is_ok() {
            self.tell(step.process, body);
        }
    }

    fn rename(&mut self, step: &Step, from: &str, to_dir: &str, to_name: &str) {
        let Some((from_dir, from_name)) = split(from) else {
            return;
        };
        let to = join(to_dir, to_name);
        let replaced = self
            .rig
            .path(&to)
            .symlink_metadata()
            .ok()
            .map(|_| self.rig.node(&to));
        let body = Body::Rename {
            from: self.rig.dir(from_dir),
            from_name: from_name.into(),
            to: self.rig.dir(to_dir),
            to_name: to_name.into(),
            node: self.rig.node(from),
            replaced,
        };
        let failed = Body::Look {
            dir: self.rig.dir(to_dir),
            name: to_name.into(),
        };
        match fs::rename(self.rig.path(from), self.rig.path(&to)) {
            Ok(()) => self.tell(step.process, body),
            Err(_) => self.tell(step.process, failed),
        }
    }

    fn link(&mut self, step: &Step, file: &str, dir: &str, name: &str) {
        if fs::hard_link(self.rig.path(file), self.rig.path(&join(dir, name))).is_ok() {
            let body = Body::Link {
                dir: self.rig.dir(dir),
                name: name.into(),
                node: self.rig.node(file),
            };
            self.tell(step.process, body);
        }
    }

    fn touch(&mut self, step: &Step, path: &str) {
        use std::os::unix::fs::PermissionsExt;
        let full = self.rig.path(path);
        let mode = 0o700 | (step.b as u32 % 64);
        fs::set_permissions(&full, fs::Permissions::from_mode(mode)).unwrap();
        let value = step.b.to_be_bytes();
        rustix::fs::setxattr(&full, "user.x", &value, rustix::fs::XattrFlags::empty()).unwrap();
        let changed = Changed {
            stat: true,
            xattrs: true,
        };
        let body = Body::Touched {
            node: self.rig.node(path),
            path_hint: path.as_bytes().to_vec(),
            changed,
        };
        self.tell(step.process, body);
    }
}

/// Directory and name; `None` for the root.
fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/') {
        Some(split) => Some(split),
        None if path.is_empty() => None,
        None => Some(("", path)),
    }
}

/// All directories, the root first, and all regular files.
fn tree(root: &Path) -> (Vec<String>, Vec<String>) {
    let (mut dirs, mut files) = (vec![String::new()], Vec::new());
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        at += 1;
        let mut entries: Vec<_> = fs::read_dir(root.join(&dir))
            .unwrap()
            .map(|e| e.unwrap())
            .collect();
        entries.sort_by_key(|e| e.file_name());
        for entry in entries {
            let path = join(&dir, entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() {
                files.push(path);
            }
        }
    }
    (dirs, files)
}

/// Few, since each works on a real directory; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_time: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_order_events_of_several_processes_come_in_the_catalog_ends_as_the_disk(steps in steps()) {
        let rig = Rig::new();
        let mut clients = Clients::new(&rig);
        for step in &steps {
            clients.act(step);
        }
        clients.deliver_all(steps.len());
        rig.check();
        prop_assert!(rig.catalog.status().gap.is_none());
    }

    #[test]
    fn crashes_between_transactions_lose_and_double_nothing(
        steps in steps(),
        crashes in proptest::collection::vec((0u64..12, any::<bool>()), 1..5)
    ) {
        let mut rig = Rig::new();
        let mut queues: [VecDeque<Body>; PROCESSES] = Default::default();
        for (part, (commits, happens)) in steps.chunks(steps.len().div_ceil(crashes.len())).zip(&crashes) {
            rig.crash_after(*commits, *happens);
            let mut clients = Clients { queues, ..Clients::new(&rig) };
            for step in part {
                clients.act(step);
            }
            clients.deliver(4, part.len());
            queues = clients.queues;
            rig.restart();
        }
        let mut clients = Clients { queues, ..Clients::new(&rig) };
        clients.deliver_all(7);
        rig.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().div_ceil(2), max_shrink_time: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn excluded_names_are_left_out_whatever_order_events_come_in(steps in steps()) {
        let rig = Rig::new();
        rig.exclude("/n5/n6/");
        let mut clients = Clients::new(&rig);
        for step in &steps {
            clients.act(step);
        }
        clients.deliver_all(steps.len());
        rig.check();
        prop_assert!(rig.catalog.status().gap.is_none());
    }
}
