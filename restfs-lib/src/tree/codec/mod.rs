//! Values of the store. The structs here belong to the format and to nothing else: a version byte, then the struct in
//! postcard. A row that is gone keeps a tombstone where history is kept.

mod record;
mod row;

pub(super) use record::{
    decode_bucket, decode_bucket_id, decode_commit, decode_floor, decode_group, decode_point,
    decode_position, decode_totals, encode_bucket, encode_bucket_id, encode_commit, encode_floor,
    encode_group, encode_point, encode_position, encode_totals,
};
pub(super) use row::{
    decode_attribute, decode_child, decode_object, decode_segment, encode_attribute, encode_child,
    encode_object, encode_segment,
};

use super::TreeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of every value but a tombstone.
const VERSION: u8 = 1;

/// The whole value of a row that was removed.
pub(super) const TOMBSTONE: [u8; 1] = [0];

/// The value of a row that says everything by being there.
pub(super) const PRESENT: [u8; 1] = [VERSION];

fn encode(row: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(row, vec![VERSION]).expect("rows are made of what postcard can hold")
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, TreeError> {
    match postcard::take_from_bytes(versioned(bytes, what)?) {
        Ok((row, [])) => Ok(row),
        Ok(_) => Err(damaged(what, "is too long")),
        Err(error) => Err(damaged(what, &error.to_string())),
    }
}

fn versioned<'a>(bytes: &'a [u8], what: &str) -> Result<&'a [u8], TreeError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(damaged(
            what,
            &format!("has version {version}, this program knows {VERSION}"),
        )),
        None => Err(damaged(what, "is empty")),
    }
}

fn damaged(what: &str, why: &str) -> TreeError {
    TreeError::Corrupt(format!("{what} {why}"))
}

#[cfg(test)]
mod tests;
