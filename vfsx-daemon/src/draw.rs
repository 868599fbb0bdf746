//! For property tests: values of types with many fields, filled in one field after another.

use proptest::prelude::*;
use proptest::test_runner::TestRng;

/// What codecs get wrong first.
const BORDERS: [u64; 10] = [
    0,
    1,
    0x7F,
    0x80,
    0x3FFF,
    0x4000,
    u32::MAX as u64,
    1 << 53,
    i64::MAX as u64,
    u64::MAX,
];
/// Texts that a line, a key or a terminal may take for something else.
const TEXTS: [&str; 6] = [
    "",
    "data",
    "a \"b\"\\",
    "line\nline\r",
    "\u{0}\u{7f}",
    "\u{10ffff}ß\u{202e}",
];

#[derive(Debug, Clone)]
pub(crate) struct Draw(TestRng);

pub(crate) fn draw() -> impl Strategy<Value = Draw> {
    Just(()).prop_perturb(|(), random| Draw(random))
}

impl Draw {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    /// Of any length, not only long ones.
    pub(crate) fn u64(&mut self) -> u64 {
        match self.below(3) {
            0 => self.one_of(&BORDERS),
            _ => self.0.next_u64() >> self.below(64),
        }
    }

    pub(crate) fn i64(&mut self) -> i64 {
        let number = self.u64().cast_signed();
        if self.bool() {
            number
        } else {
            number.wrapping_neg()
        }
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    pub(crate) fn usize(&mut self) -> usize {
        self.u64() as usize
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.below(40) as usize];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    pub(crate) fn text(&mut self) -> String {
        match self.below(2) {
            0 => self.one_of(&TEXTS).to_owned(),
            _ => String::from_utf8_lossy(&self.bytes()).into_owned(),
        }
    }

    pub(crate) fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| value(self))
    }

    pub(crate) fn some<T, C: FromIterator<T>>(&mut self, mut value: impl FnMut(&mut Self) -> T) -> C {
        let count = self.below(5);
        (0..count).map(|_| value(self)).collect()
    }

    pub(crate) fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize].clone()
    }
}
