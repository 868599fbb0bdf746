//! Records that wait for the next round, in the order in which their calls began.

use crate::journal::{Body, Record};
use std::collections::BTreeMap;

/// Bytes that wait; then no more are taken from the journal.
const MOST: usize = 64 << 20;
/// Data that one transaction takes: its blocks are to fit in the cache.
const DATA: usize = 12 << 20;
/// What a record takes beside its data.
const OVERHEAD: usize = 512;

pub(in crate::catalog::applier) struct Queue {
    /// Records that one transaction takes.
    at_once: usize,
    /// By the begin of their calls, then by sequence.
    records: BTreeMap<(u64, u64), Record>,
    bytes: usize,
    /// Highest sequence that ever came.
    reached: u64,
}

/// Records of one transaction.
pub(in crate::catalog::applier) struct Taken {
    pub(in crate::catalog::applier) records: Vec<Record>,
    /// All records of calls that began by then are among them, or were taken before.
    pub(in crate::catalog::applier) until: u64,
}

impl Queue {
    pub(in crate::catalog::applier) fn new(at_once: usize) -> Self {
        Self {
            at_once,
            records: BTreeMap::new(),
            bytes: 0,
            reached: 0,
        }
    }

    pub(in crate::catalog::applier) fn push(&mut self, record: Record) {
        self.reached = self.reached.max(record.sequence);
        self.bytes += weight(&record);
        self.records.insert((record.began_ns, record.sequence), record);
    }

    /// Highest sequence that ever came.
    pub(in crate::catalog::applier) fn reached(&self) -> u64 {
        self.reached
    }

    pub(in crate::catalog::applier) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(in crate::catalog::applier) fn is_full(&self) -> bool {
        self.bytes >= MOST
    }

    /// Records of calls that began by `clock`, in order.
    pub(in crate::catalog::applier) fn through(&self, clock: u64) -> impl Iterator<Item = &Record> {
        self.records.range(..=(clock, u64::MAX)).map(|(_, record)| record)
    }

    /// Takes the first records of calls that began by `clock`: those of one call together.
    pub(in crate::catalog::applier) fn take(&mut self, clock: u64) -> Taken {
        let mut records: Vec<Record> = Vec::new();
        let mut data = 0;
        while let Some(entry) = self.records.first_entry() {
            let (began, _) = *entry.key();
            if began > clock {
                break;
            }
            let full = records.len() >= self.at_once || data >= DATA;
            if let Some(last) = records.last()
                && full
                && last.began_ns < began
            {
                let until = last.began_ns;
                return Taken { records, until };
            }
            let record = entry.remove();
            self.bytes -= weight(&record);
            data += record.data_len();
            records.push(record);
        }
        Taken {
            records,
            until: clock,
        }
    }

    /// Everything, in the journal's order.
    pub(in crate::catalog::applier) fn take_all(&mut self) -> Vec<Record> {
        self.bytes = 0;
        let mut all: Vec<Record> = std::mem::take(&mut self.records).into_values().collect();
        all.sort_by_key(|record| record.sequence);
        all
    }
}

fn weight(record: &Record) -> usize {
    let xattrs = match &record.body {
        Body::Metadata { metadata, .. } => metadata.xattrs.iter().map(|(n, v)| n.len() + v.len()).sum(),
        _ => 0,
    };
    OVERHEAD + xattrs + record.data_len()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::journal::{NodeRef, Session};
    use bytes::Bytes;
    use proptest::prelude::*;

    const RECORDS: usize = 64;

    pub(in crate::catalog::applier::cut) fn record(sequence: u64, began_ns: u64, data: usize) -> Record {
        let node = NodeRef {
            dev: 0,
            ino: 1,
            btime_ns: 0,
        };
        Record {
            sequence,
            time_ns: 0,
            session: Session([1; 16]),
            session_sequence: sequence,
            began_ns,
            body: Body::Write {
                handle: 1,
                node,
                start: 0,
                length: data as u64,
                data: Some(Bytes::from(vec![0; data])),
            },
        }
    }

    #[test]
    fn a_round_is_bounded_and_never_parts_what_one_call_did() {
        let mut queue = Queue::new(RECORDS);
        for sequence in 0..(RECORDS as u64 * 2) {
            queue.push(record(sequence, sequence / 3 + 1, 0));
        }
        let first = queue.take(u64::MAX);
        assert!(first.records.len() >= RECORDS && first.records.len() < RECORDS + 3);
        assert_eq!(first.until, first.records.last().unwrap().began_ns);
        let rest = queue.take(u64::MAX);
        assert!(rest.records.iter().all(|r| r.began_ns > first.until));
        assert!(queue.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn much_data_ends_a_round_and_a_full_queue_says_so() {
        let mut queue = Queue::new(RECORDS);
        let mut sequence = 0;
        while !queue.is_full() {
            sequence += 1;
            queue.push(record(sequence, sequence, 1 << 20));
        }
        let taken = queue.take(u64::MAX);
        assert_eq!(taken.records.len(), DATA >> 20);
        assert!(!queue.is_full());
    }

    proptest! {
        #[test]
        fn records_come_out_once_in_the_order_of_their_calls_up_to_the_moment(
            began in proptest::collection::vec(0u64..50, 0..80), clock in 0u64..60, at_once in 1usize..20
        ) {
            let mut queue = Queue::new(at_once);
            for (sequence, began) in (1..).zip(&began) {
                queue.push(record(sequence, *began, 1));
            }
            let expected: Vec<u64> = {
                let mut all: Vec<_> = (1u64..).zip(&began).filter(|(_, b)| **b <= clock).collect();
                all.sort_by_key(|(sequence, began)| (**began, *sequence));
                all.into_iter().map(|(sequence, _)| sequence).collect()
            };
            let listed: Vec<u64> = queue.through(clock).map(|r| r.sequence).collect();
            prop_assert_eq!(&listed, &expected);
            let mut all = Vec::new();
            loop {
                let taken = queue.take(clock);
                prop_assert!(taken.until == clock || taken.records.len() >= at_once);
                prop_assert!(taken.records.iter().all(|r| r.began_ns <= taken.until));
                prop_assert!(queue.through(taken.until).next().is_none(), "the others are later");
                all.extend(taken.records.iter().map(|r| r.sequence));
                if taken.until == clock {
                    break;
                }
            }
            prop_assert_eq!(&all, &expected);
            prop_assert_eq!(queue.take_all().len(), began.len() - expected.len());
            prop_assert_eq!(queue.reached(), began.len() as u64);
        }
    }
}
