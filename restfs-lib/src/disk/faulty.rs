//! Storage that fails and forgets, for tests.
//!
//! Fault model: any call may fail once with part of its effect done (short write, EIO, ENOSPC), or be the last one
//! before the machine stops. A sync that fails has lost what was not synced before it, though reads still show it (as
//! the kernel does). After a stop, what was not synced is there whole, in part, in any order, sector by sector, or not at
//! all; so are changes of a directory since its last `sync_dir`.

use super::{Storage, StorageFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

/// Numbers of Linux.
pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops at this call.
    Stop,
    /// A write takes half; other calls are not affected.
    Short,
    /// The call fails with this error number; a write has done half.
    Error(i32),
    /// So do this many calls.
    Errors(i32, usize),
}

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing is lost: only the process ended.
    None,
    /// Everything unsynced.
    All,
    /// The last write of each file is cut in half, what came before it is there.
    Torn,
    /// Each write is there or not, by these bits; changes of directories are there up to some point.
    Some(u64),
    /// Each sector of each write, and each change of a directory, is there or not, by these bits.
    Sectors(u64),
}

impl Loss {
    /// Whether later writes may be there without earlier ones.
    pub fn reorders(self) -> bool {
        matches!(self, Self::Some(_) | Self::Sectors(_))
    }
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

/// Directory and name.
type Name = (String, String);

#[derive(Clone)]
enum NameChange {
    Put(Name, usize),
    Rename(Name, Name),
    Remove(Name),
}

#[derive(Default)]
struct Disk {
    files: Vec<FileState>,
    names: BTreeMap<Name, usize>,
    durable_names: BTreeMap<Name, usize>,
    pending_names: Vec<NameChange>,
    calls: usize,
    fault: Option<(usize, Fault)>,
    stopped: bool,
    failed_in_sync: bool,
}

/// A directory; its clones, and other directories of the same disk, share calls, fault and fate.
#[derive(Clone, Default)]
pub struct Faulty {
    disk: Arc<Mutex<Disk>>,
    directory: String,
}

struct Open {
    disk: Arc<Mutex<Disk>>,
    id: usize,
}

impl Faulty {
    /// The `at`th call (from 1) meets the fault.
    pub fn with_fault(at: usize, fault: Fault) -> Self {
        let storage = Self::default();
        storage.set_fault(at, fault);
        storage
    }

    /// The `after`th call from now on (from 1) meets the fault.
    pub fn set_fault(&self, after: usize, fault: Fault) {
        let mut disk = self.lock();
        disk.fault = Some((disk.calls + after, fault));
    }

    /// No call from now on meets a fault.
    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// Another directory on the same disk.
    pub fn directory(&self, name: &str) -> Self {
        Self {
            disk: Arc::clone(&self.disk),
            directory: name.to_owned(),
        }
    }

    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// Whether the fault was met.
    pub fn met(&self) -> bool {
        let disk = self.lock();
        disk.fault.is_some_and(|(at, _)| at <= disk.calls)
    }

    pub fn stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Whether the call that failed was to make something durable.
    pub fn failed_in_sync(&self) -> bool {
        self.lock().failed_in_sync
    }

    /// Bytes of all files that have a name, in all directories.
    pub fn bytes(&self) -> u64 {
        let disk = self.lock();
        disk.names
            .values()
            .map(|id| disk.files[*id].visible.len() as u64)
            .sum()
    }

    /// The disk as a restart finds it; no more faults.
    pub fn after_crash(&self, loss: Loss) -> Self {
        let disk = self.lock();
        let after = match loss {
            // What was not synced is there, and still not synced.
            Loss::None => Disk {
                files: disk.files.clone(),
                names: disk.names.clone(),
                durable_names: disk.durable_names.clone(),
                pending_names: disk.pending_names.clone(),
                ..Disk::default()
            },
            loss => {
                let mut chance = Chance::of(loss);
                let names = disk.names_after(loss, &mut chance);
                let files = disk.files.iter().map(|f| f.after(loss, &mut chance)).collect();
                Disk {
                    files,
                    durable_names: names.clone(),
                    names,
                    ..Disk::default()
                }
            }
        };
        Self {
            disk: Arc::new(Mutex::new(after)),
            directory: self.directory.clone(),
        }
    }

