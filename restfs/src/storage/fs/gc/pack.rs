//! One pack: its records go or move, then its file.

use super::{FsCollection, Planned};
use crate::storage::fs::index::Location;
use crate::storage::fs::lock;
use crate::storage::fs::read::{ReadError, decode_record, read};
use crate::storage::fs::record::{
    FILE_HEADER, FileHeaderError, KIND_BLOCK, RECORD_HEADER, RecordHeader, check_file_header,
};
use crate::storage::fs::scan::{Depth, Found, scan};
use crate::storage::fs::writer::Record;
use crate::storage::{StoreError, Swept};
use restfs_lib::disk::StorageFile;
use restfs_lib::model::BlockKey;
use std::io;

/// Records looked at together: condemned at once, and removed from the index in one transaction.
const BATCH: usize = if cfg!(test) { 5 } else { 1024 };
/// Bytes read, copied or stepped over between two calls of `go_on`.
const PIECE: u64 = 256 * 1024;

/// What a disk reads for a header.
const PAGE: u64 = 4096;

type Entry = (BlockKey, Location);

/// False: it is to end. Then, and after an error, the pack is as good as before.
pub(super) fn sweep(
    collection: &mut FsCollection,
    planned: &Planned,
    swept: &mut Swept,
    go_on: &mut dyn FnMut(&Swept) -> bool,
) -> Result<bool, StoreError> {
    let file = match collection.shared.packs.open_anew(planned.pack) {
        Ok(file) => file,
        Err(source) => return Err(reading(planned.pack, source)),
    };
    let told = swept.seen_bytes + swept.copied_bytes;
    let sweep = Sweep {
        collection,
        planned,
        file: &*file,
        swept,
        go_on,
        gone: 0,
        moved: 0,
        told,
        foreign: false,
        ended: false,
        in_batch: false,
    };
    sweep.run()
}

struct Sweep<'a> {
    collection: &'a mut FsCollection,
    planned: &'a Planned,
    file: &'a dyn StorageFile,
    swept: &'a mut Swept,
    go_on: &'a mut dyn FnMut(&Swept) -> bool,
    /// Rows of the index that are not the pack's any more.
    gone: u64,
    moved: u64,
    /// Of `swept.seen_bytes`, up to where `go_on` was told.
    told: u64,
    /// It has records of a kind that this version does not know.
    foreign: bool,
    ended: bool,
    /// More is done than reading the pack through.
    in_batch: bool,
}

