//! A client that works on a directory of its own and knows what must be in it, whatever becomes of its connection.

use super::gate::Gate;
use super::model::{HELD, Operation, Tree};
use crate::lab::{READY_LIMIT, runs};
use crate::smb::{Handle, Open, Session};
use crate::testlab::TestLab;
use crate::wait;
use crate::work::Random;
use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two operations, and before a lost connection is tried again: a busy person, not a benchmark.
const PAUSE: Duration = Duration::from_millis(10);
const AGAIN: Duration = Duration::from_millis(200);
/// Changes in a row among names that are nobody's own, and how many names those are.
const STORM: u64 = 10;
const STORM_NAMES: u64 = 6;
const REFUSED: &str = "refused by smbd";

/// What smbd confirmed to a client.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    /// In order.
    marks: Mutex<Vec<(u64, Instant)>>,
    operations: AtomicU64,
}

impl Confirmed {
    fn add(&self, operation: &Operation) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        if let Operation::Mark { number } = operation {
            lock(&self.marks).push((*number, Instant::now()));
        }
    }

    /// When the first after `mark` was confirmed.
    pub(super) fn after(&self, mark: u64) -> Option<Instant> {
        let marks = lock(&self.marks);
        let at = marks.partition_point(|(known, _)| *known <= mark);
        marks.get(at).map(|(_, at)| *at)
    }

    /// How many.
    pub(super) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client did.
#[derive(Debug, Default)]
pub(super) struct Worked {
    pub(super) operations: u64,
    /// Operations whose end the client did not hear of.
    pub(super) lost: u64,
    pub(super) refused: u64,
}

