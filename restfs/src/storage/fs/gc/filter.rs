//! A set of keys that may say yes too often and never says no wrongly (Bloom 1970), in memory that is given beforehand.

use restfs_lib::model::BlockKey;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits for a key: with [`PROBES`] one key in a thousand that is not there counts as there.
const BITS: u64 = 16;
const PROBES: u64 = 6;

pub(super) struct Filter {
    words: Vec<AtomicU64>,
    /// Another one each time, so that what counts as there by chance does so once.
    salt: [u64; 2],
}

impl Filter {
    /// For about this many keys, in so many bytes at least and at most. Beyond, more and more count as there.
    pub(super) fn new(keys: u64, least: usize, most: usize) -> Self {
        let bytes = usize::try_from(keys.saturating_mul(BITS) / 8).unwrap_or(most);
        let words = bytes.clamp(least, most).div_ceil(8);
        let mut salt = [[0; 8]; 2];
        for part in &mut salt {
            // Without, the filter is as right, and as wrong as the last one was.
            let _ = getrandom::fill(part);
        }
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            salt: salt.map(u64::from_ne_bytes),
        }
    }

    pub(super) fn insert(&self, key: &BlockKey) {
        for (word, bit) in self.places(key) {
            self.words[word].fetch_or(bit, Ordering::SeqCst);
        }
    }

    pub(super) fn contains(&self, key: &BlockKey) -> bool {
        self.places(key)
            .all(|(word, bit)| self.words[word].load(Ordering::SeqCst) & bit != 0)
    }

    /// Keys are hashes, so their bytes are as good as any other hash of them.
    fn places(&self, key: &BlockKey) -> impl Iterator<Item = (usize, u64)> {
        let part = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&key.0[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let first = mix(part(0) ^ self.salt[0]);
        let step = mix(part(8) ^ self.salt[1]) | 1;
        let bits = self.words.len() as u128 * 64;
        (0..PROBES).map(move |probe| {
            let place = first.wrapping_add(probe.wrapping_mul(step));
            let bit = (u128::from(place) * bits) >> 64;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }
}

/// Spreads what the salt changes over all bits (the finalizer of SplitMix64).
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> BlockKey {
        BlockKey(*blake3::hash(&number.to_be_bytes()).as_bytes())
    }

    #[test]
    fn what_was_put_is_there_also_when_it_is_far_too_full() {
        for most in [8, 1 << 10, 1 << 20] {
            let filter = Filter::new(20_000, 8, most);
            (0..20_000).for_each(|number| filter.insert(&key(number)));
            assert!((0..20_000).all(|number| filter.contains(&key(number))));
        }
    }

    #[test]
    fn few_others_count_as_there_and_not_the_same_ones_the_next_time() {
        let wrong = || {
            let filter = Filter::new(20_000, 8, 1 << 20);
            (0..20_000).for_each(|number| filter.insert(&key(number)));
            let others = (20_000..120_000).filter(|number| filter.contains(&key(*number)));
            others.collect::<Vec<u32>>()
        };
        let (first, second) = (wrong(), wrong());
        assert!(first.len() < 300, "{} of 100000", first.len());
        let both = first.iter().filter(|number| second.contains(number)).count();
        assert!(both < 10, "{both} were wrong twice");
    }
}
