//! Reads the commit log for its own sake: what is damaged shows before it is needed.

use super::LogError;
use super::files::Known;
use super::reader::{Next, Reader};
use super::record::FileKind;
use super::store::LoggedKv;
use std::path::PathBuf;

/// A place of the log that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDamage {
    pub path: PathBuf,
    pub offset: u64,
    pub reason: String,
}

/// Reads all files, telling `read` of the bytes as it goes. The damages can be mended by [`LoggedKv::write_image`] as
/// long as the database is good.
pub fn check(kv: &LoggedKv, mut read: impl FnMut(u64) -> bool) -> Result<Vec<LogDamage>, LogError> {
    let (listing, newest, end) = {
        let log = kv.log();
        let listing = log.files().list()?;
        let (path, end) = log.place();
        (listing, path.to_owned(), end)
    };
    let unreadable = listing.unreadable.into_iter().map(|(_, path, reason)| LogDamage {
        path,
        offset: 0,
        reason,
    });
    let mut damages: Vec<LogDamage> = unreadable.collect();
    for mut known in listing.images.into_iter().chain(listing.logs) {
        if known.path == newest {
            // What is behind is being written.
            known.length = end;
        }
        match one(&known, &mut read) {
            Ok(None) => {}
            Ok(Some(damage)) => damages.push(damage),
            Err(error) => return Err(error),
        }
    }
    Ok(damages)
}

fn one(known: &Known, read: &mut impl FnMut(u64) -> bool) -> Result<Option<LogDamage>, LogError> {
    let mut reader = Reader::new(known);
    let mut before = 0;
    let mut complete = known.header.kind == FileKind::Log;
    loop {
        match reader.next(u64::MAX)? {
            Next::Part(part) => {
                complete = part.last;
                if !read(part.end - before) {
                    return Ok(None);
                }
                before = part.end;
            }
            Next::End if complete => return Ok(None),
            Next::End => return Ok(Some(damage(known, known.length, "it is cut off"))),
            Next::Broken { offset, reason, .. } => return Ok(Some(damage(known, offset, &reason))),
        }
    }
}

fn damage(known: &Known, offset: u64, reason: &str) -> LogDamage {
    LogDamage {
        path: known.path.clone(),
        offset,
        reason: reason.to_owned(),
    }
}
