//! What happened to an object.

use super::read::back_link;
use super::{TreeError, keys, revision};
use crate::kv::KvRead;
use crate::model::{BucketId, ObjectId};
use std::collections::BTreeMap;

/// What one point changed of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub point: u64,
    /// Size, owner, mode or times were set.
    pub properties: bool,
    /// The object was removed.
    pub removed: bool,
    /// Segments whose blocks changed.
    pub segments: u64,
    /// Attributes set or removed.
    pub attributes: Vec<Vec<u8>>,
    /// Names given.
    pub named: Vec<(ObjectId, Vec<u8>)>,
    /// Names taken away.
    pub unnamed: Vec<(ObjectId, Vec<u8>)>,
}

/// The newest `limit` points below `before` that changed the object, newest first. Reads all revisions of the
/// object's rows.
pub fn history(
    kv: &dyn KvRead,
    bucket: BucketId,
    id: ObjectId,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Changes>, TreeError> {
    let mut newest = Newest {
        points: BTreeMap::new(),
        before: before.unwrap_or(u64::MAX),
        limit,
    };
    let of_object = |first| keys::of_object(first, bucket, id);
    revision::each_revision(kv, &of_object(keys::OBJECT), |_, point, value| {
        newest.note(point, |changes| match value {
            Some(_) => changes.properties = true,
            None => changes.removed = true,
        });
        Ok(())
    })?;
    revision::each_revision(kv, &of_object(keys::ATTRIBUTE), |row, point, _| {
        let name = keys::last_name(&row)?;
        newest.note(point, |changes| changes.attributes.push(name.to_vec()));
        Ok(())
    })?;
    revision::each_revision(kv, &of_object(keys::SEGMENT), |_, point, _| {
        newest.note(point, |changes| changes.segments += 1);
        Ok(())
    })?;
    revision::each_revision(kv, &of_object(keys::BACK_LINK), |row, point, value| {
        let (dir, name) = back_link(&row)?;
        newest.note(point, |changes| {
            let names = if value.is_some() {
                &mut changes.named
            } else {
                &mut changes.unnamed
            };
            names.push((dir, name.to_vec()));
        });
        Ok(())
    })?;
    Ok(newest.points.into_values().rev().collect())
}

/// Keeps the newest points only: the history of a busy file is long.
struct Newest {
    points: BTreeMap<u64, Changes>,
    before: u64,
    limit: usize,
}

impl Newest {
    fn note(&mut self, point: u64, change: impl FnOnce(&mut Changes)) {
        if point >= self.before {
            return;
        }
        change(self.points.entry(point).or_insert_with(|| Changes {
            point,
            ..Changes::default()
        }));
        if self.points.len() > self.limit {
            self.points.pop_first();
        }
    }
}
