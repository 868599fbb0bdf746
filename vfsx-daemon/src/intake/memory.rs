//! The memory that a module shares: how far the session is, events that it has not sent yet, and written data. Only read, never mapped:
//! whatever the module does to it, what is read is a copy, and is checked.

use bytes::Bytes;
use restfs_lib::checksum::crc32c;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering, fence};
use vfsx_proto::InRing;
use vfsx_proto::ring::{Filled, HEADER, MAX_WRITE, WORD, WORDS, Word, pieces, value};
use vfsx_proto::{Decoder, FrameError, Stamped, ToDaemon};

/// Largest ring that is taken: nothing is reserved for it here, but an insane size is a mistake.
const MOST: u64 = 4 << 30;
/// Tries to read a word that is being written: that takes nanoseconds.
const TRIES: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("its ring of {0} bytes is larger than {MOST}")]
    Size(u64),
    #[error("it came without a descriptor")]
    NoDescriptor,
    #[error("its descriptor is no memory that is sealed against shrinking, of {0} bytes at least")]
    Foreign(u64),
    #[error("it cannot be looked at: {0}")]
    Io(#[from] io::Error),
}

pub(super) struct Memory {
    file: File,
    /// Bytes of the ring.
    size: u64,
}

/// Why the events of an outbox are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutboxError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it does not say how much it holds")]
    Unreadable,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it holds something else than events")]
    NoEvents,
}

impl Memory {
    /// `size`: bytes of the ring of written data, as the module said; 0: there is none.
    pub(super) fn new(descriptor: Option<OwnedFd>, size: u64) -> Result<Self, MemoryError> {
        if size > MOST {
            return Err(MemoryError::Size(size));
        }
        let descriptor = descriptor.ok_or(MemoryError::NoDescriptor)?;
        let whole = HEADER + size;
        let stat = fstat(&descriptor).map_err(io::Error::from)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let large = u64::try_from(stat.st_size).is_ok_and(|length| length >= whole);
        let sealed = fcntl_get_seals(descriptor.as_fd()).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if !(regular && large && sealed) {
            return Err(MemoryError::Foreign(whole));
        }
        Ok(Self {
            file: File::from(descriptor),
            size,
        })
    }

    /// Whether the session tells written data.
    pub(super) fn has_ring(&self) -> bool {
        self.size > 0
    }

    /// What the outbox holds.
    pub(super) fn filled(&self) -> Option<Filled> {
        self.word(Word::Outbox).and_then(Filled::of)
    }

    /// Events that the session has noted and may not have sent. None when it is sending them just now.
    pub(super) fn outbox(&self) -> Result<Vec<Stamped>, OutboxError> {
        let filled = self.filled().ok_or(OutboxError::Unreadable)?;
        let mut bytes = vec![0; filled.length as usize];
        self.file.read_exact_at(&mut bytes, WORDS)?;
        fence(Ordering::SeqCst);
        if self.filled().is_none_or(|now| now.round != filled.round) {
            return Ok(Vec::new());
        }
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let mut events = Vec::new();
        while let Some(message) = decoder.next()? {
            match message {
                ToDaemon::Events(more) => events.extend(more),
                _ => return Err(OutboxError::NoEvents),
            }
        }
        Ok(events)
    }