impl Sweep<'_> {
    fn run(mut self) -> Result<bool, StoreError> {
        let mut header = [0; FILE_HEADER];
        let begins = self.file.read_exact_at(&mut header, 0);
        if begins.is_ok()
            && let Err(FileHeaderError::Version(_)) = check_file_header(&header, self.planned.pack)
        {
            return Ok(true);
        }
        if let Err(error) = self.records() {
            if self.in_batch || !matches!(error, StoreError::Io { .. }) {
                return Err(error);
            }
            // Nothing goes of what cannot be read to its end; the other packs can.
            tracing::error!("pack {} stays: {error}", self.planned.pack);
            self.swept.packs_damaged += 1;
            return Ok(true);
        }
        if self.ended {
            return Ok(false);
        }
        let shared = &self.collection.shared;
        shared.log.flush()?;
        shared.enter_recent()?;
        (self.collection.stage)("moved");
        if self.foreign {
            return Ok(true);
        }
        if !self.is_empty()? {
            tracing::warn!(
                "pack {} stays: a block in it that is needed is damaged; see `restfs scrub`",
                self.planned.pack
            );
            self.swept.packs_damaged += 1;
            return Ok(true);
        }
        self.remove()?;
        Ok(true)
    }

    fn records(&mut self) -> Result<(), StoreError> {
        let (pack, length) = (self.planned.pack, self.planned.length);
        let mut batch = Vec::with_capacity(BATCH);
        let part = FILE_HEADER as u64..length;
        scan(self.file, pack, part, Depth::Headers, |found| {
            if self.ended {
                return Ok(());
            }
            match found {
                Found::Record { offset, header } if header.kind == KIND_BLOCK => {
                    let at = Location {
                        pack,
                        offset,
                        plain: header.plain,
                        stored: header.stored,
                    };
                    self.swept.seen_bytes += header.record_length();
                    self.swept.disk_bytes += header.record_length().min(PAGE);
                    batch.push((header.key, at));
                }
                Found::Record { .. } => self.foreign = true,
                Found::Damage { length, .. } => {
                    self.swept.seen_bytes += length;
                    self.swept.disk_bytes += length;
                }
            }
            if batch.len() == BATCH {
                self.batch(&batch)?;
                batch.clear();
            }
            Ok(())
        })?;
        if !self.ended {
            self.batch(&batch)?;
        }
        Ok(())
    }

    fn batch(&mut self, batch: &[Entry]) -> Result<(), StoreError> {
        self.in_batch = true;
        let shared = self.collection.shared.clone();
        let mut current = Vec::new();
        for (key, at) in batch {
            let found = shared.find(*key)?;
            if found == Some(*at) {
                current.push((*key, *at));
            } else if self.collection.is_needed(key) && !self.is_good(*key, found)? {
                // The index does not know it, or only one that is no good: nothing is given up on its word alone.
                self.rescue(*key, *at, found)?;
            }
            // Others were replaced, or are there twice.
        }
        let (mut needed, dead): (Vec<Entry>, Vec<Entry>) = current
            .into_iter()
            .partition(|(key, _)| self.collection.is_needed(key));
        let asked_for = shared.guard.condemn(&dead);
        let removed = self.forget(&dead, &asked_for);
        shared.guard.acquit();
        removed?;
        needed.extend(asked_for);
        for (key, at) in needed {
            self.copy(key, at)?;
            if self.ended {
                return Ok(());
            }
        }
        self.tell();
        self.in_batch = false;
        Ok(())
    }

    /// Removes what is condemned from the index.
    fn forget(&mut self, dead: &[Entry], but: &[Entry]) -> Result<(), StoreError> {
        let gone: Vec<Entry> = dead
            .iter()
            .filter(|entry| !but.contains(entry))
            .copied()
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let shared = self.collection.shared.clone();
        shared
            .index
            .update(|update| gone.iter().try_for_each(|(key, at)| update.remove(*key, *at)))?;
        for (key, _) in &gone {
            // Damaged or not, nobody asks for it.
            if shared.find(*key)?.is_none() {
                lock(&shared.damaged).remove(key);
            }
        }
        self.gone += gone.len() as u64;
        self.swept.blocks += gone.len() as u64;
        (self.collection.stage)("forgotten");
        Ok(())
    }

    /// Writes a needed block anew. One that is damaged stays where it is.
    fn copy(&mut self, key: BlockKey, at: Location) -> Result<(), StoreError> {
        match self.read(key, at)? {
            Ok((header, bytes)) => {
                self.write(header, &bytes, true)?;
                self.moved += 1;
                self.copied(at)
            }
            Err(reason) => {
                self.collection.shared.note_damage(key, at, &reason);
                Ok(())
            }
        }
    }

    /// Whether the record that the index has of a block can take the place of another one.
    fn is_good(&self, key: BlockKey, found: Option<Location>) -> Result<bool, StoreError> {
        let Some(at) = found else { return Ok(false) };
        match read(&self.collection.shared.packs, key, at) {
            Ok(_) => Ok(true),
            Err(ReadError::Damaged(reason)) => {
                self.collection.shared.note_damage(key, at, &reason);
                Ok(false)
            }
            Err(ReadError::Io(error)) => Err(reading(at.pack, error)),
        }
    }

    /// Writes a needed block anew that the index does not have here. `known`: it has one that is no good.
    fn rescue(&mut self, key: BlockKey, at: Location, known: Option<Location>) -> Result<(), StoreError> {
        let Ok((header, bytes)) = self.read(key, at)? else {
            return Ok(());
        };
        self.write(header, &bytes, known.is_some())?;
        let shared = &self.collection.shared;
        lock(&shared.damaged).remove(&key);
        if let Some(known) = known {
            // It may say that it is behind all others.
            shared.index.update(|update| update.remove(key, known))?;
        }
        tracing::warn!(
            "block {}, which is needed, was found in pack {} though not by the index",
            hex::encode(key.0),
            at.pack
        );
        self.copied(at)
    }

    /// A record, or what is wrong with it.
    fn read(
        &self,
        key: BlockKey,
        at: Location,
    ) -> Result<Result<(RecordHeader, Vec<u8>), String>, StoreError> {
        let mut bytes = vec![0; RECORD_HEADER + at.stored as usize];
        let read = self.file.read_exact_at(&mut bytes, at.offset);
        let header = bytes
            .first_chunk()
            .and_then(|header| RecordHeader::decode(header, at.pack, at.offset));
        let checked = read
            .map_err(ReadError::from)
            .and_then(|()| decode_record(key, at, bytes.clone()));
        match (checked, header) {
            (Ok(_), Some(header)) => Ok(Ok((header, bytes))),
            (Ok(_), None) => Ok(Err("no header".to_owned())),
            (Err(ReadError::Damaged(reason)), _) => Ok(Err(reason)),
            (Err(ReadError::Io(error)), _) => Err(reading(at.pack, error)),
        }
    }

    fn write(&self, header: RecordHeader, bytes: &[u8], again: bool) -> Result<(), StoreError> {
        let payload = bytes.get(RECORD_HEADER..).unwrap_or_default();
        self.collection
            .shared
            .log
            .append(&Record::copied(header, payload), again)
    }

    fn copied(&mut self, at: Location) -> Result<(), StoreError> {
        let shared = self.collection.shared.clone();
        self.swept.copied_bytes += super::record_length(&at);
        self.swept.disk_bytes += 2 * super::record_length(&at);
        (self.collection.stage)("copied");
        if shared.log.is_full_of_recent() {
            shared.log.flush()?;
            shared.enter_recent()?;
        }
        self.tell();
        Ok(())
    }

    fn tell(&mut self) {
        let done = self.swept.seen_bytes + self.swept.copied_bytes;
        if done >= self.told + PIECE {
            self.told = done;
            self.ended = !(self.go_on)(self.swept);
        }
    }

    /// Whether the index has no block in the pack any more.
    fn is_empty(&self) -> Result<bool, StoreError> {
        if self.gone + self.moved == self.planned.weight.rows {
            return Ok(true);
        }
        // A record may have been written anew meanwhile, or cannot be found any more.
        let left = self
            .collection
            .shared
            .index
            .in_part(self.planned.pack, 0..i64::MAX as u64)?;
        Ok(left.is_empty())
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        let shared = self.collection.shared.clone();
        let Planned { pack, length, .. } = *self.planned;
        shared.index.pack_leaves(pack)?;
        (self.collection.stage)("left");
        let failed = |source| StoreError::Io {
            what: format!("removing pack {pack}"),
            source,
        };
        shared.packs.remove(pack).map_err(failed)?;
        (self.collection.stage)("removed");
        shared.index.pack_left(pack)?;
        (self.collection.stage)("done");
        self.swept.packs_removed += 1;
        self.swept.freed_bytes += length;
        Ok(())
    }
}

fn reading(pack: u64, source: io::Error) -> StoreError {
    StoreError::Io {
        what: format!("reading pack {pack}"),
        source,
    }
}
