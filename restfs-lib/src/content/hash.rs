//! Names of blocks.

use crate::model::{BlockKey, BlockRef, Hash, HashAlgorithm};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// What a segment says of this content. Blocks are at most [`crate::model::MAX_BLOCK_SIZE`] long.
pub fn hash_block(bytes: &[u8], algorithm: HashAlgorithm) -> BlockRef {
    let key = *blake3::hash(bytes).as_bytes();
    let hash = match algorithm {
        HashAlgorithm::Blake3 => Hash::Blake3(key),
        HashAlgorithm::Sha256 => Hash::Sha256(Sha256::digest(bytes).into()),
        HashAlgorithm::Sha1 => Hash::Sha1(Sha1::digest(bytes).into()),
    };
    let length = u32::try_from(bytes.len()).expect("a block is at most 4 MiB");
    BlockRef {
        key: BlockKey(key),
        length,
        hash,
    }
}

/// Whether this is the content that the key names.
pub fn verify(key: &BlockKey, bytes: &[u8]) -> bool {
    blake3::hash(bytes).as_bytes() == &key.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        let of = |algorithm| hash_block(b"abc", algorithm);
        assert_eq!(
            of(HashAlgorithm::Blake3).hash.to_string(),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
        assert_eq!(
            of(HashAlgorithm::Sha256).hash.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            of(HashAlgorithm::Sha1).hash.to_string(),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
    }

    #[test]
    fn the_key_is_blake3_whatever_the_hash() {
        let block = hash_block(b"abc", HashAlgorithm::Sha1);
        assert_eq!(block.key, hash_block(b"abc", HashAlgorithm::Blake3).key);
        assert_eq!(block.length, 3);
        assert!(verify(&block.key, b"abc"));
        assert!(!verify(&block.key, b"abd"));
    }
}
