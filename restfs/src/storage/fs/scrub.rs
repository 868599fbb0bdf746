//! Reads packs for their own sake: every byte that was written is read and checked, also what no block needs.

use super::Shared;
use super::index::Location;
use super::log::Durable;
use super::read::{ReadError, decode_record};
use super::record::{FILE_HEADER, FileHeaderError, RecordHeader, check_file_header};
use super::scan::Reader;
use crate::storage::{ScrubDamage, ScrubPosition, ScrubStep, StoreError};
use restfs_lib::disk::StorageFile;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// Stepped over where the medium does not even let one look for the next record.
const UNREADABLE: u64 = 64 * 1024;

pub(super) fn step(shared: &Shared, from: ScrubPosition, budget: u64) -> Result<ScrubStep, StoreError> {
    // In this order: the index has everything that is durable by now.
    let durable = shared.log.durable();
    shared.enter_recent()?;
    let marks: BTreeMap<u64, u64> = shared.index.marks()?.into_iter().collect();
    let on_disk = shared.packs.numbers().map_err(|source| StoreError::Io {
        what: format!("listing {}", shared.packs.folder().display()),
        source,
    })?;
    let next = on_disk
        .iter()
        .chain(marks.keys())
        .copied()
        .filter(|pack| *pack >= from.pack)
        .min();
    let Some(pack) = next else {
        return Ok(ScrubStep::default());
    };
    let mut scrub = Scrub {
        shared,
        pack,
        durable,
        step: ScrubStep::default(),
    };
    let at = if pack == from.pack { from.offset } else { 0 };
    let end = scrub.pack(at, marks.get(&pack).copied().unwrap_or(0), budget)?;
    scrub.step.next = Some(match end {
        Some(offset) => ScrubPosition { pack, offset },
        None => ScrubPosition {
            pack: pack + 1,
            offset: 0,
        },
    });
    Ok(scrub.step)
}

struct Scrub<'a> {
    shared: &'a Shared,
    pack: u64,
    durable: Durable,
    step: ScrubStep,
}

impl Scrub<'_> {
    /// Where to go on in this pack; `None`: it is done.
    fn pack(&mut self, from: u64, indexed_to: u64, budget: u64) -> Result<Option<u64>, StoreError> {
        // Opened anew: a file that was removed would stay readable for who has it open.
        let file = match self.shared.packs.open_anew(self.pack) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.shared.packs.close(self.pack);
                if self.was_collected()? {
                    return Ok(None);
                }
                self.range(0..i64::MAX as u64, "the pack file is gone")?;
                return Ok(None);
            }
            Err(error) => return Err(self.failed(error)),
        };
        let there = file.length().map_err(|e| self.failed(e))?;
        // What is behind is being written.
        let length = if self.pack == self.durable.pack {
            there.min(self.durable.offset)
        } else {
            there
        };
        let mut at = from;
        if at == 0 {
            self.file_header(&*file)?;
            at = FILE_HEADER as u64;
        }
        // What a cache has says nothing of the medium.
        file.forget_cached(at, budget);
        let reader = Reader::new(&*file, self.pack, length);
        while at < length {
            if self.step.read >= budget {
                return Ok(Some(at));
            }
            at = self.place(&reader, &*file, at, length)?;
        }
        if there < indexed_to {
            self.range(there..indexed_to, "the pack file has lost its end")?;
        }
        Ok(None)
    }

    fn was_collected(&self) -> Result<bool, StoreError> {
        let index = &self.shared.index;
        // In this order: a pack is among those that leave until it is no pack of the index any more.
        let leaves = index.leaving()?.contains(&self.pack);
        Ok(leaves || !index.marks()?.iter().any(|(pack, _)| *pack == self.pack))
    }

    fn file_header(&mut self, file: &dyn StorageFile) -> Result<(), StoreError> {
        let mut bytes = [0; FILE_HEADER];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            // Its records are gone with it; those are told of below.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return self.unreadable(0..FILE_HEADER as u64, error),
        }
        self.step.read += FILE_HEADER as u64;
        match check_file_header(&bytes, self.pack) {
            Ok(()) => Ok(()),
            Err(FileHeaderError::Damaged(reason)) => self.range(0..FILE_HEADER as u64, reason),
            Err(FileHeaderError::Version(version)) => Err(StoreError::Format(format!(
                "pack {} has version {version}, which this restfs does not know; use a newer one",
                self.pack
            ))),
        }
    }

    /// Checks the record at `at`, or looks for the next one. Where that is.
    fn place(
        &mut self,
        reader: &Reader<'_>,
        file: &dyn StorageFile,
        at: u64,
        length: u64,
    ) -> Result<u64, StoreError> {
        match reader.header(at) {
            Ok(Some(header)) if header.record_length() <= length - at => {
                self.record(file, at, header)?;
                return Ok(at + header.record_length());
            }
            Ok(_) => {}
            Err(error) => {
                let end = (at + UNREADABLE).min(length);
                self.unreadable(at..end, error)?;
                return Ok(end);
            }
        }
        let (end, reason) = match reader.next_header(at + 1) {
            Ok(next) => (
                next.unwrap_or(length),
                "no record is here, though one was written",
            ),
            Err(_) => ((at + UNREADABLE).min(length), "it cannot be read"),
        };
        self.step.read += end - at;
        self.range(at..end, reason)?;
        Ok(end)
    }

    fn record(&mut self, file: &dyn StorageFile, at: u64, header: RecordHeader) -> Result<(), StoreError> {
        let length = header.record_length();
        self.step.read += length;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let location = Location {
            pack: self.pack,
            offset: at,
            plain: header.plain,
            stored: header.stored,
        };
        let read = file.read_exact_at(&mut bytes, at).map_err(ReadError::from);
        let reason = match read.and_then(|()| decode_record(header.key, location, bytes)) {
            Ok(_) => {
                if self.shared.find(header.key)? == Some(location) {
                    self.shared.forget_damage(header.key);
                }
                return Ok(());
            }
            Err(ReadError::Damaged(reason)) => reason,
            Err(ReadError::Io(error)) => return Err(self.failed(error)),
        };
        let needed = self.shared.find(header.key)? == Some(location);
        self.damage(at, needed.then_some((header.key, location)), &reason);
        Ok(())
    }

    /// Nothing of this part can be believed: the blocks whose records were there are lost.
    fn range(&mut self, part: Range<u64>, reason: &str) -> Result<(), StoreError> {
        let blocks = self.shared.index.in_part(self.pack, part.clone())?;
        if blocks.is_empty() {
            self.damage(part.start, None, reason);
        }
        for (key, at) in blocks {
            self.damage(at.offset, Some((key, at)), reason);
        }
        Ok(())
    }

    fn unreadable(&mut self, part: Range<u64>, error: io::Error) -> Result<(), StoreError> {
        self.step.read += part.end - part.start;
        match ReadError::from(error) {
            ReadError::Damaged(reason) => self.range(part, &reason),
            ReadError::Io(error) => Err(self.failed(error)),
        }
    }

    fn damage(&mut self, offset: u64, block: Option<(restfs_lib::model::BlockKey, Location)>, reason: &str) {
        if let Some((key, at)) = block {
            self.shared.note_damage(key, at, reason);
        }
        self.step.damages.push(ScrubDamage {
            pack: self.pack,
            offset,
            key: block.map(|(key, _)| key),
            reason: reason.to_owned(),
        });
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            what: format!("reading pack {}", self.pack),
            source,
        }
    }
}
