//! Bounds and form of single values; the error names what is wrong.

use super::bytes::{Content, Name};
use super::error::{Code, RpcError};
use super::limits::*;
use super::values::BlockAt;
use crate::model::ObjectId;

type Checked<T> = Result<T, RpcError>;

pub fn below(value: u64, end: u64, what: &str) -> Checked<()> {
    if value < end {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!(
        "{what}: {value} is not below {end}"
    )))
}

/// Within BSON's integers.
pub fn integer(value: u64, what: &str) -> Checked<u64> {
    if value <= MAX_INTEGER {
        return Ok(value);
    }
    Err(RpcError::invalid_params(format!(
        "`{what}` {value} is over {MAX_INTEGER}"
    )))
}

pub fn count(count: usize, limit: usize, what: &str) -> Checked<()> {
    if count <= limit {
        return Ok(());
    }
    let text = format!("{count} {what} in one call are more than the limit of {limit}");
    Err(RpcError::new(Code::TooLarge, text))
}

/// Rows asked for at once: 1 to [`MAX_PAGE`]; more than that is cut, as the answer says that there is more.
pub fn page(limit: u32) -> Checked<usize> {
    if limit == 0 {
        return Err(RpcError::invalid_params("`limit` must be at least 1"));
    }
    Ok((limit as usize).min(MAX_PAGE))
}

pub fn object_id(id: u64) -> Checked<ObjectId> {
    if id == 0 {
        return Err(RpcError::invalid_params("object ids start at 1"));
    }
    integer(id, "id").map(ObjectId)
}

pub fn mode(mode: u32) -> Checked<()> {
    if mode <= 0o7777 {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!(
        "`mode` {mode:o} has more than permission bits (7777)"
    )))
}

pub fn layout(block_size: u32, segment_blocks: u32) -> Checked<()> {
    let size = block_size as usize;
    if !size.is_power_of_two() || !(MIN_BLOCK..=MAX_BLOCK).contains(&size) {
        let text = format!("`block_size` {block_size} is not a power of two from {MIN_BLOCK} to {MAX_BLOCK}");
        return Err(RpcError::invalid_params(text));
    }
    if !(1..=MAX_SEGMENT_BLOCKS).contains(&segment_blocks) {
        let text = format!("`segment_blocks` {segment_blocks} is not from 1 to {MAX_SEGMENT_BLOCKS}");
        return Err(RpcError::invalid_params(text));
    }
    Ok(())
}

pub fn block_length(length: u32) -> Checked<()> {
    if (1..=MAX_BLOCK).contains(&(length as usize)) {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!(
        "`length` {length} of a block is not from 1 to {MAX_BLOCK}"
    )))
}

/// Positions rise, so none is named twice.
pub fn ascending(blocks: &[BlockAt]) -> Checked<()> {
    if blocks
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.at < b.at))
    {
        return Ok(());
    }
    Err(RpcError::invalid_params(
        "blocks of a segment must be in ascending order of `at`",
    ))
}

/// One component, as on disk.
pub fn entry_name(name: Name) -> Checked<Vec<u8>> {
    let bytes = bounded(name.0, MAX_NAME, "name")?;
    if bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        let text = format!("{:?} is no name of a file", String::from_utf8_lossy(&bytes));
        return Err(RpcError::invalid_params(text));
    }
    Ok(bytes)
}

pub fn attribute_name(name: Name) -> Checked<Vec<u8>> {
    bounded(name.0, MAX_ATTRIBUTE_NAME, "attribute name")
}

/// A user attribute of RestFS, apart from those that a file system would interpret.
pub fn user_attribute_name(name: Name) -> Checked<Vec<u8>> {
    let name = attribute_name(name)?;
    if name.starts_with(b"restfs.") && name.len() > b"restfs.".len() {
        return Ok(name);
    }
    Err(RpcError::invalid_params(
        "the name of a user attribute starts with `restfs.`",
    ))
}

pub fn attribute_value(value: Content) -> Checked<Vec<u8>> {
    if value.0.len() <= MAX_ATTRIBUTE_VALUE {
        return Ok(value.0.into());
    }
    let text = format!(
        "attribute value of {} bytes is longer than {MAX_ATTRIBUTE_VALUE}",
        value.0.len()
    );
    Err(RpcError::new(Code::TooLarge, text))
}

pub fn link_target(target: Name) -> Checked<Vec<u8>> {
    bounded(target.0, MAX_PATH, "link target")
}

/// Components of an absolute path; none for the root.
pub fn path(path: &Name) -> Checked<Vec<&[u8]>> {
    let bytes = &path.0;
    if bytes.len() > MAX_PATH || bytes.contains(&0) {
        let text = format!("path is longer than {MAX_PATH} bytes or has a NUL");
        return Err(RpcError::invalid_params(text));
    }
    if !bytes.starts_with(b"/") {
        return Err(RpcError::invalid_params(format!(
            "path {path:?} does not start with `/`"
        )));
    }
    let parts: Vec<&[u8]> = bytes
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    if parts
        .iter()
        .any(|part| *part == b"." || *part == b".." || part.len() > MAX_NAME)
    {
        return Err(RpcError::invalid_params(format!(
            "path {path:?} has a part that is no name of a file"
        )));
    }
    Ok(parts)
}

/// Names of buckets and sources: 1 to 63 letters, digits, `.`, `_`, `-`, the first a letter or digit.
pub fn label<'a>(text: &'a str, what: &str) -> Checked<&'a str> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && text.len() <= MAX_LABEL && text.chars().all(good) {
        return Ok(text);
    }
    Err(RpcError::invalid_params(format!(
        "{what} {text:?}: 1 to {MAX_LABEL} letters, digits, `.`, `_` and `-`, the first a letter or digit"
    )))
}

fn bounded(bytes: Vec<u8>, limit: usize, what: &str) -> Checked<Vec<u8>> {
    if bytes.is_empty() || bytes.len() > limit || bytes.contains(&0) {
        let length = bytes.len();
        return Err(RpcError::invalid_params(format!(
            "{what} of {length} bytes: 1 to {limit} bytes without NUL"
        )));
    }
    Ok(bytes)
}
