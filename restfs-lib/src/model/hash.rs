//! Hashes of content, and the additive digest that compares trees.

/// Hash of a block's plain content as a property of the object. Identity for deduplication is always
/// [`super::BlockKey`] (BLAKE3), whatever is chosen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HashAlgorithm {
    #[default]
    Blake3,
    Sha256,
    /// As in the 2012 design; broken against an adversary, kept for comparison with old data only.
    Sha1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    Blake3([u8; 32]),
    Sha256([u8; 32]),
    Sha1([u8; 20]),
}

/// Sum modulo 2^256 of the BLAKE3 hashes of rows: order-free, updated by subtracting the old row and adding the
/// new one. Two trees with the same rows have the same digest. It finds accidents, not forgeries: sums of hashes
/// are open to a generalized birthday attack (Wagner 2002), so it never stands for authenticity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u64; 4]);
