//! What an op may say, whatever the tree.

use super::TreeError;
use crate::model::{BlockRef, Kind, Layout, Object, ObjectId, Op, Time, valid_name};

/// Longest name of an attribute in bytes, as in the kernel.
pub const MAX_ATTRIBUTE_NAME: usize = 255;
/// Longest value of an attribute in bytes, as in the kernel.
pub const MAX_ATTRIBUTE: usize = 64 * 1024;
/// Longest target of a symbolic link in bytes, as in the kernel.
pub const MAX_SYMLINK: usize = 4095;
/// Largest object in bytes, largest object id, largest segment number: JSON and BSON peers count signed.
pub const MAX_SIZE: u64 = i64::MAX as u64;

pub(super) fn check(op: &Op) -> Result<(), TreeError> {
    match op {
        Op::PutObject { id, object } => {
            check_id(*id)?;
            check_object(object).map_err(|why| TreeError::Invalid(format!("object {id}: {why}")))
        }
        Op::DropObject { id } => check_id(*id),
        Op::PutEntry { dir, name, child } => {
            check_id(*dir)?;
            check_id(*child)?;
            check_name(name)
        }
        Op::DropEntry { dir, name } => {
            check_id(*dir)?;
            check_name(name)
        }
        Op::PutAttribute { id, name, value } => {
            check_id(*id)?;
            check_attribute_name(name)?;
            check_attribute_value(name, value)
        }
        Op::DropAttribute { id, name } => {
            check_id(*id)?;
            check_attribute_name(name)
        }
        Op::PutBlocks { id, segment, .. } if *segment > MAX_SIZE => invalid(format!(
            "object {id}: segment {segment} is beyond every object's end"
        )),
        Op::PutBlocks { id, .. } => check_id(*id),
    }
}

/// Whether a block may be at this position of a file with this layout.
pub(super) fn check_block(
    id: ObjectId,
    layout: &Layout,
    position: u32,
    block: &BlockRef,
) -> Result<(), TreeError> {
    if position >= layout.segment_blocks {
        let blocks = layout.segment_blocks;
        return invalid(format!(
            "object {id}: position {position} in a segment of {blocks} blocks"
        ));
    }
    if block.length == 0 || block.length > layout.block_size {
        let (length, size) = (block.length, layout.block_size);
        return invalid(format!(
            "object {id}: a block of {length} bytes where blocks have {size}"
        ));
    }
    if block.hash.algorithm() != layout.hash {
        let (ours, theirs) = (layout.hash, block.hash.algorithm());
        return invalid(format!(
            "object {id}: a block with a {theirs} hash where {ours} is used"
        ));
    }
    Ok(())
}

pub(super) fn valid_attribute_name(name: &[u8]) -> bool {
    (1..=MAX_ATTRIBUTE_NAME).contains(&name.len()) && !name.contains(&0)
}

fn check_id(id: ObjectId) -> Result<(), TreeError> {
    if id.0 == 0 || id.0 > MAX_SIZE {
        return invalid(format!("{id} is no object's id"));
    }
    Ok(())
}

fn check_name(name: &[u8]) -> Result<(), TreeError> {
    if !valid_name(name) {
        return invalid(format!("\"{}\" is no name for an entry", name.escape_ascii()));
    }
    Ok(())
}

fn check_attribute_name(name: &[u8]) -> Result<(), TreeError> {
    if !valid_attribute_name(name) {
        return invalid(format!("\"{}\" is no name for an attribute", name.escape_ascii()));
    }
    Ok(())
}

fn check_attribute_value(name: &[u8], value: &[u8]) -> Result<(), TreeError> {
    if value.len() > MAX_ATTRIBUTE {
        let (name, length) = (name.escape_ascii(), value.len());
        return invalid(format!(
            "attribute \"{name}\" has {length} bytes, more than {MAX_ATTRIBUTE}"
        ));
    }
    Ok(())
}

pub(super) fn check_object(object: &Object) -> Result<(), String> {
    object.layout.validate().map_err(|error| error.to_string())?;
    if object.mode > 0o7777 {
        return Err(format!("mode {:o} has more than permission bits", object.mode));
    }
    if object.size > MAX_SIZE {
        return Err(format!("size {} is more than {MAX_SIZE}", object.size));
    }
    if object.size > 0 && object.kind != Kind::File {
        return Err("only files have a size".into());
    }
    if let Kind::Symlink { target } = &object.kind {
        check_target(target)?;
    }
    [object.mtime, object.atime, object.btime]
        .into_iter()
        .try_for_each(check_time)
}

fn check_target(target: &[u8]) -> Result<(), String> {
    if target.is_empty() || target.len() > MAX_SYMLINK || target.contains(&0) {
        return Err(format!(
            "a symbolic link's target has 1 to {MAX_SYMLINK} bytes, none of them NUL"
        ));
    }
    Ok(())
}

fn check_time(time: Time) -> Result<(), String> {
    match Time::new(time.seconds, time.nanoseconds) {
        Some(_) => Ok(()),
        None => Err(format!("{} nanoseconds are a second or more", time.nanoseconds)),
    }
}

fn invalid(text: String) -> Result<(), TreeError> {
    Err(TreeError::Invalid(text))
}