pub(super) struct Client<'a> {
    lab: &'a TestLab,
    gate: &'a Gate,
    confirmed: &'a Confirmed,
    seed: u64,
    number: u64,
    dir: String,
    session: Option<(Session, Handle)>,
    /// smbd's processes of which one is this client's.
    served_by: Vec<Pid>,
    /// A delete that was not done. Samba remembers the wish of a killed process, and deletes the file when the next one that has
    /// opened it closes it.
    again: Option<Operation>,
    tree: Tree,
    worked: Worked,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        lab: &'a TestLab,
        gate: &'a Gate,
        confirmed: &'a Confirmed,
        seed: u64,
        number: u64,
    ) -> Self {
        Self {
            lab,
            gate,
            confirmed,
            seed,
            number,
            dir: directory(number),
            session: None,
            served_by: Vec::new(),
            again: None,
            tree: Tree::default(),
            worked: Worked::default(),
        }
    }

    /// Works until the gate ends it. An error: what is on the share's disk is not what this client did.
    pub(super) fn run(mut self) -> Result<Worked> {
        let result = self.work();
        self.gate.leave();
        result.with_context(|| format!("client {}", self.number))?;
        Ok(self.worked)
    }

    fn work(&mut self) -> Result<()> {
        let mut number = 0;
        while self.gate.pass() {
            if self.session.is_none() && (self.lab.smbd.pid().is_none() || self.connect().is_err()) {
                std::thread::sleep(AGAIN);
                continue;
            }
            let operation = self.again.take().unwrap_or_else(|| {
                number += 1;
                Operation::new(self.seed, self.number, number)
            });
            if !self.tree.allows(&operation) {
                continue;
            }
            match self.perform(&operation) {
                Ok(()) => self.done(&operation),
                Err(error) => self.doubt(&operation, &error)?,
            }
            std::thread::sleep(PAUSE);
        }
        // The connection ends after the disk was looked at: no close may change anything then.
        let found = self.on_disk()?;
        if found != self.tree {
            bail!(
                "its directory is not what it left: {}",
                difference(&self.tree, &found)
            );
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        // One client at a time, so that the new process is its own; others may come by, which end soon.
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let smbd = &self.lab.smbd;
        let before = smbd.children("smbd");
        let mut session = Session::connect(self.lab, "data")?;
        self.served_by = smbd.children("smbd");
        self.served_by.retain(|process| !before.contains(process));
        drop(turn);
        let directory = Open {
            disposition: "open_if",
            directory: Some(true),
            ..Open::default()
        };
        let made = session.open(&self.dir, &directory)?;
        session.close(made)?;
        let held = session.create(&self.path(HELD), "open_if")?;
        self.tree.files.entry(HELD.to_owned()).or_default();
        self.session = Some((session, held));
        Ok(())
    }

    fn perform(&mut self, operation: &Operation) -> Result<()> {
        let path = |name: &str| format!("{}/{name}", self.dir);
        let (session, held) = self.session.as_mut().context("no connection")?;
        match operation {
            Operation::Put { name, size, seed } => {
                let file = session.create(&path(name), "overwrite_if")?;
                if *size > 0 {
                    session.write(file, 0, &Random(*seed).bytes(*size as usize))?;
                }
                session.close(file)
            }
            Operation::Mark { number } => {
                let file = session.create(&path(super::model::MARK), "open_if")?;
                session.write(file, 0, &number.to_le_bytes())?;
                session.close(file)
            }
            Operation::Patch {
                name,
                offset,
                size,
                seed,
            } => {
                let file = session.create(&path(name), "open")?;
                session.write(file, *offset, &Random(*seed).bytes(*size as usize))?;
                session.close(file)
            }
            Operation::Truncate { name, size } => {
                let file = session.create(&path(name), "open")?;
                session.truncate(file, *size)?;
                session.close(file)
            }
            Operation::Rename { from, to } => {
                let file = session.create(&path(from), "open")?;
                session.rename_open(file, &path(to), true)?;
                session.close(file)
            }
            Operation::Delete { name } => {
                let file = session.create(&path(name), "open")?;
                session.delete_on_close(file)?;
                session.close(file)
            }
            Operation::MakeDir { name } => {
                let open = Open {
                    disposition: "create",
                    directory: Some(true),
                    ..Open::default()
                };
                let dir = session.open(&path(name), &open)?;
                session.close(dir)
            }
            Operation::RenameDir { from, to } => {
                let open = Open {
                    disposition: "open",
                    directory: Some(true),
                    ..Open::default()
                };
                let dir = session.open(&path(from), &open)?;
                session.rename_open(dir, &path(to), false)?;
                session.close(dir)
            }
            Operation::Held { offset, size, seed } => {
                session.write(*held, *offset, &Random(*seed).bytes(*size as usize))
            }
        }
    }

    fn done(&mut self, operation: &Operation) {
        self.tree.apply(operation);
        self.worked.operations += 1;
        self.confirmed.add(operation);
    }

    /// Nobody knows how far the operation came: when its smbd process has ended, the disk tells. One that is asked to end, or whose
    /// parent was killed, closes files in its own time after the connection, and deletes those that go with their close.
    fn doubt(&mut self, operation: &Operation, error: &anyhow::Error) -> Result<()> {
        let said = format!("{error:#}");
        if said.contains(REFUSED) {
            eprintln!("client {}: {said}", self.number);
            self.worked.refused += 1;
        } else {
            eprintln!("client {}: its connection was lost in {operation:?}", self.number);
            self.worked.lost += 1;
        }
        self.session = None;
        let ended = || (!self.served_by.iter().any(|process| runs(*process))).then_some(());
        wait::until("the end of the smbd process", READY_LIMIT, ended, String::new)?;
        let found = self.on_disk()?;
        if let Some(wrong) = self.tree.contradicts(operation, &found) {
            bail!("after {operation:?}, which ended with {said}: {wrong}");
        }
        self.tree = found;
        let is_delete = matches!(operation, Operation::Delete { .. });
        self.again = (is_delete && self.tree.allows(operation)).then(|| operation.clone());
        Ok(())
    }

    fn on_disk(&self) -> Result<Tree> {
        read(&self.lab.share("data")?.join(&self.dir))
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }
}

/// Of a client, in the share.
pub(super) fn directory(number: u64) -> String {
    format!("c{number}")
}

/// Fights with another one like it over names in the share's root. Its connection is never lost.
pub(super) fn fight(lab: &TestLab, gate: &Gate, seed: u64) -> Result<Worked> {
    let mut worked = Worked::default();
    let mut session = None;
    let mut number = 0;
    let mut fight = || -> Result<()> {
        while gate.pass() {
            if session.is_none() {
                session = Some(Session::connect(lab, "data")?);
            }
            let Some(session) = &mut session else { continue };
            number += 1;
            worked.operations += session.storm(seed.wrapping_mul(10_000) + number, STORM, STORM_NAMES)?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    };
    let result = fight();
    gate.leave();
    result.context("client that fights over names")?;
    Ok(worked)
}

fn read(dir: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    if !dir.exists() {
        return Ok(tree);
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (files, dirs) = crate::work::walk(dir)?;
    for file in &files {
        tree.files.insert(text(file), fs::read(dir.join(file))?);
    }
    tree.dirs = dirs.iter().map(|dir| text(dir)).collect();
    Ok(tree)
}

fn difference(left: &Tree, found: &Tree) -> String {
    let names: std::collections::BTreeSet<_> = left.files.keys().chain(found.files.keys()).collect();
    let mut wrong = names
        .into_iter()
        .filter(|name| left.files.get(*name) != found.files.get(*name));
    wrong.next().map_or_else(
        || format!("directories {:?}, found {:?}", left.dirs, found.dirs),
        |name| name.clone(),
    )
}
