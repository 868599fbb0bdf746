//! Which names a directory has, in sixteen bytes: so that a directory of any size is compared without keeping its names.

use std::hash::{BuildHasher, RandomState};

/// Hashes names, each time with other keys, so that no two sets of names can be made that look the same.
#[derive(Default)]
pub(super) struct Hasher {
    keys: [RandomState; 2],
}

impl Hasher {
    pub(super) fn hash(&self, name: &[u8]) -> u128 {
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one(name)));
        high << 64 | low
    }
}

/// The sum of the names' hashes: the order does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fingerprint {
    sum: u128,
    names: u64,
}

impl Fingerprint {
    pub(super) fn add(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_add(hash);
        self.names += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn of<'a>(hasher: &Hasher, names: impl Iterator<Item = &'a Vec<u8>>) -> Fingerprint {
        let mut all = Fingerprint::default();
        names.for_each(|name| all.add(hasher.hash(name)));
        all
    }

    proptest! {
        #[test]
        fn directories_look_the_same_when_they_have_the_same_names_in_any_order(
            a in prop::collection::btree_set(prop::collection::vec(1u8..4, 1..4), 0..40),
            b in prop::collection::btree_set(prop::collection::vec(1u8..4, 1..4), 0..40),
        ) {
            let hasher = Hasher::default();
            let same: BTreeSet<_> = a.iter().collect();
            prop_assert_eq!(of(&hasher, a.iter()), of(&hasher, same.into_iter().rev()));
            prop_assert_eq!(of(&hasher, a.iter()) == of(&hasher, b.iter()), a == b);
        }
    }
}
