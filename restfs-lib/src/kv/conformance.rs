//! What every driver has to do. Call [`check`] in the driver's tests.

use super::{Kv, KvError, KvRead, KvTransaction, KvWrite, MAX_KEY, MAX_VALUE, Pair, transact};
use std::collections::BTreeMap;
use std::ops::Bound;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Random runs per driver, and operations in each.
const SEEDS: u64 = 20;
const OPERATIONS: usize = 400;

/// Panics where a driver differs from the model, with the seed that shows it again. `make` gives a new, empty store.
pub fn check(make: impl Fn() -> Box<dyn Kv>) {
    limits(make().as_ref());
    dropped_writes_leave_nothing(make().as_ref());
    readers_see_one_moment(make().as_ref());
    no_update_is_lost(make().as_ref());
    for seed in 1..=SEEDS {
        random_run(make().as_ref(), seed);
    }
}

fn limits(kv: &dyn Kv) {
    let longest = (vec![b'k'; MAX_KEY], vec![0; MAX_VALUE]);
    let mut txn = begin(kv);
    txn.put(&longest.0, &longest.1)
        .expect("the longest key and value");
    txn.put(b"", b"").expect("the empty key and value");
    assert_eq!(
        txn.put(&[0; MAX_KEY + 1], b""),
        Err(KvError::KeyTooLong(MAX_KEY + 1))
    );
    assert_eq!(
        txn.put(b"k", &vec![0; MAX_VALUE + 1]),
        Err(KvError::ValueTooLong(MAX_VALUE + 1))
    );
    txn.delete(b"never was").expect("deleting what is not there");
    txn.commit().expect("commit after refused writes");
    assert_eq!(all(kv), [(Vec::new(), Vec::new()), longest]);
}

fn dropped_writes_leave_nothing(kv: &dyn Kv) {
    let mut txn = begin(kv);
    txn.put(b"kept", b"1").expect("put");
    txn.commit().expect("commit");
    let mut txn = begin(kv);
    txn.put(b"new", b"2").expect("put");
    txn.delete(b"kept").expect("delete");
    drop(txn);
    assert_eq!(
        all(kv),
        [(b"kept".to_vec(), b"1".to_vec())],
        "after a dropped transaction"
    );
}

fn readers_see_one_moment(kv: &dyn Kv) {
    let set = |value: &[u8]| {
        let mut txn = begin(kv);
        txn.put(b"a", value).expect("put");
        txn.put(value, b"").expect("put");
        txn.commit().expect("commit");
    };
    set(b"x1");
    let before = kv.read().expect("read");
    set(b"x2");
    let between = kv.read().expect("read");
    let mut open = begin(kv);
    open.put(b"a", b"x3").expect("put");
    assert_eq!(
        before.get(b"a"),
        Ok(Some(b"x1".to_vec())),
        "a reader from before a commit"
    );
    assert_eq!(
        scan_all(before.as_ref()).len(),
        2,
        "a reader from before a commit"
    );
    assert_eq!(
        between.get(b"a"),
        Ok(Some(b"x2".to_vec())),
        "a reader beside an open write"
    );
    assert_eq!(
        scan_all(between.as_ref()).len(),
        3,
        "a reader beside an open write"
    );
    open.commit().expect("commit");
    assert_eq!(
        between.get(b"a"),
        Ok(Some(b"x2".to_vec())),
        "a reader from before a commit"
    );
}

fn no_update_is_lost(kv: &dyn Kv) {
    const THREADS: u64 = 4;
    const UPDATES: u64 = 25;
    let number = |bytes: Vec<u8>| u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
    let add = |txn: &mut dyn KvWrite| {
        let old = txn.get(b"sum")?.map_or(0, number);
        txn.put(b"sum", &(old + 1).to_be_bytes())
    };
    let add_patiently = || while transact(kv, add) == Err(KvError::Conflict) {};
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..UPDATES).for_each(|_| add_patiently()));
        }
    });
    let sum = kv
        .read()
        .expect("read")
        .get(b"sum")
        .expect("get")
        .map_or(0, number);
    assert_eq!(sum, THREADS * UPDATES, "sum after concurrent additions");
}

/// Transactions of random operations, each compared with the model, committed or dropped.
fn random_run(kv: &dyn Kv, seed: u64) {
    let mut random = Random(seed);
    let mut model = Model::new();
    let mut done = 0;
    while done < OPERATIONS {
        let mut pending = model.clone();
        let mut txn = begin(kv);
        for _ in 0..random.below(30) {
            step(txn.as_mut(), &mut pending, &mut random, seed);
            done += 1;
        }
        if random.below(3) > 0 {
            txn.commit()
                .unwrap_or_else(|error| panic!("seed {seed}: commit: {error}"));
            model = pending;
        } else {
            drop(txn);
        }
        done += 1;
        let read = kv.read().expect("read");
        compare(read.as_ref(), &model, &mut random, seed);
    }
    assert_eq!(all(kv), Vec::from_iter(model), "seed {seed}: at the end");
}

fn step(txn: &mut dyn KvWrite, model: &mut Model, random: &mut Random, seed: u64) {
    let key = random.key();
    match random.below(5) {
        0 | 1 => {
            let value = random.value();
            txn.put(&key, &value)
                .unwrap_or_else(|error| panic!("seed {seed}: put: {error}"));
            model.insert(key, value);
        }
        2 => {
            txn.delete(&key)
                .unwrap_or_else(|error| panic!("seed {seed}: delete: {error}"));
            model.remove(&key);
        }
        _ => compare(&*txn, model, random, seed),
    }
}

fn compare(read: &dyn KvRead, model: &Model, random: &mut Random, seed: u64) {
    let key = random.key();
    assert_eq!(
        read.get(&key).as_ref().map(Option::as_ref),
        Ok(model.get(&key)),
        "seed {seed}: get {key:?}"
    );
    let (from, to, limit) = (random.key(), random.key(), random.below(12));
    let from = random.bound(&from);
    let to = random.bound(&to);
    let inside = |key: &[u8]| {
        (match from {
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
            Bound::Unbounded => true,
        }) && match to {
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
            Bound::Unbounded => true,
        }
    };
    let expected: Vec<Pair> = model
        .iter()
        .filter(|(key, _)| inside(key))
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(
        read.scan(from, to, limit),
        Ok(expected),
        "seed {seed}: scan {from:?} {to:?} {limit}"
    );
}

fn begin(kv: &dyn Kv) -> Box<dyn KvTransaction + '_> {
    kv.write().expect("write transaction")
}

fn all(kv: &dyn Kv) -> Vec<Pair> {
    scan_all(kv.read().expect("read").as_ref())
}

fn scan_all(read: &dyn KvRead) -> Vec<Pair> {
    read.scan(Bound::Unbounded, Bound::Unbounded, usize::MAX)
        .expect("scan")
}

/// xorshift64* (Vigna 2016): the same everywhere for a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    /// Few and short, so that they meet; with the bytes that a wrong comparison gets wrong.
    fn key(&mut self) -> Vec<u8> {
        const BYTES: [u8; 5] = [0, 1, b'a', 0x80, 0xff];
        let length = self.below(4);
        (0..length).map(|_| BYTES[self.below(BYTES.len())]).collect()
    }

    fn value(&mut self) -> Vec<u8> {
        let length = self.below(20);
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn bound<'a>(&mut self, key: &'a [u8]) -> Bound<&'a [u8]> {
        match self.below(3) {
            0 => Bound::Included(key),
            1 => Bound::Excluded(key),
            _ => Bound::Unbounded,
        }
    }
}