    /// The bytes of a write. `None`: they are not there, or not those that were announced.
    pub(super) fn read(&self, place: InRing, length: u64) -> Option<Bytes> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_WRITE)?;
        let mut bytes = vec![0; length];
        let mut rest = &mut bytes[..];
        for (offset, length) in pieces(self.size, place.position, length as u64)? {
            let (piece, after) = rest.split_at_mut_checked(usize::try_from(length).ok()?)?;
            self.file.read_exact_at(piece, offset).ok()?;
            rest = after;
        }
        (crc32c(&[&bytes]) == place.checksum).then(|| Bytes::from(bytes))
    }

    /// The process is within a call, or was when it ended.
    pub(super) fn is_in_call(&self) -> bool {
        let ended = self.word(Word::Ended);
        ended < self.word(Word::Begun)
    }

    /// How far the session is. `None`: nobody has ever written it, or it is never the same twice.
    pub(super) fn word(&self, word: Word) -> Option<u64> {
        for _ in 0..TRIES {
            let mut bytes = [0; WORD];
            self.file.read_exact_at(&mut bytes, word.offset()).ok()?;
            // What is read next is not older than this.
            fence(Ordering::SeqCst);
            if let Some(value) = value(&bytes) {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use vfsx_proto::ring::halves;

    /// A module's end.
    pub(crate) struct Shared {
        pub(crate) file: File,
        size: u64,
        position: u64,
    }

    impl Shared {
        pub(crate) fn new(size: u64) -> Self {
            let file = File::from(memfd(HEADER + size, SealFlags::SHRINK));
            let shared = Self {
                file,
                size,
                position: 0,
            };
            for word in [
                Word::Ended,
                Word::Begun,
                Word::Noted,
                Word::Running,
                Word::Copying,
                Word::Outbox,
            ] {
                shared.set(word, 0);
            }
            shared
        }

        pub(crate) fn descriptor(&self) -> OwnedFd {
            self.file.try_clone().unwrap().into()
        }

        pub(crate) fn set(&self, word: Word, value: u64) {
            let [value, complement] = halves(value);
            self.file
                .write_all_at(&value.to_le_bytes(), word.offset())
                .unwrap();
            self.file
                .write_all_at(&complement.to_le_bytes(), word.offset() + 8)
                .unwrap();
        }

        /// Bytes that are not sent yet.
        pub(crate) fn hold(&self, round: u32, bytes: &[u8]) {
            self.file.write_all_at(bytes, WORDS).unwrap();
            let length = bytes.len() as u32;
            self.set(Word::Outbox, Filled { round, length }.word());
        }

        pub(crate) fn put(&mut self, data: &[u8]) -> InRing {
            let place = InRing {
                position: self.position,
                checksum: crc32c(&[data]),
            };
            let mut rest = data;
            for (offset, length) in pieces(self.size, self.position, data.len() as u64).unwrap() {
                let (piece, after) = rest.split_at(length as usize);
                self.file.write_all_at(piece, offset).unwrap();
                rest = after;
            }
            self.position += data.len() as u64;
            place
        }
    }

    fn memfd(length: u64, seals: SealFlags) -> OwnedFd {
        let fd = memfd_create(c"test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, length).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn memory_that_can_be_cut_or_is_too_small_or_no_memory_is_not_taken() {
        let refused = |fd, size| Memory::new(fd, size).err().map(|e| e.to_string());
        assert!(refused(None, 10).unwrap().contains("without a descriptor"));
        assert!(
            refused(Some(memfd(HEADER + 10, SealFlags::empty())), 10)
                .unwrap()
                .contains("sealed")
        );
        assert!(
            refused(Some(memfd(HEADER + 9, SealFlags::SHRINK)), 10)
                .unwrap()
                .contains("at least")
        );
        assert!(
            refused(Some(memfd(HEADER, SealFlags::SHRINK)), MOST + 1)
                .unwrap()
                .contains("larger")
        );
        assert!(refused(Some(memfd(HEADER, SealFlags::SHRINK)), 0).is_none());
        assert!(refused(Some(tempfile::tempfile().unwrap().into()), 10).is_some());
        let (pipe, _) = std::io::pipe().unwrap();
        assert!(refused(Some(pipe.into()), 10).is_some());
        assert!(refused(Some(memfd(HEADER + 10, SealFlags::SHRINK)), 10).is_none());
    }

    #[test]
    fn data_that_was_scribbled_over_is_not_taken_for_what_was_written() {
        let mut shared = Shared::new(100);
        let ring = Memory::new(Some(shared.descriptor()), 100).unwrap();
        let place = shared.put(b"what was written");
        assert_eq!(ring.read(place, 16).as_deref(), Some(&b"what was written"[..]));
        assert_eq!(ring.read(place, 15), None);
        shared.file.write_all_at(b"X", HEADER + 3).unwrap();
        assert_eq!(ring.read(place, 16), None);
        let far = InRing {
            position: u64::MAX,
            checksum: 0,
        };
        for length in [1, 101, u64::MAX] {
            assert_eq!(ring.read(far, length), None);
        }
    }

    #[test]
    fn a_word_is_read_whole_while_it_is_written_without_pause() {
        let shared = Arc::new(Shared::new(1));
        let ring = Memory::new(Some(shared.descriptor()), 1).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (shared, over) = (Arc::clone(&shared), Arc::clone(&over));
            move || {
                let mut n = 1u32;
                while !over.load(Ordering::Relaxed) {
                    n = n.wrapping_mul(0x9E37_79B9);
                    shared.set(Word::Noted, u64::from(n) << 32 | u64::from(n));
                }
            }
        });
        for _ in 0..2000 {
            let n = ring.word(Word::Noted).unwrap_or_default();
            assert_eq!(n >> 32, n & u64::from(u32::MAX), "{n:x}");
        }
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }

    #[test]
    fn an_outbox_that_makes_no_sense_is_an_error_and_not_a_crash() {
        let shared = Shared::new(0);
        let memory = Memory::new(Some(shared.descriptor()), 0).unwrap();
        assert!(memory.outbox().unwrap().is_empty());
        shared.hold(1, &[0xff; 100]);
        assert!(matches!(memory.outbox(), Err(OutboxError::Frame(_))));
        shared.set(Word::Outbox, u64::from(u32::MAX));
        assert!(matches!(memory.outbox(), Err(OutboxError::Unreadable)));
        let mut frame = Vec::new();
        vfsx_proto::encode(&ToDaemon::Sent { token: 1 }, &mut frame).unwrap();
        shared.hold(2, &frame);
        assert!(matches!(memory.outbox(), Err(OutboxError::NoEvents)));
    }

    proptest! {
        #[test]
        fn what_was_put_is_read_wherever_it_wraps(size in 1u64..200, writes in proptest::collection::vec(1usize..90, 1..40)) {
            let mut shared = Shared::new(size);
            let ring = Memory::new(Some(shared.descriptor()), size).unwrap();
            for (n, length) in writes.into_iter().enumerate() {
                let data = vec![n as u8; length.min(size as usize)];
                let place = shared.put(&data);
                let read = ring.read(place, data.len() as u64);
                prop_assert_eq!(read.as_deref(), Some(&data[..]));
            }
        }
    }
}
