//! A store in memory: the reference for the conformance suite, and quick for tests.

use super::overlay::{Writes, is_empty, merged_scan};
use super::{Kv, KvError, KvRead, KvTransaction, KvWrite, Pair, check_sizes};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type OwnedRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Transactions are optimistic: whoever commits second after reading what the first changed gets a conflict. Nothing
/// survives the process, and a version is kept for every key ever written: for tests.
#[derive(Debug, Default)]
pub struct MemoryKv {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    data: Arc<Map>,
    /// Version that wrote or deleted a key last.
    changed: BTreeMap<Vec<u8>, u64>,
}

impl MemoryKv {
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            version: state.version,
            data: Arc::clone(&state.data),
        }
    }
}

impl Kv for MemoryKv {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
        Ok(Box::new(self.snapshot()))
    }

    fn write(&self) -> Result<Box<dyn KvTransaction + '_>, KvError> {
        let base = self.snapshot();
        Ok(Box::new(Transaction {
            store: self,
            base,
            writes: Writes::new(),
            reads: RefCell::default(),
        }))
    }
}

struct Snapshot {
    version: u64,
    data: Arc<Map>,
}

impl KvRead for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.data.get(key).cloned())
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        if is_empty(from, to) {
            return Ok(Vec::new());
        }
        let range = self.data.range::<[u8], _>((from, to)).take(limit);
        Ok(range.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

struct Transaction<'a> {
    store: &'a MemoryKv,
    base: Snapshot,
    writes: Writes,
    reads: RefCell<Vec<OwnedRange>>,
}

impl Transaction<'_> {
    fn note_read(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) {
        if !is_empty(from, to) {
            self.reads
                .borrow_mut()
                .push((from.map(<[u8]>::to_vec), to.map(<[u8]>::to_vec)));
        }
    }
}

impl KvRead for Transaction<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        if let Some(pending) = self.writes.get(key) {
            return Ok(pending.clone());
        }
        self.note_read(Bound::Included(key), Bound::Included(key));
        self.base.get(key)
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        self.note_read(from, to);
        merged_scan(&self.base, &self.writes, from, to, limit)
    }
}

impl KvWrite for Transaction<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        check_sizes(key, value)?;
        self.writes.insert(key.to_vec(), Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), KvError> {
        check_sizes(key, &[])?;
        self.writes.insert(key.to_vec(), None);
        Ok(())
    }
}

impl KvTransaction for Transaction<'_> {
    fn commit(self: Box<Self>) -> Result<(), KvError> {
        let Self {
            store,
            base,
            writes,
            reads,
        } = *self;
        let version = base.version;
        // Without this snapshot the map is most often nobody else's and needs no copy.
        drop(base);
        let mut state = store.lock();
        let changed = |range: &OwnedRange| {
            state
                .changed
                .range::<Vec<u8>, _>(range.clone())
                .any(|(_, changed)| *changed > version)
        };
        if reads.borrow().iter().any(changed) {
            return Err(KvError::Conflict);
        }
        state.version += 1;
        let version = state.version;
        for (key, value) in writes {
            let data = Arc::make_mut(&mut state.data);
            match value {
                Some(value) => data.insert(key.clone(), value),
                None => data.remove(&key),
            };
            state.changed.insert(key, version);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_conformance_suite() {
        super::super::conformance::check(|| Box::new(MemoryKv::new()));
    }

    #[test]
    fn the_second_of_two_transactions_that_read_and_write_the_same_key_conflicts() {
        let kv = MemoryKv::new();
        let mut first = kv.write().unwrap();
        let mut second = kv.write().unwrap();
        for txn in [&mut first, &mut second] {
            assert_eq!(txn.get(b"k"), Ok(None));
            txn.put(b"k", b"v").unwrap();
        }
        assert_eq!(first.commit(), Ok(()));
        assert_eq!(second.commit(), Err(KvError::Conflict));
    }

    #[test]
    fn a_scan_conflicts_with_a_key_that_appears_in_its_range() {
        let kv = MemoryKv::new();
        let mut reader = kv.write().unwrap();
        reader
            .scan(Bound::Included(b"a"), Bound::Excluded(b"c"), 10)
            .unwrap();
        reader.put(b"z", b"1").unwrap();
        let mut outside = kv.write().unwrap();
        outside.put(b"c", b"1").unwrap();
        outside.commit().unwrap();
        let mut inside = kv.write().unwrap();
        inside.put(b"b", b"1").unwrap();
        inside.commit().unwrap();
        assert_eq!(reader.commit(), Err(KvError::Conflict));
    }
}