    /// Changes a file behind its writer's back.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.lock();
        let id = disk.names[&self.name(name)];
        let file = &mut disk.files[id];
        change(&mut file.visible);
        file.durable = file.visible.clone();
    }

    fn name(&self, name: &str) -> Name {
        (self.directory.clone(), name.to_owned())
    }

    fn file(&self, id: usize) -> Arc<dyn StorageFile> {
        Arc::new(Open {
            disk: Arc::clone(&self.disk),
            id,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("tests do not panic while they hold it")
    }
}

/// xorshift: the same bits give the same choices.
struct Chance(u64);

impl Chance {
    fn of(loss: Loss) -> Self {
        match loss {
            Loss::Some(bits) | Loss::Sectors(bits) => Self(bits | 1),
            Loss::None | Loss::All | Loss::Torn => Self(1),
        }
    }

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
        for (number, change) in self.pending.iter().enumerate() {
            let last = number + 1 == self.pending.len();
            match (loss, change) {
                (Loss::All, _) => {}
                (Loss::Torn, Change::Write(offset, bytes)) if last => {
                    Change::Write(*offset, bytes[..bytes.len() / 2].to_vec()).apply(&mut content);
                }
                (Loss::None | Loss::Torn, change) => change.apply(&mut content),
                (Loss::Sectors(_), Change::Write(offset, bytes)) => {
                    for sector in sectors(*offset, bytes).filter(|_| chance.flip()) {
                        sector.apply(&mut content);
                    }
                }
                (Loss::Some(_) | Loss::Sectors(_), change) => {
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

/// A write as the disk does it.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = Change> {
    let (head, rest) = bytes.split_at(bytes.len().min(SECTOR - offset % SECTOR));
    let starts = (offset + head.len()..).step_by(SECTOR);
    std::iter::once((offset, head))
        .chain(starts.zip(rest.chunks(SECTOR)))
        .map(|(at, part)| Change::Write(at, part.to_vec()))
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
        let Some((at, fault)) = self.fault.filter(|(at, _)| *at <= self.calls) else {
            return Ok(None);
        };
        let late = self.calls - at;
        match fault {
            Fault::Errors(number, calls) if late < calls => Ok(Some(Fault::Error(number))),
            Fault::Stop if late == 0 => {
                self.stopped = true;
                Err(io::Error::other("the machine has stopped"))
            }
            Fault::Short | Fault::Error(_) if late == 0 => Ok(Some(fault)),
            _ => Ok(None),
        }
    }

    /// The same for calls that a fault makes fail without effect.
    fn plain_call(&mut self) -> io::Result<()> {
        match self.call()? {
            Some(Fault::Error(number)) => Err(io::Error::from_raw_os_error(number)),
            _ => Ok(()),
        }
    }

    fn names_after(&self, loss: Loss, chance: &mut Chance) -> BTreeMap<Name, usize> {
        let mut names = self.durable_names.clone();
        let pending = self.pending_names.iter();
        match loss {
            Loss::None | Loss::Torn => return self.names.clone(),
            Loss::All => {}
            Loss::Some(_) => pending
                .take_while(|_| chance.flip())
                .for_each(|change| change.apply(&mut names)),
            Loss::Sectors(_) => pending
                .filter(|_| chance.flip())
                .for_each(|change| change.apply(&mut names)),
        }
        names
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<Name, usize>) {
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

    fn directory(&self) -> &str {
        match self {
            Self::Put((directory, _), _) | Self::Rename((directory, _), _) | Self::Remove((directory, _)) => {
                directory
            }
        }
    }
}

impl Storage for Faulty {
    fn make(&self) -> io::Result<()> {
        self.lock().plain_call()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.lock();
        disk.plain_call()?;
        let own = disk.names.keys().filter(|(dir, _)| *dir == self.directory);
        Ok(own.map(|(_, name)| name.clone()).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.lock();
        disk.plain_call()?;
        if let Some(id) = disk.names.get(&self.name(name)).copied() {
            // The same file, emptied: who has it open sees that.
            disk.files[id].change(Change::Length(0));
            return Ok(self.file(id));
        }
        let id = disk.files.len();
        disk.files.push(FileState::default());
        disk.change_names(NameChange::Put(self.name(name), id));
        Ok(self.file(id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.lock();
        disk.plain_call()?;
        let id = disk.names.get(&self.name(name)).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(*id))
    }

    fn open_read(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.plain_call()?;
        disk.change_names(NameChange::Rename(self.name(from), self.name(to)));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.plain_call()?;
        if !disk.names.contains_key(&self.name(name)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_names(NameChange::Remove(self.name(name)));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.lock();
        if let Err(error) = disk.plain_call() {
            disk.failed_in_sync = true;
            return Err(error);
        }
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut disk.pending_names)
            .into_iter()
            .partition(|change| change.directory() == self.directory);
        disk.pending_names = others;
        for change in own {
            change.apply(&mut disk.durable_names);
        }
        Ok(())
    }

    /// Whether there is space shows when something is written.
    fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn describe(&self, name: &str) -> String {
        match self.directory.as_str() {
            "" => name.to_owned(),
            directory => format!("{directory}/{name}"),
        }
    }
}

impl FileState {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.pending.push(change);
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("tests do not panic while they hold it")
    }
}

impl StorageFile for Open {
    fn length(&self) -> io::Result<u64> {
        let mut disk = self.lock();
        disk.plain_call()?;
        Ok(disk.files[self.id].visible.len() as u64)
    }

    /// Long ago: no test on this disk goes by it.
    fn modified(&self) -> io::Result<SystemTime> {
        self.lock().plain_call()?;
        Ok(SystemTime::UNIX_EPOCH)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.lock();
        disk.plain_call()?;
        let content = &disk.files[self.id].visible;
        let from = content.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(buffer.len());
        buffer[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.lock();
        let had_stopped = disk.stopped;
        let fault = disk.call();
        let taken = match &fault {
            Ok(None) => bytes.len(),
            Ok(Some(_)) => bytes.len().div_ceil(2),
            Err(_) if had_stopped => 0,
            Err(_) => bytes.len() / 2,
        };
        disk.files[self.id].change(Change::Write(offset as usize, bytes[..taken].to_vec()));
        match fault? {
            Some(Fault::Error(number)) => Err(io::Error::from_raw_os_error(number)),
            _ => Ok(taken),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut disk = self.lock();
        disk.plain_call()?;
        disk.files[self.id].change(Change::Length(length as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.lock();
        let fault = disk.call()?;
        let pending = std::mem::take(&mut disk.files[self.id].pending);
        if let Some(Fault::Error(number)) = fault {
            disk.failed_in_sync = true;
            return Err(io::Error::from_raw_os_error(number));
        }
        for change in pending {
            change.apply(&mut disk.files[self.id].durable);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_reaches_the_disk_by_sectors_in_any_order() {
        let storage = Faulty::default();
        let file = storage.create("file").expect("creates");
        storage.sync_dir().expect("syncs");
        file.write_all_at(&[1; 4 * SECTOR], 100).expect("writes");
        let mut seen = std::collections::BTreeSet::new();
        for bits in 1..200 {
            let after = storage.after_crash(Loss::Sectors(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(bits)));
            let file = after.open("file").expect("is durable");
            let mut bytes = vec![0; 100 + 4 * SECTOR];
            let _ = file.read_at(&mut bytes, 0).expect("reads");
            let there: Vec<u8> = [100, SECTOR, 2 * SECTOR, 3 * SECTOR, 4 * SECTOR]
                .map(|at| bytes[at])
                .to_vec();
            assert_eq!(bytes[SECTOR - 1], there[0], "a sector is whole or not there");
            seen.insert(there);
        }
        assert_eq!(seen.len(), 32, "each subset");
    }

    #[test]
    fn directories_of_one_disk_are_synced_apart() {
        let storage = Faulty::default();
        let (one, other) = (storage.directory("one"), storage.directory("other"));
        one.create("a").expect("creates");
        other.create("b").expect("creates");
        one.sync_dir().expect("syncs");
        let after = storage.after_crash(Loss::All);
        assert_eq!(after.directory("one").list().expect("lists"), ["a"]);
        assert!(after.directory("other").list().expect("lists").is_empty());
    }
}
