//! Inputs for the short form: seeds with something wrong, the same ones each time.

/// Numbers at the borders of what lengths and counts can say.
const BORDERS: [u64; 12] = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    i64::MAX as u64,
    u64::MAX,
];

/// xorshift64*: a test that fails fails again.
pub struct Mutator(u64);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// One to four faults in one of the seeds, or bytes that have nothing to do with any.
    pub fn next(&mut self, seeds: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut bytes = seeds
            .get(self.below(seeds.len() + 1))
            .cloned()
            .unwrap_or_else(|| self.noise());
        for _ in 0..1 + self.below(4) {
            self.fault(&mut bytes, seeds);
        }
        bytes.truncate(longest);
        bytes
    }

    fn fault(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => {
                let noise = self.noise();
                bytes.splice(at..at, noise);
            }
            2 => {
                let end = (at + self.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                // The rest of another one.
                let other = seeds
                    .get(self.below(seeds.len().max(1)))
                    .cloned()
                    .unwrap_or_default();
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(other.get(from..).unwrap_or_default());
            }
            4 => {
                let border = BORDERS[self.below(BORDERS.len())];
                let (big, little) = (border.to_be_bytes(), border.to_le_bytes());
                let width = 1 << self.below(4);
                let number = if self.below(2) == 0 {
                    &big[8 - width..]
                } else {
                    &little[..width]
                };
                for (place, byte) in bytes.iter_mut().skip(at).zip(number) {
                    *place = *byte;
                }
            }
            5 => {
                let value = self.below(256) as u8;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            _ => {
                let bit = self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
        }
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.below(64);
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        (number % end.max(1) as u64) as usize
    }
}
