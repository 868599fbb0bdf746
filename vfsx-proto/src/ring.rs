//! The memory that a module shares with vfsxd: a page of words that say how far the session is, an outbox of frames that are not sent
//! yet, and, in mode `copy`, a ring of written data.
//!
//! The module makes it with `memfd_create`, maps it and passes the descriptor with `Hello`. vfsxd only ever reads the
//! descriptor, so a module that scribbles or cuts the file harms nobody: what is read is checked after it was copied.

use std::time::Duration;

/// Bytes of the words' page.
pub const WORDS: u64 = 4096;
/// Bytes of the outbox behind it: some dozens of new files.
pub const OUTBOX: u64 = 32 * 1024;
/// Bytes before the ring.
pub const HEADER: u64 = WORDS + OUTBOX;
/// Most data in one `Write`; longer writes are told in pieces.
pub const MAX_WRITE: usize = 256 * 1024;
/// Most bytes of names and values in a `Metadata`; an inode with more is told as `Touched`.
pub const MAX_XATTRS: usize = 16 * 1024;
/// A write that took longer is told again, as a range, when it has ended.
pub const LONG_WRITE: Duration = Duration::from_secs(1);
/// Who does not know that an announced write has ended reads its file no earlier than this after the announcement: by then
/// it has ended, or the end will be told.
pub const WRITE_ENDED_AFTER: Duration = Duration::from_secs(2);
/// Size of a word: its value, then the value's complement, each little-endian. One that does not match was read while it
/// was written, and is read again.
pub const WORD: usize = 16;

/// Words of the first page. vfsxd reads `Ended` before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Calls of smbd that have ended: with a ring all, nested ones not counted, else those that change names or metadata. Written after all
    /// that the call noted.
    Ended,
    /// Calls that have begun.
    Begun,
    /// Sequence of the newest event.
    Noted,
    /// All announced writes with lower sequences have ended.
    Running,
    /// 1: every change is noted by the end of its call, every write before it begins. 0: ranges are held back, as without
    /// a ring.
    Copying,
    /// What the outbox holds: [`Filled`].
    Outbox,
}

impl Word {
    /// Offset from the start of the memory.
    pub fn offset(self) -> u64 {
        // A cache line each, so that a poll for one does not slow down the others.
        64 * match self {
            Word::Ended => 0,
            Word::Begun => 1,
            Word::Noted => 2,
            Word::Running => 3,
            Word::Copying => 4,
            Word::Outbox => 5,
        }
    }
}

/// What the outbox holds: whole frames of events, from its start on. They are those that follow what is in the socket, or in it already.
/// Of a process that was killed they are all that it had noted and not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    /// Counts how often it was emptied: bytes that were read between two equal ones are those of the first.
    pub round: u32,
    /// In bytes.
    pub length: u32,
}

impl Filled {
    pub fn word(self) -> u64 {
        u64::from(self.round) << 32 | u64::from(self.length)
    }

    /// `None`: longer than the outbox, which no module writes.
    pub fn of(word: u64) -> Option<Self> {
        let (round, length) = ((word >> 32) as u32, word as u32);
        (u64::from(length) <= OUTBOX).then_some(Self { round, length })
    }
}

/// The halves of a word.
pub fn halves(value: u64) -> [u64; 2] {
    [value, !value]
}

/// `None`: it was being written.
pub fn value(word: &[u8; WORD]) -> Option<u64> {
    let (value, complement) = word.split_at(WORD / 2);
    let value = u64::from_le_bytes(value.try_into().ok()?);
    let complement = u64::from_le_bytes(complement.try_into().ok()?);
    (value == !complement).then_some(value)
}

/// Where `length` bytes from `position` on lie in a ring of `size` bytes: offset from the start of the memory and length,
/// of one or two pieces. `None`: they do not fit.
pub fn pieces(size: u64, position: u64, length: u64) -> Option<[(u64, u64); 2]> {
    if size == 0 || length > size {
        return None;
    }
    let at = position % size;
    let first = length.min(size - at);
    Some([(HEADER + at, first), (HEADER, length - first)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_being_written_is_told_from_one_that_is() {
        let bytes = |value, complement: u64| {
            let mut word = [0; WORD];
            word[..8].copy_from_slice(&u64::to_le_bytes(value));
            word[8..].copy_from_slice(&complement.to_le_bytes());
            word
        };
        for n in [0, 1, u64::MAX, 1 << 40] {
            let [value_half, complement] = halves(n);
            assert_eq!(value(&bytes(value_half, complement)), Some(n));
            assert_eq!(value(&bytes(value_half.wrapping_add(1), complement)), None);
        }
        assert_eq!(value(&[0; WORD]), None, "memory that nobody has written");
    }

    #[test]
    fn what_the_outbox_holds_is_one_word_and_never_more_than_it_has_room_for() {
        let filled = Filled {
            round: u32::MAX,
            length: OUTBOX as u32,
        };
        assert_eq!(Filled::of(filled.word()), Some(filled));
        assert_eq!(Filled::of(0), Some(Filled::default()));
        assert_eq!(Filled::of(OUTBOX + 1), None);
    }

    #[test]
    fn pieces_wrap_around_and_never_leave_the_ring() {
        assert_eq!(pieces(100, 250, 30), Some([(HEADER + 50, 30), (HEADER, 0)]));
        assert_eq!(pieces(100, 290, 30), Some([(HEADER + 90, 10), (HEADER, 20)]));
        assert_eq!(pieces(100, u64::MAX, 100).map(|p| p[0].1 + p[1].1), Some(100));
        assert_eq!(pieces(100, 0, 101), None);
        assert_eq!(pieces(0, 0, 0), None);
    }
}
