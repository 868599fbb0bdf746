//! Three numbers of 8 bytes each, little-endian, that every event has: written at once, since smbd writes dozens of them for each file that a
//! client makes, and a varint takes longer.

use serde::{Deserialize, Serialize};

const NUMBER: usize = size_of::<u64>();
const BYTES: usize = 3 * NUMBER;

/// See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Packed(#[serde(with = "serde_bytes")] [u8; BYTES]);

impl Packed {
    pub(crate) fn new(numbers: [u64; 3]) -> Self {
        let mut bytes = [0; BYTES];
        for (place, number) in bytes.chunks_exact_mut(NUMBER).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        Self(bytes)
    }

    pub(crate) fn numbers(self) -> [u64; 3] {
        let mut numbers = [0; 3];
        for (number, bytes) in numbers.iter_mut().zip(self.0.chunks_exact(NUMBER)) {
            let mut whole = [0; NUMBER];
            whole.copy_from_slice(bytes);
            *number = u64::from_le_bytes(whole);
        }
        numbers
    }
}
