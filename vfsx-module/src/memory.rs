//! The memory that vfsxd reads: words that say how far the session is, an outbox, and a ring of bytes. Laid out as [`vfsx_proto::ring`] says.
//!
//! It is a file without a name, sealed so that nobody can cut it: what is mapped here stays there. Bytes are written only where room
//! was reserved, since a page that the kernel has no memory for would end the process.

use crc_fast::{CrcAlgorithm, Digest};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use vfsx_proto::ring::{Filled, HEADER, OUTBOX, WORDS, Word, halves, pieces};

/// Copied and summed up at once: stays in the processor's nearest cache.
const PIECE: usize = 16 * 1024;
/// linux/memfd.h: never to be executed. It can be sealed, too.
const MFD_NOEXEC_SEAL: libc::c_uint = 8;

/// See the module's text.
#[derive(Debug)]
pub struct Memory {
    descriptor: OwnedFd,
    base: NonNull<u8>,
    /// Bytes of the ring.
    size: u64,
}

impl Memory {
    /// `size`: bytes of the ring. The words are those of a session that has done nothing.
    pub fn new(size: u64) -> io::Result<Self> {
        let whole = HEADER.saturating_add(size);
        let length = libc::off_t::try_from(whole).map_err(|_| io::ErrorKind::InvalidInput)?;
        let descriptor = create()?;
        let fd = descriptor.as_raw_fd();
        // SAFETY: no pointers, and the descriptor is this function's own.
        unsafe {
            check(libc::ftruncate(fd, length))?;
            // Whoever gets the descriptor can change nothing of this either.
            let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
            check(libc::fcntl(fd, libc::F_ADD_SEALS, seals))?;
        }
        let base = map(&descriptor, whole)?;
        let memory = Self {
            descriptor,
            base,
            size,
        };
        memory.reserve_file(0, WORDS)?;
        for word in [Word::Ended, Word::Begun, Word::Noted, Word::Copying, Word::Outbox] {
            memory.set(word, 0);
        }
        memory.set(Word::Running, u64::MAX);
        Ok(memory)
    }

