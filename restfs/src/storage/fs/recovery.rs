//! What happens at the start: the packs are brought to a clean end, and what they have into the index.

use super::index::{Index, Location, Update};
use super::log::Durable;
use super::pack::{self, Packs, is_stub};
use super::record::{FILE_HEADER, FileHeaderError, KIND_BLOCK, check_file_header};
use super::scan::{Depth, Found, scan};
use super::writer::End;
use super::{Damage, Recovery};
use crate::storage::StoreError;
use restfs_lib::disk::{StorageFile, is_full};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Damaged places that are listed; each is in the log.
pub(super) const MAX_DAMAGES: usize = 1000;

const FIRST_PACK: u64 = 1;

/// Brings index and packs together. Only the newest pack's end is ever cut: every other byte was synced before
/// something was written behind it.
pub(super) fn recover(packs: &Packs, index: &Index) -> Result<(End, Recovery), StoreError> {
    let mut recovery = Recovery::default();
    let leaving = index.leaving()?;
    for &pack in &leaving {
        // A collection was cut off between the index and the file.
        packs.remove(pack).map_err(|source| StoreError::Io {
            what: format!("removing pack {pack}"),
            source,
        })?;
        index.pack_left(pack)?;
    }
    let numbers = list(packs)?;
    let marks: BTreeMap<u64, u64> = index.marks()?.into_iter().collect();
    for (pack, indexed_to) in &marks {
        if numbers.binary_search(pack).is_err() {
            forget(
                index,
                *pack,
                0,
                *indexed_to,
                "the pack file is gone",
                &mut recovery,
            )?;
        }
    }
    // Of a creation that failed: what was written afterwards is in the pack before it, and was perhaps not synced.
    let stubs = count_stubs(packs, &numbers)?;
    let (numbers, stubs) = numbers.split_at(numbers.len() - stubs);
    for pack in stubs {
        let file = packs.for_reading(*pack).map_err(|e| reading(*pack, e))?;
        indexed_part(index, *pack, &*file, marks.get(pack), &mut recovery)?;
        packs.close(*pack);
    }
    // A stub has no record, so its number is as good as new. One between it and the pack before it may be that of a pack that
    // was collected.
    let unused = stubs.last().copied();
    let used = numbers.last().copied().max(leaving.into_iter().max());
    let next = unused.max(used.map(|pack| pack + 1)).unwrap_or(FIRST_PACK);
    let Some((&newest, sealed)) = numbers.split_last() else {
        return Ok((create(packs, next)?, recovery));
    };
    for pack in sealed {
        let file = packs.for_reading(*pack).map_err(|e| reading(*pack, e))?;
        let from = indexed_part(index, *pack, &*file, marks.get(pack), &mut recovery)?;
        let unindexed = from..length_of(*pack, &*file)?;
        if !unindexed.is_empty() {
            index.update(|update| {
                take_in(update, *pack, &*file, unindexed, Depth::Headers, &mut recovery).map(|_| ())
            })?;
        }
    }
    let (file, offset) = recover_newest(packs, index, newest, marks.get(&newest), &mut recovery)?;
    let end = End {
        pack: newest,
        file,
        offset,
        next,
    };
    Ok((end, recovery))
}

/// Fills the index anew with what is durable.
pub(super) fn rebuild(packs: &Packs, index: &Index, durable: Durable) -> Result<Recovery, StoreError> {
    let mut recovery = Recovery::default();
    let numbers = list(packs)?;
    index.update(|update| {
        update.clear()?;
        for pack in numbers.into_iter().filter(|pack| *pack <= durable.pack) {
            let file = packs.for_reading(pack).map_err(|e| reading(pack, e))?;
            check_header(pack, &*file, &mut recovery)?;
            let end = match pack == durable.pack {
                true => durable.offset,
                false => length_of(pack, &*file)?,
            };
            take_in(
                update,
                pack,
                &*file,
                FILE_HEADER as u64..end,
                Depth::Headers,
                &mut recovery,
            )?;
        }
        Ok(())
    })?;
    Ok(recovery)
}

fn recover_newest(
    packs: &Packs,
    index: &Index,
    pack: u64,
    mark: Option<&u64>,
    recovery: &mut Recovery,
) -> Result<(Arc<dyn StorageFile>, u64), StoreError> {
    let file = packs.for_appending(pack).map_err(|e| reading(pack, e))?;
    let from = indexed_part(index, pack, &*file, mark, recovery)?;
    let failed = |e| pack::failed(|| format!("repairing the end of pack {pack}"), packs.folder(), e);
    let length = length_of(pack, &*file)?;
    // Records that a killed process wrote may be in the page cache only, and the kernel be done with them.
    match file.write_again(from..length) {
        Err(error) if is_full(&error) => {
            tracing::warn!("what pack {pack} has since its last sync is not written again: {error}");
        }
        again => again.map_err(failed)?,
    }
    file.sync_data().map_err(failed)?;
    let mut end = from;
    if from < length {
        index.update(|update| {
            end = take_in(update, pack, &*file, from..length, Depth::Payloads, recovery)?;
            Ok(())
        })?;
    }
    if length > end {
        recovery.cut_bytes = length - end;
        tracing::info!(
            "cutting {} bytes of an unfinished write off pack {pack}",
            length - end
        );
        file.set_len(end)
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
    }
    Ok((file, end))
}

