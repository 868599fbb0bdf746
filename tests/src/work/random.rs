//! Repeatable noise: the same seed gives the same bytes, and they do not compress.

use anyhow::{Context, Result};
use std::io::{BufWriter, Write};
use std::path::Path;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    // Not an iterator: it has no end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`, or 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// A new file of `length` bytes.
pub fn random_file(path: &Path, length: u64, seed: u64) -> Result<()> {
    const STEP: u64 = 1 << 20;
    let mut random = Random(seed);
    let mut file =
        BufWriter::new(std::fs::File::create(path).with_context(|| format!("create {}", path.display()))?);
    let mut left = length;
    while left > 0 {
        let step = left.min(STEP);
        file.write_all(&random.bytes(step as usize))?;
        left -= step;
    }
    file.flush()?;
    Ok(())
}
