//! zstd, where it makes a block smaller.

use crate::model::Compression;
use std::cell::RefCell;
use std::io;
use zstd::bulk::{Compressor, Decompressor};

/// Fastest of zstd's normal levels: a block is compressed while a client's change waits to be shipped, and the
/// higher levels win little on 64 KiB.
const LEVEL: i32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Damaged, or longer than the caller allows.
    #[error("content cannot be decompressed into {limit} bytes: {why}")]
    Decompress { limit: usize, why: String },
}

thread_local! {
    /// Their memory is dearer to set up than a block is to compress.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// With what this thread has kept from the time before.
fn with_kept<T, R>(
    kept: &RefCell<Option<T>>,
    make: impl FnOnce() -> io::Result<T>,
    then: impl FnOnce(&mut T) -> io::Result<R>,
) -> io::Result<R> {
    let mut kept = kept.borrow_mut();
    let tool = match &mut *kept {
        Some(tool) => tool,
        None => kept.insert(make()?),
    };
    then(tool)
}

/// The compressed form, when one is wanted and it is smaller.
pub fn compress(bytes: &[u8], compression: Compression) -> Option<Vec<u8>> {
    match compression {
        Compression::None => None,
        Compression::Zstd => {
            // A failure of the compressor costs space, never content.
            let packed = COMPRESSOR
                .with(|kept| with_kept(kept, || Compressor::new(LEVEL), |tool| tool.compress(bytes)));
            packed.ok().filter(|packed| packed.len() < bytes.len())
        }
    }
}

/// The plain content, at most `limit` bytes: what comes from outside cannot blow up memory.
pub fn decompress(packed: &[u8], limit: usize) -> Result<Vec<u8>, ContentError> {
    let plain =
        DECOMPRESSOR.with(|kept| with_kept(kept, Decompressor::new, |tool| tool.decompress(packed, limit)));
    plain.map_err(|error| ContentError::Decompress {
        limit,
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_shrink_stays_plain() {
        let noise: Vec<u8> = blake3::Hasher::new().finalize_xof().take_bytes(4096);
        assert_eq!(compress(&noise, Compression::Zstd), None);
        assert_eq!(compress(b"", Compression::Zstd), None);
        assert_eq!(compress(&[0; 4096], Compression::None), None);
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let packed = compress(&vec![0; 8 << 20], Compression::Zstd).unwrap();
        assert!(packed.len() < 2000);
        assert!(decompress(&packed, 4 << 20).is_err());
        assert!(decompress(&packed[..packed.len() / 2], 8 << 20).is_err());
    }

    trait Take {
        fn take_bytes(self, count: usize) -> Vec<u8>;
    }

    impl Take for blake3::OutputReader {
        fn take_bytes(mut self, count: usize) -> Vec<u8> {
            let mut bytes = vec![0; count];
            self.fill(&mut bytes);
            bytes
        }
    }

    proptest! {
        #[test]
        fn compressed_content_comes_back(seed: Vec<u8>, times in 1usize..50) {
            let bytes = seed.repeat(times);
            if let Some(packed) = compress(&bytes, Compression::Zstd) {
                prop_assert!(packed.len() < bytes.len());
                prop_assert_eq!(decompress(&packed, bytes.len()), Ok(bytes));
            }
        }

        #[test]
        fn garbage_is_an_error(bytes: Vec<u8>) {
            let _ = decompress(&bytes, 1 << 16);
        }
    }
}