/// How many of the last packs have no record.
fn count_stubs(packs: &Packs, numbers: &[u64]) -> Result<usize, StoreError> {
    for (count, pack) in numbers.iter().rev().enumerate() {
        let file = packs.open_anew(*pack).map_err(|e| reading(*pack, e))?;
        if !is_stub(&*file).map_err(|e| reading(*pack, e))? {
            return Ok(count);
        }
    }
    Ok(numbers.len())
}

/// Where the part that the index does not have begins. What the index has and the file lacks is forgotten.
fn indexed_part(
    index: &Index,
    pack: u64,
    file: &dyn StorageFile,
    mark: Option<&u64>,
    recovery: &mut Recovery,
) -> Result<u64, StoreError> {
    let length = length_of(pack, file)?;
    let mark = mark.copied().unwrap_or(0);
    if mark <= FILE_HEADER as u64 {
        if length > FILE_HEADER as u64 {
            check_header(pack, file, recovery)?;
        }
        return Ok(FILE_HEADER as u64);
    }
    if length < mark {
        forget(
            index,
            pack,
            length,
            mark,
            "the pack file has lost its end",
            recovery,
        )?;
    }
    Ok(mark.min(length).max(FILE_HEADER as u64))
}

/// Enters the records of a part of a pack. Returns where the last one ends.
fn take_in(
    update: &mut Update<'_>,
    pack: u64,
    file: &dyn StorageFile,
    part: Range<u64>,
    depth: Depth,
    recovery: &mut Recovery,
) -> Result<u64, StoreError> {
    let length = part.end;
    let end = scan(file, pack, part, depth, |found| {
        match found {
            Found::Record { offset, header } if header.kind == KIND_BLOCK => {
                let at = Location {
                    pack,
                    offset,
                    plain: header.plain,
                    stored: header.stored,
                };
                update.put(header.key, at)?;
                recovery.records += 1;
            }
            Found::Record { .. } => {}
            Found::Damage { offset, length } => note(
                recovery,
                Damage {
                    pack,
                    offset,
                    length,
                    reason: "no record, though records follow".to_owned(),
                },
            ),
        }
        Ok(())
    })?;
    if depth == Depth::Headers && end < length {
        let reason = "no record up to the end of the pack".to_owned();
        note(
            recovery,
            Damage {
                pack,
                offset: end,
                length: length - end,
                reason,
            },
        );
        update.mark(pack, length)?;
    } else {
        update.mark(pack, end)?;
    }
    Ok(end)
}

fn check_header(pack: u64, file: &dyn StorageFile, recovery: &mut Recovery) -> Result<(), StoreError> {
    let mut bytes = [0; FILE_HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(reading(pack, e)),
        _ => {}
    }
    match check_file_header(&bytes, pack) {
        Ok(()) => Ok(()),
        Err(FileHeaderError::Damaged(reason)) => {
            let length = FILE_HEADER as u64;
            note(
                recovery,
                Damage {
                    pack,
                    offset: 0,
                    length,
                    reason: reason.to_owned(),
                },
            );
            Ok(())
        }
        Err(FileHeaderError::Version(version)) => Err(StoreError::Format(format!(
            "pack {pack} has version {version}, which this restfs does not know; use a newer one"
        ))),
    }
}

fn forget(
    index: &Index,
    pack: u64,
    length: u64,
    indexed_to: u64,
    reason: &str,
    recovery: &mut Recovery,
) -> Result<(), StoreError> {
    let mut gone = 0;
    index.update(|update| {
        gone = update.cut(pack, length)?;
        Ok(())
    })?;
    let reason = format!("{reason}; {gone} blocks with it");
    note(
        recovery,
        Damage {
            pack,
            offset: length,
            length: indexed_to - length,
            reason,
        },
    );
    Ok(())
}

fn note(recovery: &mut Recovery, damage: Damage) {
    let Damage {
        pack,
        offset,
        length,
        reason,
    } = &damage;
    tracing::error!("pack {pack} is damaged, {length} bytes at offset {offset}: {reason}");
    if recovery.damages.len() < MAX_DAMAGES {
        recovery.damages.push(damage);
    }
}

fn create(packs: &Packs, pack: u64) -> Result<End, StoreError> {
    let file = packs
        .create(pack)
        .map_err(|e| pack::failed(|| format!("creating pack {pack}"), packs.folder(), e))?;
    Ok(End {
        pack,
        file,
        offset: FILE_HEADER as u64,
        next: pack + 1,
    })
}

fn list(packs: &Packs) -> Result<Vec<u64>, StoreError> {
    packs.numbers().map_err(|source| StoreError::Io {
        what: format!("listing {}", packs.folder().display()),
        source,
    })
}

fn length_of(pack: u64, file: &dyn StorageFile) -> Result<u64, StoreError> {
    file.length().map_err(|e| reading(pack, e))
}

fn reading(pack: u64, source: io::Error) -> StoreError {
    StoreError::Io {
        what: format!("reading pack {pack}"),
        source,
    }
}
