//! A transaction's writes as bytes: rows put and deleted, in their order.
//!
//! A long row mostly differs little from its older revision (a segment of which one block changed), so it is kept as its
//! difference from the row behind it in the store: the same key but for the last 8 bytes, where the newest sorts first.

use super::record::PART;
use restfs_lib::kv::{KvError, KvRead, KvWrite, Pair};
use std::ops::Bound;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const PUT_DIFFERENCE: u8 = 3;

/// Rows shorter than this are kept as they are: looking for the older one would cost more than it saves.
const LONG: usize = 512;
/// Of a key: the revision.
const REVISION: usize = 8;

/// Collects the writes of one transaction.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    parts: Vec<Vec<u8>>,
    part: Vec<u8>,
}

impl Encoder {
    pub(super) fn is_empty(&self) -> bool {
        self.part.is_empty() && self.parts.is_empty()
    }

    /// To be called before the row is put, with the transaction that puts it.
    pub(super) fn put(&mut self, before: &dyn KvRead, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        match older(before, key, value)? {
            Some((base, old)) => self.put_difference(key, value, &base, &old),
            None => self.put_whole(key, value),
        }
        self.next_part();
        Ok(())
    }

    pub(super) fn put_whole(&mut self, key: &[u8], value: &[u8]) {
        self.begin(PUT, key);
        self.number(value.len());
        self.part.extend(value);
        self.next_part();
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.begin(DELETE, key);
        self.next_part();
    }

    /// At least one part, the last one may be empty.
    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        self.parts.push(self.part);
        self.parts
    }

    /// A part that is full, so that nobody has to hold all of a large transaction.
    pub(super) fn take_full_part(&mut self) -> Option<Vec<u8>> {
        self.parts.pop()
    }

    fn put_difference(&mut self, key: &[u8], value: &[u8], base: &[u8], old: &[u8]) {
        let front = common(value.iter(), old.iter());
        let most = value.len().min(old.len()) - front;
        let back = common(value.iter().rev(), old.iter().rev()).min(most);
        let middle = &value[front..value.len() - back];
        self.begin(PUT_DIFFERENCE, key);
        self.part.extend(&base[base.len() - REVISION..]);
        self.number(front);
        self.number(back);
        self.number(middle.len());
        self.part.extend(middle);
    }

    fn begin(&mut self, kind: u8, key: &[u8]) {
        self.part.push(kind);
        let length = u16::try_from(key.len()).expect("keys have at most 1024 bytes");
        self.part.extend(length.to_be_bytes());
        self.part.extend(key);
    }

    fn number(&mut self, number: usize) {
        let number = u32::try_from(number).expect("values have at most 1 MiB");
        self.part.extend(number.to_be_bytes());
    }

    fn next_part(&mut self) {
        if self.part.len() >= PART {
            self.parts.push(std::mem::take(&mut self.part));
        }
    }
}

fn common<'a>(a: impl Iterator<Item = &'a u8>, b: impl Iterator<Item = &'a u8>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

/// The revision before the one that is about to be put.
fn older(before: &dyn KvRead, key: &[u8], value: &[u8]) -> Result<Option<Pair>, KvError> {
    if value.len() < LONG || key.len() <= REVISION {
        return Ok(None);
    }
    let mut end = key.to_vec();
    end[key.len() - REVISION..].fill(u8::MAX);
    let found = before.scan(Bound::Excluded(key), Bound::Included(&end), 1)?;
    let like = |base: &Vec<u8>| base.len() == key.len();
    Ok(found.into_iter().next().filter(|(base, _)| like(base)))
}