    pub fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// Whoever reads this value reads all that was written before it, too.
    pub fn set(&self, word: Word, value: u64) {
        for (half, value) in halves(value).into_iter().enumerate() {
            let at = word.offset() as usize + half * size_of::<u64>();
            // SAFETY: all words lie in the first page, which is mapped, reserved, and aligned for them. Nobody in this process reads or
            // writes it in any other way.
            let word = unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) };
            word.store(value.to_le(), Ordering::Release);
        }
    }

    /// Makes sure that `length` bytes from `offset` on (of the ring, not of the file) have memory.
    pub fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.reserve_file(HEADER + offset, length)?;
        self.populate(HEADER + offset, length);
        Ok(())
    }

    /// Maps all pages at once, not one by one as they are written. Kernels before 5.14 cannot, and need longer.
    fn populate(&self, offset: u64, length: u64) {
        let (Ok(offset), Ok(length)) = (usize::try_from(offset), usize::try_from(length)) else {
            return;
        };
        // SAFETY: whole pages of the mapping: `reserve` has looked.
        unsafe {
            let start = self.base.as_ptr().add(offset);
            libc::madvise(start.cast(), length, libc::MADV_POPULATE_WRITE);
        }
    }

    /// Makes sure that the outbox has memory.
    pub fn reserve_outbox(&self) -> io::Result<()> {
        self.reserve_file(WORDS, OUTBOX)
    }

    /// Puts bytes into the outbox, behind what `filled` says, when it has memory. What it holds then; `None`: there is no room.
    pub fn put_into_outbox(&self, filled: Filled, bytes: &[u8]) -> Option<Filled> {
        let end = u64::from(filled.length).checked_add(bytes.len() as u64)?;
        let length = u32::try_from(end).ok().filter(|_| end <= OUTBOX)?;
        // SAFETY: the outbox lies within the mapping, and nothing in this process refers to it.
        unsafe {
            let outbox = self.base.as_ptr().add(WORDS as usize);
            let to = outbox.add(filled.length as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        let filled = Filled { length, ..filled };
        self.set(Word::Outbox, filled.word());
        Some(filled)
    }

    /// Gives all memory back but that of the words. What is to be put there next needs room again.
    pub fn release(&self) {
        let length = usize::try_from(OUTBOX + self.size).unwrap_or(0);
        // SAFETY: exactly the mapping behind its first page. A failure leaves all as it is.
        unsafe {
            let behind = self.base.as_ptr().add(WORDS as usize);
            libc::madvise(behind.cast(), length, libc::MADV_REMOVE);
        }
    }

    /// Puts data at a position of the ring, in reserved memory; gives its CRC32C. `None`: it is larger than the ring.
    pub fn put(&self, position: u64, data: &[u8]) -> Option<u32> {
        let (mut checksum, mut rest) = (Digest::new(CrcAlgorithm::Crc32Iscsi), data);
        for (offset, length) in pieces(self.size, position, data.len() as u64)? {
            let (piece, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            rest = after;
            let mut offset = usize::try_from(offset).ok()?;
            for piece in piece.chunks(PIECE) {
                // SAFETY: `pieces` gives places within the mapping, which nothing in this process refers to.
                unsafe {
                    let to = self.base.as_ptr().add(offset);
                    std::ptr::copy_nonoverlapping(piece.as_ptr(), to, piece.len());
                }
                checksum.update(piece);
                offset += piece.len();
            }
        }
        u32::try_from(checksum.finalize()).ok()
    }

    fn reserve_file(&self, offset: u64, length: u64) -> io::Result<()> {
        let range = (libc::off_t::try_from(offset), libc::off_t::try_from(length));
        let (Ok(offset), Ok(length)) = range else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: no pointers.
        check(unsafe { libc::fallocate(self.descriptor.as_raw_fd(), 0, offset, length) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let length = usize::try_from(HEADER + self.size).unwrap_or(0);
        // SAFETY: the mapping of `new`, to which no reference is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), length) };
    }
}

fn create() -> io::Result<OwnedFd> {
    const NAME: &CStr = c"vfsx";
    const FLAGS: libc::c_uint = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name ends with NUL.
    let create = |flags| unsafe { libc::memfd_create(NAME.as_ptr(), flags) };
    let mut fd = create(FLAGS | MFD_NOEXEC_SEAL);
    // Kernels before 6.3 do not know the flag. Later ones may insist on it.
    if fd < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        fd = create(FLAGS);
    }
    check(fd)?;
    // SAFETY: `fd` was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn map(descriptor: &OwnedFd, length: u64) -> io::Result<NonNull<u8>> {
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let fd = descriptor.as_raw_fd();
    // SAFETY: a new mapping at a place that the kernel chooses.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, libc::MAP_SHARED, fd, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Clients' data is no business of a core file. A failure does no harm.
    // SAFETY: the mapping that was just made.
    unsafe { libc::madvise(base, length, libc::MADV_DONTDUMP) };
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use vfsx_proto::InRing;
    use vfsx_proto::ring::{WORD, value};

    /// vfsxd's end: what it reads of the descriptor.
    pub(crate) struct Reader {
        pub(crate) file: File,
        pub(crate) size: u64,
    }

    impl Reader {
        pub(crate) fn word(&self, word: Word) -> u64 {
            let mut bytes = [0; WORD];
            self.file
                .read_exact_at(&mut bytes, word.offset())
                .expect("a word");
            value(&bytes).expect("nobody writes it now")
        }

        /// The frames that the outbox holds.
        pub(crate) fn outbox(&self) -> Vec<u8> {
            let filled = Filled::of(self.word(Word::Outbox)).expect("no longer than it is");
            let mut bytes = vec![0; filled.length as usize];
            self.file.read_exact_at(&mut bytes, WORDS).expect("in the file");
            bytes
        }

        /// As vfsxd does: `None` when it is not what was announced.
        pub(crate) fn data(&self, place: InRing, length: u64) -> Option<Vec<u8>> {
            let mut data = Vec::new();
            for (offset, length) in pieces(self.size, place.position, length)? {
                let mut piece = vec![0; length as usize];
                self.file.read_exact_at(&mut piece, offset).expect("in the file");
                data.extend(piece);
            }
            (crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &data) == place.checksum.into()).then_some(data)
        }
    }

    fn reader(memory: &Memory) -> Reader {
        let file = File::from(memory.descriptor().try_clone().expect("another descriptor"));
        Reader {
            file,
            size: memory.size,
        }
    }

    #[test]
    fn words_are_valid_from_the_start_and_told_apart() {
        let memory = Memory::new(1 << 20).expect("memory");
        let reader = reader(&memory);
        assert_eq!(reader.word(Word::Running), u64::MAX);
        let words = [
            Word::Ended,
            Word::Begun,
            Word::Noted,
            Word::Running,
            Word::Copying,
            Word::Outbox,
        ];
        for (n, word) in (1 << 40..).zip(words) {
            memory.set(word, n);
        }
        for (n, word) in (1 << 40..).zip(words) {
            assert_eq!(reader.word(word), n);
        }
    }

    /// Who has the descriptor could otherwise end this process by cutting the file.
    #[test]
    fn who_has_the_descriptor_can_neither_cut_nor_seal_it() {
        let memory = Memory::new(1 << 20).expect("memory");
        let other = reader(&memory).file;
        assert!(other.set_len(0).is_err());
        assert!(other.set_len(1 << 30).is_err());
        // SAFETY: no pointers.
        let sealed = unsafe { libc::fcntl(other.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_FUTURE_WRITE) };
        assert_eq!(sealed, -1);
        assert!(memory.reserve(0, 1 << 20).is_ok());
    }

    #[test]
    fn the_outbox_takes_what_fits_and_nothing_of_what_does_not() {
        let memory = Memory::new(0).expect("memory");
        memory.reserve_outbox().expect("room");
        let filled = memory
            .put_into_outbox(Filled::default(), b"one")
            .expect("it fits");
        let large = vec![7; OUTBOX as usize - 2];
        assert_eq!(memory.put_into_outbox(filled, &large), None);
        assert_eq!(reader(&memory).outbox(), b"one");
        let filled = memory.put_into_outbox(filled, &large[1..]).expect("just fits");
        assert_eq!(u64::from(filled.length), OUTBOX);
        assert_eq!(memory.put_into_outbox(filled, b"x"), None);
        assert_eq!(reader(&memory).outbox(), [b"one", &large[1..]].concat());
    }

    #[test]
    fn memory_that_is_given_back_is_taken_again() {
        let memory = Memory::new(1 << 20).expect("memory");
        let blocks =
            || std::os::unix::fs::MetadataExt::blocks(&reader(&memory).file.metadata().expect("stat"));
        let before = blocks();
        memory.reserve(0, 1 << 20).expect("room");
        assert!(blocks() >= before + (1 << 20) / 512);
        memory.release();
        assert_eq!(blocks(), before);
        memory.reserve(0, 4096).expect("room");
        let checksum = memory.put(10, b"again").expect("fits");
        let place = InRing {
            position: 10,
            checksum,
        };
        assert_eq!(reader(&memory).data(place, 5).as_deref(), Some(&b"again"[..]));
        assert!(memory.reserve(1 << 20, 1).is_err(), "beyond the ring");
    }

    proptest! {
        #[test]
        fn what_is_put_is_read_by_the_other_end_wherever_it_wraps(
            size in 1u64..100_000, position in 0u64.., length in 0usize..120_000
        ) {
            let memory = Memory::new(size).expect("memory");
            memory.reserve(0, size).expect("room");
            let data: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let position = position / 2;
            match memory.put(position, &data) {
                Some(checksum) => {
                    let read = reader(&memory).data(InRing { position, checksum }, length as u64);
                    prop_assert_eq!(read.as_deref(), Some(&data[..]));
                }
                None => prop_assert!(length as u64 > size),
            }
        }
    }
}
