//! Records, and segments as a start and a reader find them, for the fuzz targets.

use super::codec::{self, DecodeError};
use super::{Body, Draft, Journal, NodeRef, Options, Session, draft, segment};
use restfs_lib::disk::{Storage, StorageFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// First record of the segment.
const FIRST: u64 = 7;
/// Records read at a time.
const AT_ONCE: usize = 1000;
/// Room for any segment that is tried and the record that is appended.
const JOURNAL_BYTES: u64 = 16 << 20;

/// The first byte says what the rest is: a record, one whose checksum is right whatever it says, or a segment.
pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    match mode % 3 {
        0 => record(bytes),
        1 => record(&sealed(bytes)),
        _ => opened(bytes),
    }
}

fn record(bytes: &[u8]) {
    let (record, length) = match codec::decode_record(bytes) {
        Ok(decoded) => decoded,
        Err(DecodeError::Short | DecodeError::Bad(_)) => return,
    };
    assert!(length <= bytes.len());
    assert_eq!(codec::peek_sequence(bytes), Ok(record.sequence));
    let mut again = Vec::new();
    if codec::encode_record(&record, &mut again).is_ok() {
        assert_eq!(codec::decode_record(&again), Ok((record, again.len())));
    }
}

/// Frame and checksum around what may be anything.
fn sealed(body: &[u8]) -> Vec<u8> {
    let prefix = (body.len() as u32).to_le_bytes();
    let checksum = codec::checksum(&prefix, body);
    [&prefix, &checksum.to_le_bytes(), body].concat()
}

/// A journal with this segment opens, is read to its end, and takes records.
fn opened(bytes: &[u8]) {
    let storage = Arc::new(Memory::default());
    storage.put(&segment::name(FIRST), bytes.to_vec());
    let journal =
        Journal::open_on(storage.clone(), Options::new(JOURNAL_BYTES, 0)).expect("memory does not fail");
    let head = journal.status().head;
    // As many as there is room for, and the gap where they may have been more.
    let limit = FIRST + (bytes.len() / codec::MIN_ENCODED) as u64 + 1;
    assert!(head <= limit, "{head} records in {} bytes", bytes.len());
    let appended = journal.append(vec![note(head)]);
    assert!(appended.is_ok(), "{:?}", appended.err());
    journal.sync().expect("memory does not fail");
    let mut reader = journal.read_from(FIRST).expect("nothing was trimmed");
    let mut last = FIRST - 1;
    while let Ok(records) = reader.read(AT_ONCE) {
        if records.is_empty() {
            break;
        }
        for record in records {
            assert!(record.sequence > last);
            last = record.sequence;
        }
    }
}

fn note(handle: u64) -> Draft {
    Draft::note(
        Session::DAEMON,
        1,
        Body::Flushed {
            handle,
            node: NodeRef {
                dev: 1,
                ino: 2,
                btime_ns: 3,
            },
        },
    )
}

/// Records of these events, alone and in a segment.
pub fn seeds(events: Vec<vfsx_proto::Event>) -> Vec<Vec<u8>> {
    let session = Session([9; 16]);
    let mut records = Vec::new();
    let mut seeds = Vec::new();
    for (event, sequence) in events.into_iter().zip(FIRST..) {
        let stamped = vfsx_proto::Stamped {
            sequence,
            time_ns: 5,
            began_ns: 6,
            event,
        };
        let mut bytes = Vec::new();
        codec::encode_record(&draft(session, stamped).numbered(sequence), &mut bytes).expect("is short");
        seeds.push([&[0][..], &bytes].concat());
        seeds.push([&[1][..], bytes.get(8..).unwrap_or_default()].concat());
        records.extend(bytes);
    }
    let header = codec::Header {
        first: FIRST,
        broken: false,
        sessions: Vec::new(),
    };
    let whole = [&[2][..], &codec::encode_header(&header), &records].concat();
    // Damage in the middle, with good records behind it.
    let mut damaged = whole.clone();
    if let Some(byte) = damaged.get_mut(whole.len() / 2) {
        *byte ^= 1;
    }
    seeds.extend([whole, damaged]);
    seeds
}

/// Files in memory.
#[derive(Default)]
struct Memory {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
}

#[derive(Default)]
struct MemoryFile(Mutex<Vec<u8>>);

impl Memory {
    fn put(&self, name: &str, bytes: Vec<u8>) {
        let file = Arc::new(MemoryFile(Mutex::new(bytes)));
        self.lock().insert(name.to_owned(), file);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Memory {
    fn make(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.put(name, Vec::new());
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.lock().get(name).cloned();
        Ok(file.ok_or(io::ErrorKind::NotFound)?)
    }

    fn open_read(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock()
            .remove(name)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl MemoryFile {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn modified(&self) -> io::Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.lock();
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<usize> {
        let mut bytes = self.lock();
        let end = offset as usize + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(new);
        Ok(new.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.lock().resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node() -> vfsx_proto::NodeRef {
        vfsx_proto::NodeRef {
            dev: 1,
            ino: 2,
            btime_ns: 3,
        }
    }

    /// Records that a segment gives out, in order.
    fn records(bytes: &[u8]) -> Vec<super::super::Record> {
        let storage = Memory::default();
        storage.put("x", bytes.to_vec());
        let file = storage.open("x").unwrap();
        let mut found = Vec::new();
        if let Ok((mut walk, _)) = segment::Walk::open(file).unwrap() {
            while let segment::Found::Record(record) = walk.next().unwrap() {
                found.push(*record);
            }
        }
        found
    }

    #[test]
    fn a_segment_that_is_empty_or_all_damage_is_gone_on_from_with_a_gap() {
        for bytes in [&b""[..], &[0], &[0xFF; 200]] {
            opened(bytes);
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_or_a_cut_gives_no_other_records(at: prop::sample::Index, bit in 0u8..8, cut: bool) {
            let events = (1..5).map(|handle| vfsx_proto::Event::Flushed { handle, node: node() });
            let seeds = seeds(events.collect());
            let whole = seeds.iter().find(|seed| seed[0] == 2).unwrap()[1..].to_vec();
            let good = records(&whole);
            prop_assert_eq!(good.len(), 4);
            let mut bad = whole.clone();
            let at = at.index(bad.len());
            bad[at] ^= 1 << bit;
            if cut {
                bad.truncate(at);
            }
            prop_assert!(good.starts_with(&records(&bad)));
        }
    }
}
