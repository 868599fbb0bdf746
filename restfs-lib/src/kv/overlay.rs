//! Pending writes over what is there.

use super::{KvError, KvRead, KvWrite, Pair, check_sizes};
use std::collections::BTreeMap;
use std::ops::Bound;

/// `None`: deleted.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Writes stay in memory; reads see them merged with the base. Dropped, nothing has happened.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    writes: Writes,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self {
            base,
            writes: BTreeMap::new(),
        }
    }

    /// The pending writes in key order; `None`: deleted.
    pub fn into_writes(self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        self.writes
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.writes.get(key) {
            Some(pending) => Ok(pending.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        merged_scan(self.base, &self.writes, from, to, limit)
    }
}

impl KvWrite for Overlay<'_> {
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

pub(super) fn merged_scan(
    base: &dyn KvRead,
    writes: &Writes,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, KvError> {
    if is_empty(from, to) {
        return Ok(Vec::new());
    }
    let mut pending = writes.range::<[u8], _>((from, to)).peekable();
    if pending.peek().is_none() {
        return base.scan(from, to, limit);
    }
    let mut base = BasePages::new(base, from, to, limit);
    let mut found = Vec::new();
    while found.len() < limit {
        let theirs = base.peek()?.map(|(key, _)| key);
        let ours = pending.peek().map(|(key, _)| *key);
        let (take_ours, take_theirs) = match (ours, theirs) {
            (None, None) => break,
            (Some(ours), Some(theirs)) => (ours <= theirs, theirs <= ours),
            (ours, theirs) => (ours.is_some(), theirs.is_some()),
        };
        let theirs = if take_theirs { base.next() } else { None };
        if !take_ours {
            found.extend(theirs);
        } else if let Some((key, Some(value))) = pending.next() {
            found.push((key.clone(), value.clone()));
        }
    }
    Ok(found)
}

/// A range that holds no key; `BTreeMap::range` panics on those whose end is before their start.
pub(super) fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
    }
}

/// Pairs of the base, page by page: how many of them pending deletions hide is not known beforehand.
struct BasePages<'a> {
    base: &'a dyn KvRead,
    to: Bound<&'a [u8]>,
    page: std::vec::IntoIter<Pair>,
    /// Where the next page starts; `None` when there is none.
    next: Option<Bound<Vec<u8>>>,
    size: usize,
}

impl<'a> BasePages<'a> {
    fn new(base: &'a dyn KvRead, from: Bound<&[u8]>, to: Bound<&'a [u8]>, size: usize) -> Self {
        Self {
            base,
            to,
            page: Vec::new().into_iter(),
            next: Some(from.map(<[u8]>::to_vec)),
            size,
        }
    }

    fn peek(&mut self) -> Result<Option<&Pair>, KvError> {
        if self.page.as_slice().is_empty()
            && let Some(from) = self.next.take()
        {
            let page = self
                .base
                .scan(from.as_ref().map(Vec::as_slice), self.to, self.size)?;
            if let Some((last, _)) = page.last().filter(|_| page.len() == self.size) {
                self.next = Some(Bound::Excluded(last.clone()));
            }
            self.page = page.into_iter();
        }
        Ok(self.page.as_slice().first())
    }

    fn next(&mut self) -> Option<Pair> {
        self.page.next()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kv, MemoryKv, transact};
    use super::*;

    #[test]
    fn deletions_that_hide_a_whole_page_do_not_end_the_scan() {
        let kv = MemoryKv::new();
        transact(&kv, |txn| {
            for key in 0..10u8 {
                txn.put(&[key], b"old")?;
            }
            Ok::<_, KvError>(())
        })
        .unwrap();
        let base = kv.read().unwrap();
        let mut overlay = Overlay::new(base.as_ref());
        for key in 0..8u8 {
            overlay.delete(&[key]).unwrap();
        }
        overlay.put(&[9], b"new").unwrap();
        let found = overlay.scan(Bound::Unbounded, Bound::Unbounded, 2).unwrap();
        assert_eq!(found, [(vec![8], b"old".to_vec()), (vec![9], b"new".to_vec())]);
        assert_eq!(overlay.scan(Bound::Unbounded, Bound::Unbounded, 0).unwrap(), []);
    }

    #[test]
    fn a_range_that_ends_before_its_start_is_empty() {
        let kv = MemoryKv::new();
        let base = kv.read().unwrap();
        let mut overlay = Overlay::new(base.as_ref());
        overlay.put(b"b", b"1").unwrap();
        let backwards = overlay.scan(Bound::Included(b"c"), Bound::Included(b"a"), 9);
        assert_eq!(backwards, Ok(Vec::new()));
        assert_eq!(
            overlay.scan(Bound::Excluded(b"b"), Bound::Excluded(b"b"), 9),
            Ok(Vec::new())
        );
        assert_eq!(
            overlay
                .scan(Bound::Included(b"b"), Bound::Included(b"b"), 9)
                .unwrap()
                .len(),
            1
        );
    }
}
