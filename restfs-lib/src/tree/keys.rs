//! Keys of the store: the first byte says what a row is; integers are big-endian, so that keys sort as they count.
//!
//! A store may hold rows of others beside these: they begin with a byte that is not in [`RESERVED_KEYS`].

use super::TreeError;
use crate::model::{BlockKey, BucketId, ObjectId};
use std::ops::Deref;

/// First bytes of this library's keys, and of the server's tokens (`u`).
pub const RESERVED_KEYS: &[u8] = b"Babcdefknoqstu";

pub(super) const BUCKET: u8 = b'B';
pub(super) const BUCKET_NAME: u8 = b'b';
pub(super) const OBJECT: u8 = b'o';
pub(super) const ATTRIBUTE: u8 = b'a';
pub(super) const ENTRY: u8 = b'e';
pub(super) const BACK_LINK: u8 = b'n';
pub(super) const SEGMENT: u8 = b's';
pub(super) const GROUP: u8 = b'd';
pub(super) const COMMIT: u8 = b'c';
pub(super) const COMMIT_TIME: u8 = b't';
pub(super) const POSITION: u8 = b'q';
pub(super) const FLOOR: u8 = b'f';
pub(super) const HELD: u8 = b'k';

/// Rows that belong to a bucket and go with it, without its record.
pub(super) const OF_BUCKET: [u8; 11] = [
    OBJECT,
    ATTRIBUTE,
    ENTRY,
    BACK_LINK,
    SEGMENT,
    GROUP,
    COMMIT,
    COMMIT_TIME,
    POSITION,
    FLOOR,
    HELD,
];

/// Bytes of a revision at the end of a row's key.
const REVISION: usize = 8;

/// A key in the making.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(Vec<u8>);

impl Key {
    pub(super) fn new(first: u8) -> Self {
        Self(vec![first])
    }

    #[must_use]
    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Sorts the largest first.
    #[must_use]
    pub(super) fn falling(self, number: u64) -> Self {
        self.number(!number)
    }

    /// Ended by a NUL: neither is a name's key the start of another's, nor does the order change. The name must not
    /// hold a NUL.
    #[must_use]
    pub(super) fn name(mut self, name: &[u8]) -> Self {
        debug_assert!(!name.contains(&0), "a name with NUL in a key");
        self.0.extend(name);
        self.0.push(0);
        self
    }

    /// The first key that sorts behind all that start with this one.
    #[must_use]
    pub(super) fn end(&self) -> Self {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        Self(end)
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Takes a key apart.
#[derive(Debug)]
pub(super) struct KeyParts<'a> {
    key: &'a [u8],
    rest: &'a [u8],
}

impl<'a> KeyParts<'a> {
    /// After the first byte, which the caller knows.
    pub(super) fn new(key: &'a [u8]) -> Self {
        Self {
            key,
            rest: key.get(1..).unwrap_or_default(),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, TreeError> {
        let (number, rest) = self.rest.split_first_chunk().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*number))
    }

    pub(super) fn falling(&mut self) -> Result<u64, TreeError> {
        self.number().map(|number| !number)
    }

    pub(super) fn name(&mut self) -> Result<&'a [u8], TreeError> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| self.damaged())?;
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(name)
    }

    pub(super) fn object(&mut self) -> Result<ObjectId, TreeError> {
        self.number().map(ObjectId)
    }

    fn damaged(&self) -> TreeError {
        TreeError::Corrupt(format!("key {} is cut off", hex::encode(self.key)))
    }
}

pub(super) fn bucket(id: BucketId) -> Key {
    Key::new(BUCKET).number(id.0)
}

/// Holds the id of the next bucket.
pub(super) fn next_bucket() -> Key {
    Key::new(BUCKET)
}

pub(super) fn bucket_name(name: &str) -> Key {
    let mut key = Key::new(BUCKET_NAME);
    key.0.extend(name.as_bytes());
    key
}

