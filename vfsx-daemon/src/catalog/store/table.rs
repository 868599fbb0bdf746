//! Reading and writing typed rows.

use super::key::{Key, Prefix};
use crate::catalog::CatalogError;
use restfs_lib::kv::{KvRead, KvWrite};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Bound;

/// A kind of row: a version byte, then postcard.
pub(in crate::catalog) trait Row: Serialize + DeserializeOwned {
    /// Raised with every change of the encoding.
    const VERSION: u8;
    /// For error texts.
    const WHAT: &'static str;

    fn encode(&self) -> Result<Vec<u8>, CatalogError> {
        postcard::to_extend(self, vec![Self::VERSION])
            .map_err(|e| CatalogError::Damaged(format!("{} cannot be encoded: {e}", Self::WHAT)))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        let (version, body) = bytes.split_first().unwrap_or((&0, &[]));
        if *version != Self::VERSION {
            let text = format!(
                "{} of version {version}, this program knows {}",
                Self::WHAT,
                Self::VERSION
            );
            return Err(CatalogError::Damaged(text));
        }
        match postcard::take_from_bytes(body) {
            Ok((row, [])) => Ok(row),
            Ok(_) => Err(CatalogError::Damaged(format!(
                "{} has bytes after its end",
                Self::WHAT
            ))),
            Err(e) => Err(CatalogError::Damaged(format!(
                "{} cannot be decoded: {e}",
                Self::WHAT
            ))),
        }
    }
}

pub(in crate::catalog) fn get<R: Row>(kv: &dyn KvRead, key: &Key) -> Result<Option<R>, CatalogError> {
    kv.get(&key.bytes())?.map(|bytes| R::decode(&bytes)).transpose()
}

pub(in crate::catalog) fn put<R: Row>(kv: &mut dyn KvWrite, key: &Key, row: &R) -> Result<(), CatalogError> {
    Ok(kv.put(&key.bytes(), &row.encode()?)?)
}

pub(in crate::catalog) fn delete(kv: &mut dyn KvWrite, key: &Key) -> Result<(), CatalogError> {
    Ok(kv.delete(&key.bytes())?)
}

/// Up to `limit` rows whose keys begin with the prefix and `within`, behind `after`.
pub(in crate::catalog) fn page<R: Row>(
    kv: &dyn KvRead,
    prefix: Prefix,
    within: &[u8],
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<(Key, R)>, CatalogError> {
    let mut from = vec![prefix.byte()];
    from.extend_from_slice(within);
    let to = end_of(&from);
    let after = after.map(Key::bytes);
    let lower = after
        .as_deref()
        .map_or(Bound::Included(&from[..]), Bound::Excluded);
    let pairs = kv.scan(lower, Bound::Excluded(&to), limit)?;
    pairs
        .iter()
        .map(|(key, value)| Ok((parse(key)?, R::decode(value)?)))
        .collect()
}

/// All rows from one key to another, both included.
pub(in crate::catalog) fn range<R: Row>(
    kv: &dyn KvRead,
    first: &Key,
    last: &Key,
) -> Result<Vec<(Key, R)>, CatalogError> {
    let (first, last) = (first.bytes(), last.bytes());
    let pairs = kv.scan(Bound::Included(&first), Bound::Included(&last), usize::MAX)?;
    pairs
        .iter()
        .map(|(key, value)| Ok((parse(key)?, R::decode(value)?)))
        .collect()
}

fn parse(key: &[u8]) -> Result<Key, CatalogError> {
    Key::parse(key).ok_or_else(|| CatalogError::Damaged(format!("key {} is none", hex::encode(key))))
}

/// The first key behind all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}
