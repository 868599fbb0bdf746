//! Hashes of content, and the additive digest that compares trees.

use std::fmt;
use std::str::FromStr;

/// A text that names no algorithm, or is no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {expected}")]
pub struct ParseError {
    given: String,
    expected: &'static str,
}

impl ParseError {
    pub(super) fn new(given: &str, expected: &'static str) -> Self {
        // A text from outside is shown, but not without bound.
        Self {
            given: given.chars().take(80).collect(),
            expected,
        }
    }
}

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

impl HashAlgorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashAlgorithm {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "blake3" => Ok(Self::Blake3),
            "sha256" => Ok(Self::Sha256),
            "sha1" => Ok(Self::Sha1),
            _ => Err(ParseError::new(text, "blake3, sha256 or sha1")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    Blake3([u8; 32]),
    Sha256([u8; 32]),
    Sha1([u8; 20]),
}

impl Hash {
    /// `None` when the length is not the algorithm's.
    pub fn from_bytes(algorithm: HashAlgorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            HashAlgorithm::Blake3 => bytes.try_into().ok().map(Self::Blake3),
            HashAlgorithm::Sha256 => bytes.try_into().ok().map(Self::Sha256),
            HashAlgorithm::Sha1 => bytes.try_into().ok().map(Self::Sha1),
        }
    }

    pub fn algorithm(&self) -> HashAlgorithm {
        match self {
            Self::Blake3(_) => HashAlgorithm::Blake3,
            Self::Sha256(_) => HashAlgorithm::Sha256,
            Self::Sha1(_) => HashAlgorithm::Sha1,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Blake3(bytes) | Self::Sha256(bytes) => bytes,
            Self::Sha1(bytes) => bytes,
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

/// Sum modulo 2^256 of the BLAKE3 hashes of rows: order-free, updated by subtracting the old row and adding the
/// new one. Two trees with the same rows have the same digest. It finds accidents, not forgeries: sums of hashes
/// are open to a generalized birthday attack (Wagner 2002), so it never stands for authenticity.
///
/// Four words of 64 bits, the least significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u64; 4]);

impl Digest {
    pub const ZERO: Self = Self([0; 4]);

    /// Reads the bytes as a little-endian number.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        }
        Self(words)
    }

    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Sum modulo 2^256.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with_carry(other, u64::overflowing_add)
    }

    /// Difference modulo 2^256.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.with_carry(other, u64::overflowing_sub)
    }

    fn with_carry(self, other: Self, step: fn(u64, u64) -> (u64, bool)) -> Self {
        let mut words = [0; 4];
        let mut carry = 0;
        for (word, (a, b)) in words.iter_mut().zip(self.0.into_iter().zip(other.0)) {
            let (partial, first) = step(a, b);
            let (whole, second) = step(partial, carry);
            *word = whole;
            carry = u64::from(first || second);
        }
        Self(words)
    }
}

/// Hex of [`Digest::to_bytes`]: a single row's digest reads like its BLAKE3 hash.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        bytes32(text).map(Self::from_bytes)
    }
}

/// 64 hex digits.
pub(super) fn bytes32(text: &str) -> Result<[u8; 32], ParseError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseError::new(text, "64 hex digits"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wide(words: [u64; 4]) -> Vec<u8> {
        Digest(words).to_bytes().to_vec()
    }

    /// Byte by byte, as at school.
    fn school_sum(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut carry = 0u16;
        a.iter()
            .zip(b)
            .map(|(a, b)| {
                carry += u16::from(*a) + u16::from(*b);
                let byte = carry as u8;
                carry >>= 8;
                byte
            })
            .collect()
    }

    #[test]
    fn carries_run_through_all_words() {
        let all = Digest([u64::MAX; 4]);
        let one = Digest([1, 0, 0, 0]);
        assert_eq!(all.plus(one), Digest::ZERO);
        assert_eq!(Digest::ZERO.minus(one), all);
        assert_eq!(Digest([u64::MAX, 0, 0, 0]).plus(one), Digest([0, 1, 0, 0]));
    }

    #[test]
    fn a_digest_reads_like_its_bytes() {
        let text = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.0[0], 0x0807_0605_0403_0201);
        assert!("01".parse::<Digest>().is_err());
    }

    #[test]
    fn names_of_algorithms_come_back() {
        for algorithm in [HashAlgorithm::Blake3, HashAlgorithm::Sha256, HashAlgorithm::Sha1] {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
        let error = "md5".parse::<HashAlgorithm>().unwrap_err();
        assert_eq!(error.to_string(), "\"md5\" is not blake3, sha256 or sha1");
    }

    #[test]
    fn a_hash_of_another_length_is_refused() {
        assert_eq!(Hash::from_bytes(HashAlgorithm::Sha1, &[7; 32]), None);
        assert_eq!(
            Hash::from_bytes(HashAlgorithm::Sha1, &[7; 20]),
            Some(Hash::Sha1([7; 20]))
        );
    }

    proptest! {
        #[test]
        fn sums_are_those_of_256_bit_numbers(a: [u64; 4], b: [u64; 4]) {
            let sum = Digest(a).plus(Digest(b));
            prop_assert_eq!(sum.to_bytes().to_vec(), school_sum(&wide(a), &wide(b)));
            prop_assert_eq!(sum.minus(Digest(b)), Digest(a));
            prop_assert_eq!(Digest::from_bytes(sum.to_bytes()), sum);
        }
    }
}
