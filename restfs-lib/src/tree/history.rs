//! What happened to an object.

use super::keys::Key;
use super::read::back_link;
use super::{TreeError, keys, purge, revision};
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

/// The newest `limit` points below `before` that changed the object, newest first. What was purged counts as the floor's:
/// with it begins what can be read. Reads all revisions of the object's rows.
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
    // Without a purge there is nothing at or below it.
    let floor = purge::floor(kv, bucket)?.map_or(0, |floor| floor.point);
    let each = |first, see: See<'_>| {
        let rows = keys::of_object(first, bucket, id);
        each_kept(kv, &rows, floor, see)
    };
    each(keys::OBJECT, &mut |_, point, value| {
        newest.note(point, |changes| match value {
            Some(_) => changes.properties = true,
            None => changes.removed = true,
        });
        Ok(())
    })?;
    each(keys::ATTRIBUTE, &mut |row, point, _| {
        let name = keys::last_name(&row)?;
        newest.note(point, |changes| changes.attributes.push(name.to_vec()));
        Ok(())
    })?;
    each(keys::SEGMENT, &mut |_, point, _| {
        newest.note(point, |changes| changes.segments += 1);
        Ok(())
    })?;
    each(keys::BACK_LINK, &mut |row, point, value| {
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

type See<'a> = &'a mut dyn FnMut(Key, u64, Option<Vec<u8>>) -> Result<(), TreeError>;

/// Revisions that a sweep leaves, whether it has come here or not.
fn each_kept(kv: &dyn KvRead, rows: &Key, floor: u64, see: See<'_>) -> Result<(), TreeError> {
    let mut decided = None;
    revision::each_revision(kv, rows, |row, point, value| {
        if point > floor {
            return see(row, point, value);
        }
        let stays = decided.as_ref() != Some(&row) && value.is_some();
        decided = Some(row.clone());
        match stays {
            true => see(row, floor, value),
            false => Ok(()),
        }
    })
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
