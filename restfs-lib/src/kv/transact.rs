//! One retry loop for all who write.

use super::{Kv, KvError, KvRead, KvWrite, Pair};
use std::cell::Cell;
use std::ops::Bound;
use std::time::Duration;

/// Runs of one piece of work. Every conflict means that somebody else got through, so this many in a row mean that
/// the work is too long for a store that is this busy.
pub(super) const MAX_TRIES: u32 = 20;

/// Runs `work` in a transaction and commits it, again when it conflicts with another one.
pub fn transact<T, E>(kv: &dyn Kv, mut work: impl FnMut(&mut dyn KvWrite) -> Result<T, E>) -> Result<T, E>
where
    E: From<KvError>,
{
    let mut attempt = 1;
    loop {
        match once(kv, &mut work) {
            Attempt::Done(result) => return result,
            Attempt::Conflict if attempt < MAX_TRIES => back_off(attempt),
            Attempt::Conflict => return Err(KvError::Conflict.into()),
        }
        attempt += 1;
    }
}

/// Longer with every attempt, so that a short transaction's rivals get out of a long one's way; 0.2 s at most.
pub(super) fn back_off(attempt: u32) {
    std::thread::sleep(Duration::from_millis(u64::from(attempt * attempt).min(200)));
}

enum Attempt<T, E> {
    Done(Result<T, E>),
    Conflict,
}

fn once<T, E>(kv: &dyn Kv, work: &mut dyn FnMut(&mut dyn KvWrite) -> Result<T, E>) -> Attempt<T, E>
where
    E: From<KvError>,
{
    let mut txn = match kv.write() {
        Ok(txn) => txn,
        Err(KvError::Conflict) => return Attempt::Conflict,
        Err(error) => return Attempt::Done(Err(error.into())),
    };
    let mut watched = Watched::new(txn.as_mut());
    let result = work(&mut watched);
    if watched.conflict.get() {
        return Attempt::Conflict;
    }
    match result.map(|value| (value, txn.commit())) {
        Ok((value, Ok(()))) => Attempt::Done(Ok(value)),
        Ok((_, Err(KvError::Conflict))) => Attempt::Conflict,
        Ok((_, Err(error))) => Attempt::Done(Err(error.into())),
        Err(error) => Attempt::Done(Err(error)),
    }
}

/// Notices a conflict even where the work turns it into an error of its own.
pub(super) struct Watched<'a> {
    inner: &'a mut dyn KvWrite,
    pub(super) conflict: Cell<bool>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(inner: &'a mut dyn KvWrite) -> Self {
        Self {
            inner,
            conflict: Cell::new(false),
        }
    }

    fn watch<T>(&self, result: Result<T, KvError>) -> Result<T, KvError> {
        if matches!(result, Err(KvError::Conflict)) {
            self.conflict.set(true);
        }
        result
    }
}

impl KvRead for Watched<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.watch(self.inner.get(key))
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        self.watch(self.inner.scan(from, to, limit))
    }
}

impl KvWrite for Watched<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        let result = self.inner.put(key, value);
        self.watch(result)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), KvError> {
        let result = self.inner.delete(key);
        self.watch(result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryKv;
    use super::*;

    #[test]
    fn work_that_lost_a_race_runs_again_with_what_the_winner_wrote() {
        let kv = MemoryKv::new();
        let mut runs = 0;
        let seen = transact(&kv, |txn| {
            runs += 1;
            let seen = txn.get(b"k")?;
            if runs == 1 {
                transact(&kv, |rival| rival.put(b"k", b"rival"))?;
            }
            txn.put(b"k", b"mine")?;
            Ok::<_, KvError>(seen)
        });
        assert_eq!(seen, Ok(Some(b"rival".to_vec())));
        assert_eq!(runs, 2);
    }

    #[test]
    fn a_conflict_that_never_ends_is_reported() {
        let kv = MemoryKv::new();
        let mut runs = 0;
        let result = transact(&kv, |txn| {
            runs += 1;
            txn.get(b"k")?;
            transact(&kv, |rival| rival.put(b"k", &[0]))?;
            txn.put(b"k", b"mine")
        });
        assert_eq!(result, Err(KvError::Conflict));
        assert_eq!(runs, MAX_TRIES);
    }

    #[test]
    fn failed_work_leaves_nothing() {
        let kv = MemoryKv::new();
        let result = transact(&kv, |txn| {
            txn.put(b"k", b"v")?;
            Err::<(), _>(KvError::Io("broken".into()))
        });
        assert!(result.is_err());
        assert_eq!(kv.read().unwrap().get(b"k"), Ok(None));
    }
}