/// Carries the writes of a part out. The text says what is wrong with bytes that no part has.
pub(super) fn apply(part: &[u8], txn: &mut dyn KvWrite) -> Result<u64, ApplyError> {
    let mut rest = Rest(part);
    let mut rows = 0;
    while !rest.0.is_empty() {
        let kind = rest.take(1)?[0];
        let length = rest.take(2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let key = rest.take(length)?;
        match kind {
            PUT => {
                let length = rest.number()?;
                txn.put(key, rest.take(length)?)?;
            }
            DELETE => txn.delete(key)?,
            PUT_DIFFERENCE => {
                let value = rest.patched(key, &*txn)?;
                txn.put(key, &value)?;
            }
            _ => return Err(ApplyError::Damaged("a write of unknown kind")),
        }
        rows += 1;
    }
    Ok(rows)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("{0}")]
    Damaged(&'static str),
    #[error(transparent)]
    Kv(#[from] KvError),
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ApplyError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(ApplyError::Damaged("a write that is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<usize, ApplyError> {
        let bytes = self.take(4)?;
        let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(number as usize)
    }

    fn patched(&mut self, key: &[u8], txn: &dyn KvRead) -> Result<Vec<u8>, ApplyError> {
        let revision = self.take(REVISION)?;
        let row = key.len().checked_sub(REVISION).and_then(|end| key.get(..end));
        let base = row
            .map(|row| txn.get(&[row, revision].concat()))
            .transpose()?
            .flatten()
            .ok_or(ApplyError::Damaged("a difference from a row that is not there"))?;
        let (front, back, middle) = (self.number()?, self.number()?, self.number()?);
        let middle = self.take(middle)?;
        let wrong = ApplyError::Damaged("a difference that does not fit its row");
        match (
            base.get(..front),
            base.len().checked_sub(back).and_then(|at| base.get(at..)),
        ) {
            (Some(front), Some(back)) => Ok([front, middle, back].concat()),
            _ => Err(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use restfs_lib::kv::{Kv, MemoryKv};

    /// The format is on disks: these bytes never change.
    #[test]
    fn golden_bytes() {
        let mut encoder = Encoder::default();
        encoder.put_whole(b"ab", b"xyz");
        encoder.delete(b"c");
        encoder.put_difference(b"k00000001", b"abcXef", b"k00000002", b"abcdef");
        assert_eq!(
            hex::encode(&encoder.finish()[0]),
            concat!(
                "01",
                "0002",
                "6162",
                "00000003",
                "78797a", // put
                "02",
                "0001",
                "63", // delete
                "03",
                "0009",
                "6b3030303030303031",
                "3030303030303032", // put as difference from k00000002
                "00000003",
                "00000002",
                "00000001",
                "58",
            )
        );
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        (0u8..3, 0u8..3, 0u64..4).prop_map(|(first, row, point)| {
            let mut key = vec![first, row];
            key.extend((!point).to_be_bytes());
            key
        })
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            // Long ones that share much.
            (any::<u8>(), 0usize..900, 500usize..900).prop_map(|(byte, at, length)| {
                let mut value = vec![7; length];
                if let Some(place) = value.get_mut(at) {
                    *place = byte;
                }
                value
            }),
        ]
    }

    proptest! {
        #[test]
        fn applied_writes_make_the_same_rows(
            writes in prop::collection::vec((key(), prop::option::of(value())), 0..40)
        ) {
            let (kv, copy) = (MemoryKv::new(), MemoryKv::new());
            for transaction in writes.chunks(5) {
                let mut txn = kv.write().unwrap();
                let mut encoder = Encoder::default();
                for (key, value) in transaction {
                    match value {
                        Some(value) => {
                            encoder.put(&*txn, key, value).unwrap();
                            txn.put(key, value).unwrap();
                        }
                        None => {
                            encoder.delete(key);
                            txn.delete(key).unwrap();
                        }
                    }
                }
                txn.commit().unwrap();
                let mut txn = copy.write().unwrap();
                for part in encoder.finish() {
                    apply(&part, &mut *txn).unwrap();
                }
                txn.commit().unwrap();
            }
            let all = |kv: &MemoryKv| kv.read().unwrap().scan(Bound::Unbounded, Bound::Unbounded, 1000).unwrap();
            prop_assert_eq!(all(&kv), all(&copy));
        }

        #[test]
        fn damaged_bytes_are_an_error_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let kv = MemoryKv::new();
            let _ = apply(&bytes, &mut *kv.write().unwrap());
        }
    }

    #[test]
    fn one_changed_block_of_a_long_row_costs_its_bytes() {
        let kv = MemoryKv::new();
        let mut txn = kv.write().unwrap();
        let key = |point: u64| [&b"row"[..], &(!point).to_be_bytes()].concat();
        let mut value = vec![1; 5000];
        txn.put(&key(1), &value).unwrap();
        value[2500..2532].fill(2);
        let mut encoder = Encoder::default();
        encoder.put(&*txn, &key(2), &value).unwrap();
        let part = encoder.finish().concat();
        assert!(part.len() < 100, "{} bytes", part.len());
    }
}