/// All of a bucket's rows of one kind.
pub(super) fn of_bucket(first: u8, bucket: BucketId) -> Key {
    Key::new(first).number(bucket.0)
}

/// All rows of one kind that belong to an object or directory. Of [`OBJECT`], it is the row itself.
pub(super) fn of_object(first: u8, bucket: BucketId, id: ObjectId) -> Key {
    of_bucket(first, bucket).number(id.0)
}

pub(super) fn object(bucket: BucketId, id: ObjectId) -> Key {
    of_object(OBJECT, bucket, id)
}

pub(super) fn attribute(bucket: BucketId, id: ObjectId, name: &[u8]) -> Key {
    of_object(ATTRIBUTE, bucket, id).name(name)
}

pub(super) fn entry(bucket: BucketId, dir: ObjectId, name: &[u8]) -> Key {
    of_object(ENTRY, bucket, dir).name(name)
}

pub(super) fn back_link(bucket: BucketId, child: ObjectId, dir: ObjectId, name: &[u8]) -> Key {
    of_object(BACK_LINK, bucket, child).number(dir.0).name(name)
}

pub(super) fn segment(bucket: BucketId, id: ObjectId, number: u64) -> Key {
    of_object(SEGMENT, bucket, id).number(number)
}

pub(super) fn group(bucket: BucketId, group: u64) -> Key {
    of_bucket(GROUP, bucket).number(group)
}

/// Sums over all groups. Shorter than the groups' keys, so that it sorts before them.
pub(super) fn totals(bucket: BucketId) -> Key {
    of_bucket(GROUP, bucket)
}

pub(super) fn commit(bucket: BucketId, point: u64) -> Key {
    of_bucket(COMMIT, bucket).falling(point)
}

pub(super) fn commit_time(bucket: BucketId, time_ns: i64, point: u64) -> Key {
    // With the sign flipped, times before the epoch sort before the others.
    let ordered = (time_ns as u64) ^ (1 << 63);
    of_bucket(COMMIT_TIME, bucket).falling(ordered).falling(point)
}

pub(super) fn position(bucket: BucketId, source: &str) -> Key {
    of_bucket(POSITION, bucket).name(source.as_bytes())
}

pub(super) fn held(bucket: BucketId, block: &BlockKey) -> Key {
    let mut key = of_bucket(HELD, bucket);
    key.0.extend(block.0);
    key
}

/// The block that the key of a [`HELD`] row ends with.
pub(super) fn held_block(key: &[u8]) -> Result<BlockKey, TreeError> {
    let mut parts = KeyParts::new(key);
    parts.number()?;
    let block = parts.rest.try_into().map_err(|_| parts.damaged())?;
    Ok(BlockKey(block))
}

