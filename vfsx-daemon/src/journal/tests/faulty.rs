//! Storage that fails and forgets.
//!
//! Fault model: any call may fail once with part of its effect done (short write, EIO, ENOSPC), or be the last one
//! before the machine stops. A sync that fails has lost what was not synced before it, though reads still show it (as
//! the kernel does). After a stop, what was not synced is there whole, in part, or not at all; directory changes
//! since the last `sync_dir` are there up to any point.

use crate::journal::storage::{SegmentFile, Storage};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The machine stops at this call.
    Stop,
    /// A write takes half; other calls are not affected.
    Short,
    /// The call fails; a write has done half.
    Error(rustix::io::Errno),
}

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing is lost: only the process ended.
    None,
    /// Everything unsynced.
    All,
    /// The last write is cut in half, what came before it is there.
    Torn,
    /// Each write and each directory change is there or not, by these bits.
    Some(u64),
}

#[derive(Clone, Default)]
struct FileState {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone)]
enum NameChange {
    Put(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Default)]
struct Disk {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    calls: usize,
    fault: Option<(usize, Fault)>,
    stopped: bool,
}

#[derive(Clone, Default)]
pub(super) struct Faulty {
    disk: Arc<Mutex<Disk>>,
}

struct Open {
    disk: Arc<Mutex<Disk>>,
    id: usize,
}

impl Faulty {
    /// The `at`th call (from 1) meets the fault.
    pub(super) fn with_fault(at: usize, fault: Fault) -> Self {
        let storage = Self::default();
        storage.lock().fault = Some((at, fault));
        storage
    }

    pub(super) fn calls(&self) -> usize {
        self.lock().calls
    }

    pub(super) fn stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Bytes of all files that have a name.
    pub(super) fn bytes(&self) -> u64 {
        let disk = self.lock();
        disk.names
            .values()
            .map(|id| disk.files[*id].visible.len() as u64)
            .sum()
    }

    /// The disk as a restart finds it; no more faults.
    pub(super) fn after_crash(&self, loss: Loss) -> Self {
        let disk = self.lock();
        if loss == Loss::None {
            // What was not synced is there, and still not synced.
            let after = Disk {
                files: disk.files.clone(),
                names: disk.names.clone(),
                durable_names: disk.durable_names.clone(),
                pending_names: disk.pending_names.clone(),
                ..Disk::default()
            };
            return Self {
                disk: Arc::new(Mutex::new(after)),
            };
        }
        let mut chance = Chance(match loss {
            Loss::Some(bits) => bits | 1,
            _ => 1,
        });
        let names = disk.names_after(loss, &mut chance);
        let files: Vec<FileState> = disk.files.iter().map(|f| f.after(loss, &mut chance)).collect();
        let after = Disk {
            files,
            names: names.clone(),
            durable_names: names,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(after)),
        }
    }

    /// Changes a file behind the journal's back.
    pub(super) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.lock();
        let id = disk.names[name];
        let file = &mut disk.files[id];
        change(&mut file.visible);
        file.durable = file.visible.clone();
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("tests do not panic while they hold it")
    }
}

/// xorshift: the same bits give the same choices.
struct Chance(u64);

impl Chance {
    fn flip(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & 1 == 0
    }
}

impl FileState {
    fn after(&self, loss: Loss, chance: &mut Chance) -> Self {
        let mut content = self.durable.clone();
        match loss {
            Loss::None | Loss::All => {}
            Loss::Torn => {
                for (i, change) in self.pending.iter().enumerate() {
                    let mut change = change.clone();
                    if let (Change::Write(_, bytes), true) = (&mut change, i + 1 == self.pending.len()) {
                        bytes.truncate(bytes.len() / 2);
                    }
                    change.apply(&mut content);
                }
            }
            Loss::Some(_) => {
                for change in &self.pending {
                    if chance.flip() {
                        change.apply(&mut content);
                    }
                }
            }
        }
        Self {
            visible: content.clone(),
            durable: content,
            pending: Vec::new(),
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length, 0),
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Disk {
    /// Counts a call; what is to happen to it.
    fn call(&mut self) -> io::Result<Option<Fault>> {
        if self.stopped {
            return Err(io::Error::other("the machine has stopped"));
        }
        self.calls += 1;
        let Some((_, fault)) = self.fault.filter(|(at, _)| *at == self.calls) else {
            return Ok(None);
        };
        match fault {
            Fault::Stop => {
                self.stopped = true;
                Err(io::Error::other("the machine has stopped"))
            }
            fault => Ok(Some(fault)),
        }
    }

    /// The same for calls that a fault makes fail without effect.
    fn plain_call(&mut self) -> io::Result<()> {
        match self.call()? {
            Some(Fault::Error(errno)) => Err(errno.into()),
            _ => Ok(()),
        }
    }

    fn names_after(&self, loss: Loss, chance: &mut Chance) -> BTreeMap<String, usize> {
        match loss {
            Loss::None | Loss::Torn => self.names.clone(),
            Loss::All => self.durable_names.clone(),
            Loss::Some(_) => {
                let mut names = self.durable_names.clone();
                // Directory changes become durable in order.
                for change in self.pending_names.iter().take_while(|_| chance.flip()) {
                    change.apply(&mut names);
                }
                names
            }
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Put(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Storage for Faulty {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.lock();
        disk.plain_call()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let mut disk = self.lock();
        disk.plain_call()?;
        let id = disk.files.len();
        disk.files.push(FileState::default());
        disk.change_names(NameChange::Put(name.to_owned(), id));
        Ok(Arc::new(Open {
            disk: Arc::clone(&self.disk),
            id,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let mut disk = self.lock();
        disk.plain_call()?;
        let id = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Open {
            disk: Arc::clone(&self.disk),
            id,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.plain_call()?;
        disk.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.plain_call()?;
        disk.change_names(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.lock();
        disk.plain_call()?;
        disk.pending_names.clear();
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("tests do not panic while they hold it")
    }
}

impl SegmentFile for Open {
    fn length(&self) -> io::Result<u64> {
        let mut disk = self.lock();
        disk.plain_call()?;
        Ok(disk.files[self.id].visible.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.lock();
        disk.plain_call()?;
        let content = &disk.files[self.id].visible;
        let from = content.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(buffer.len());
        buffer[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.lock();
        let fault = disk.call();
        let taken = match &fault {
            Ok(None) => bytes.len(),
            Ok(Some(_)) => bytes.len().div_ceil(2),
            Err(_) if disk.fault.is_some_and(|(at, _)| at == disk.calls) => bytes.len() / 2,
            Err(_) => 0,
        };
        let change = Change::Write(offset as usize, bytes[..taken].to_vec());
        let file = &mut disk.files[self.id];
        change.apply(&mut file.visible);
        file.pending.push(change);
        match fault? {
            Some(Fault::Error(errno)) => Err(errno.into()),
            _ => Ok(taken),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut disk = self.lock();
        disk.plain_call()?;
        let change = Change::Length(length as usize);
        let file = &mut disk.files[self.id];
        change.apply(&mut file.visible);
        file.pending.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.lock();
        let fault = disk.call()?;
        let file = &mut disk.files[self.id];
        let pending = std::mem::take(&mut file.pending);
        if let Some(Fault::Error(errno)) = fault {
            return Err(errno.into());
        }
        for change in pending {
            change.apply(&mut file.durable);
        }
        Ok(())
    }
}
