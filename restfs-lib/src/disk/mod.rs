//! Files of one directory, as a journal and a store need them: what is durable, and when. Behind a trait, so that tests
//! can put a disk below that fails and forgets (`faulty`).

#[cfg(any(test, feature = "faulty-disk"))]
pub mod faulty;
#[cfg(any(test, feature = "faulty-disk"))]
pub mod hooked;
mod real;
mod room;
mod watermarks;

pub use real::Directory;
pub use room::{is_full, want_of_room};
pub use watermarks::{Level, Marks, Watermarks};

use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// A directory of files. Every call may fail; a failed call may have had part of its effect.
pub trait Storage: Send + Sync + 'static {
    /// Makes the directory, durable, when it is not there but the one above it is.
    fn make(&self) -> io::Result<()>;
    /// Names of all files. A directory that is not there is an error.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty file for reading and writing; an existing one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// For reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// For reading: also on a file system that the kernel lets nobody write to any more.
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// Replaces `to` in one step. Durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that others than root can still write to the file system.
    fn free(&self) -> io::Result<u64>;
    /// Where this is, for error texts.
    fn describe(&self, name: &str) -> String;
}

/// Written again in one go.
const PIECE: u64 = 1024 * 1024;

/// One file. Offsets are from its start.
pub trait StorageFile: Send + Sync + 'static {
    fn length(&self) -> io::Result<u64>;
    /// When it was last written to, by the wall clock.
    fn modified(&self) -> io::Result<SystemTime>;
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes up to `bytes.len()` bytes and says how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Makes content and length durable. After a failure what was written since the last success is in doubt: the
    /// kernel may have dropped it.
    fn sync_data(&self) -> io::Result<()>;

    /// Writes some bytes from the beginning of `parts`, which follow each other, and says how many.
    fn write_parts_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let first = parts.iter().find(|part| !part.is_empty());
        first.map_or(Ok(0), |part| self.write_at(part, offset))
    }

    /// What is read next comes from the medium, as far as the system can be told so.
    fn forget_cached(&self, _offset: u64, _length: u64) {}

    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes a part as it is read. After a sync that failed, also one of another process, the kernel may call pages clean that never
    /// reached the disk: the next sync says that all is well with them, and writes them only when they were written to.
    fn write_again(&self, part: Range<u64>) -> io::Result<()> {
        let mut at = part.start;
        while at < part.end {
            let mut bytes = vec![0; (part.end - at).min(PIECE) as usize];
            self.read_exact_at(&mut bytes, at)?;
            self.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_parts_at(&mut [IoSlice::new(bytes)], offset)
    }

    fn write_all_parts_at(&self, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        // Leaves out empty ones.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.write_parts_at(parts, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut parts, count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