/// Of a name from outside that says where to go on: names behind it are those behind its part before a NUL.
pub(super) fn until_nul(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The key of a row's revision: the newest sorts first.
pub(super) fn revision(row: &Key, point: u64) -> Key {
    row.clone().falling(point)
}

/// A revision's row and point.
pub(super) fn split_revision(key: Vec<u8>) -> Result<(Key, u64), TreeError> {
    match key.split_last_chunk::<REVISION>() {
        Some((row, point)) => Ok((Key(row.to_vec()), !u64::from_be_bytes(*point))),
        None => Err(KeyParts::new(&key).damaged()),
    }
}

/// The name that a row's key (without revision) ends with, behind bucket and object.
pub(super) fn last_name(row: &Key) -> Result<&[u8], TreeError> {
    let mut parts = KeyParts::new(row);
    parts.number()?;
    parts.number()?;
    parts.name()
}

/// The number that a row's key (without revision) ends with, behind bucket and object.
pub(super) fn last_number(row: &Key) -> Result<u64, TreeError> {
    let mut parts = KeyParts::new(row);
    parts.number()?;
    parts.number()?;
    parts.number()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        // Bytes next to the terminator and at the end of the range, often.
        prop::collection::vec(prop_oneof![Just(1u8), Just(255), 1u8..=255], 1..6)
    }

    #[test]
    fn keys_are_what_the_format_says() {
        let (bucket, id) = (BucketId(2), ObjectId(3));
        let row = entry(bucket, id, b"ab");
        assert_eq!(*row, *b"e\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03ab\0");
        assert_eq!(
            *revision(&row, 1),
            *b"e\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03ab\0\xff\xff\xff\xff\xff\xff\xff\xfe"
        );
        assert_eq!(
            *commit_time(bucket, 0, 0),
            *b"t\0\0\0\0\0\0\0\x02\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
        );
        assert_eq!(*bucket_name("x"), *b"bx");
        let block = BlockKey([7; 32]);
        let row = held(bucket, &block);
        assert_eq!(
            (row[..9].to_vec(), &row[9..]),
            (b"k\0\0\0\0\0\0\0\x02".to_vec(), &block.0[..])
        );
        assert_eq!(held_block(&row).unwrap(), block);
    }

    #[test]
    fn every_first_byte_is_reserved() {
        for first in OF_BUCKET.into_iter().chain([BUCKET, BUCKET_NAME]) {
            assert!(RESERVED_KEYS.contains(&first));
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_its_largest_key() {
        assert_eq!(*Key(vec![1, 255, 255]).end(), [2]);
        assert_eq!(*Key(vec![1, 2]).end(), [1, 3]);
    }

    #[test]
    fn a_cut_off_key_is_an_error() {
        assert!(KeyParts::new(b"o1234567").number().is_err());
        assert!(KeyParts::new(b"ename").name().is_err());
        assert!(KeyParts::new(b"").name().is_err());
        assert!(split_revision(vec![0; 7]).is_err());
        assert!(held_block(&of_bucket(HELD, BucketId(1))).is_err());
    }

    proptest! {
        #[test]
        fn rows_sort_as_their_parts_do(
            a in (0u64..3, name(), any::<u64>()),
            b in (0u64..3, name(), any::<u64>()),
        ) {
            let key = |(dir, name, point): &(u64, Vec<u8>, u64)| {
                revision(&entry(BucketId(1), ObjectId(*dir), name), *point)
            };
            // The newest revision first, all else rising.
            let parts = |(dir, name, point): &(u64, Vec<u8>, u64)| (*dir, name.clone(), !point);
            prop_assert_eq!(key(&a).cmp(&key(&b)), parts(&a).cmp(&parts(&b)));
        }

        #[test]
        fn keys_come_apart_again(child: u64, dir: u64, name in name(), point: u64) {
            let row = back_link(BucketId(7), ObjectId(child), ObjectId(dir), &name);
            let (back, revision_point) = split_revision(revision(&row, point).to_vec()).unwrap();
            prop_assert_eq!((&back, revision_point), (&row, point));
            let mut parts = KeyParts::new(&back);
            prop_assert_eq!(parts.number().unwrap(), 7);
            prop_assert_eq!(parts.number().unwrap(), child);
            prop_assert_eq!(parts.number().unwrap(), dir);
            prop_assert_eq!(parts.name().unwrap(), &name[..]);
        }

        #[test]
        fn commits_sort_by_time_the_latest_first(a: (i64, u64), b: (i64, u64)) {
            let key = |(time, point)| commit_time(BucketId(1), time, point);
            prop_assert_eq!(key(a).cmp(&key(b)), b.cmp(&a));
        }

        #[test]
        fn a_row_holds_its_revisions_and_no_others(row in name(), other in name(), point: u64) {
            let row_key = entry(BucketId(1), ObjectId(1), &row);
            let revision = revision(&entry(BucketId(1), ObjectId(1), &other), point);
            let inside = *revision >= *row_key && *revision < *row_key.end();
            prop_assert_eq!(inside, row == other);
        }
    }
}
