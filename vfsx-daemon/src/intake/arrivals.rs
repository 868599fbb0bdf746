//! When the journal's records were noted, coarsely: how old is the oldest one not applied.

use std::collections::VecDeque;

/// Samples kept; beyond it pairs become one, which only makes the answer older, never younger.
const KEPT: usize = 1024;
/// Samples closer than this are one.
const SPACING_NS: i64 = 20_000_000;

#[derive(Default)]
pub(super) struct Arrivals {
    /// (first record, its time); up to the next sample all records are taken to be from that time.
    samples: VecDeque<(u64, i64)>,
}

impl Arrivals {
    /// Records from `sequence` on were noted at `time_ns`.
    pub(super) fn note(&mut self, sequence: u64, time_ns: i64) {
        // Events that are sent again after a restart are older than what came before them.
        if self
            .samples
            .back()
            .is_some_and(|(_, last)| (*last..last + SPACING_NS).contains(&time_ns))
        {
            return;
        }
        if self.samples.len() >= KEPT {
            self.halve();
        }
        self.samples.push_back((sequence, time_ns));
    }

    fn halve(&mut self) {
        let all = self.samples.make_contiguous();
        let pairs = all.chunks(2).filter_map(|pair| {
            let time = pair.iter().map(|(_, time)| *time).min()?;
            pair.first().map(|(sequence, _)| (*sequence, time))
        });
        self.samples = pairs.collect();
    }

    /// Time of record `sequence`, or somewhat earlier; forgets what lies before it.
    pub(super) fn time_of(&mut self, sequence: u64) -> Option<i64> {
        while self.samples.get(1).is_some_and(|(next, _)| *next <= sequence) {
            self.samples.pop_front();
        }
        self.samples.front().map(|(_, time)| *time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_never_younger_than_the_record() {
        let mut arrivals = Arrivals::default();
        // Every hundredth is a minute old when it comes.
        let late = |sequence: u64| {
            if sequence.is_multiple_of(100) {
                60_000_000_000
            } else {
                0
            }
        };
        let time = |sequence: u64| sequence as i64 * 7_000_000 - late(sequence);
        for sequence in 1..=20_000 {
            arrivals.note(sequence, time(sequence));
        }
        for sequence in (1..=20_000).step_by(17) {
            let found = arrivals.time_of(sequence).expect("there are samples");
            assert!(found <= time(sequence), "record {sequence}");
        }
        assert!(
            arrivals.time_of(20_000).expect("a sample") > time(19_700),
            "old samples are forgotten"
        );
    }
}
