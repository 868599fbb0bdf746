//! How many objects were last seen.

use crate::catalog::CatalogError;
use crate::catalog::store::{Key, NodeRow, get, range};
use restfs_lib::kv::KvRead;
use restfs_lib::model::ObjectId;
use std::collections::HashMap;

/// Objects whose numbers are this close are read in one go, with what lies between: what was taken in at one time, as the files of
/// a directory mostly are. Reading a row on the way costs a tenth of searching one.
const APART: u64 = 8;

pub(super) fn nodes(
    kv: &dyn KvRead,
    mut wanted: Vec<ObjectId>,
) -> Result<HashMap<ObjectId, NodeRow>, CatalogError> {
    wanted.sort_unstable();
    wanted.dedup();
    let mut found = HashMap::with_capacity(wanted.len());
    for run in wanted.chunk_by(|a, b| b.0 - a.0 <= APART) {
        match run {
            [] => {}
            [one] => found.extend(get(kv, &Key::Object(*one))?.map(|row| (*one, row))),
            [first, .., last] => {
                let rows = range::<NodeRow>(kv, &Key::Object(*first), &Key::Object(*last))?;
                found.extend(rows.into_iter().filter_map(|(key, row)| match key {
                    Key::Object(id) => Some((id, row)),
                    _ => None,
                }));
            }
        }
    }
    Ok(found)
}
