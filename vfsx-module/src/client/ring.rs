//! Events that vfsxd has not acknowledged, in order, as the frames that go over the socket.

use super::frames::{Frames, Place};
use crate::os;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use vfsx_proto::{Event, encode_event};

/// What an entry costs beside its frame.
const ENTRY_OVERHEAD: usize = size_of::<Entry>();

/// Memory kept for the next frame: the largest ones are rare.
const DRAFT: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotKept {
    /// The limit is reached.
    Full,
    /// The event does not fit in a frame.
    TooLarge,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    time_ns: i64,
    /// The same moment on a clock that nobody sets: `CLOCK_MONOTONIC`.
    kept_ns: u64,
    frame: Place,
}

/// Entries that are in the session's spool file alone.
#[derive(Debug, Clone, Copy)]
struct Left {
    up_to: u64,
    /// Of the oldest.
    time_ns: i64,
    kept_ns: u64,
}

/// Bounded by bytes. The oldest leave, when they are acknowledged or in the spool file, so sequences have no holes.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    frames: Frames,
    bytes: usize,
    limit: usize,
    /// Sequence of the newest entry ever kept.
    last: u64,
    /// `acknowledged <= left.up_to <= last`; what is here follows the greater of the two.
    acknowledged: u64,
    left: Option<Left>,
    /// Entries before this index were given to the present connection.
    given: usize,
    /// One moment on both clocks, so that one look is enough for both.
    clocks: (Instant, u64),
    /// Where a frame is made: its length is known only then.
    draft: Vec<u8>,
}

impl Ring {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            frames: Frames::default(),
            bytes: 0,
            limit,
            last: 0,
            acknowledged: 0,
            left: None,
            given: 0,
            clocks: (Instant::now(), os::monotonic_ns()),
            draft: Vec::new(),
        }
    }

    /// `began_ns`: when the call began that did it; `None`: not known, but by now it had.
    pub(super) fn push(&mut self, event: &Event, time_ns: i64, began_ns: Option<u64>) -> Result<(), NotKept> {
        let sequence = self.last + 1;
        let now_ns = os::monotonic_ns();
        let began_ns = began_ns.unwrap_or(now_ns);
        self.draft.clear();
        encode_event(sequence, time_ns, began_ns, event, &mut self.draft).map_err(|_| NotKept::TooLarge)?;
        let cost = self.draft.len() + ENTRY_OVERHEAD;
        if self.bytes + cost > self.limit {
            return Err(NotKept::Full);
        }
        self.bytes += cost;
        self.last = sequence;
        self.entries.push_back(Entry {
            sequence,
            time_ns,
            kept_ns: now_ns,
            frame: self.frames.push(&self.draft),
        });
        self.draft.shrink_to(DRAFT);
        Ok(())
    }

    /// Drops what is on the daemon's disk.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        self.acknowledged = self.acknowledged.max(sequence.min(self.last));
        self.left = self.left.filter(|left| left.up_to > sequence);
        self.drop_through(sequence);
    }

    /// What is up to here is in the spool file. No connection was given any of it, or will be.
    pub(super) fn leave(&mut self, sequence: u64) {
        let Some(oldest) = self.entries.front().filter(|oldest| oldest.sequence <= sequence) else {
            return;
        };
        let left = self.left.get_or_insert(Left {
            up_to: 0,
            time_ns: oldest.time_ns,
            kept_ns: oldest.kept_ns,
        });
        left.up_to = sequence.min(self.last);
        self.drop_through(sequence);
    }

    fn drop_through(&mut self, sequence: u64) {
        while let Some(entry) = self.entries.front()
            && entry.sequence <= sequence
        {
            self.bytes -= entry.frame.length() + ENTRY_OVERHEAD;
            self.entries.pop_front();
            self.given = self.given.saturating_sub(1);
        }
        self.frames
            .drop_before(self.entries.front().map(|entry| entry.frame));
        if self.entries.is_empty() {
            // Gives back the memory of a long outage.
            self.entries.shrink_to(64);
        }
    }

    /// All that is kept, in order.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.entries
            .iter()
            .filter_map(|entry| self.frames.get(entry.frame))
    }

    /// Those of the oldest entries that have so many bytes, or of one, and the sequence of the last of them.
    pub(super) fn oldest_frames(&self, bytes: usize) -> Option<(Vec<u8>, u64)> {
        let mut frames = Vec::new();
        let mut last = None;
        for entry in &self.entries {
            let frame = self.frames.get(entry.frame)?;
            if last.is_some() && frames.len() + frame.len() > bytes {
                break;
            }
            frames.extend_from_slice(frame);
            last = Some(entry.sequence);
        }
        Some((frames, last?))
    }

    /// The next entry's sequence and frame for the present connection.
    pub(super) fn give(&mut self) -> Option<(u64, &[u8])> {
        let entry = self.entries.get(self.given)?;
        self.given += 1;
        Some((entry.sequence, self.frames.get(entry.frame)?))
    }

    /// A new connection: everything unacknowledged is given again.
    pub(super) fn rewind(&mut self) {
        self.given = 0;
    }

    /// Sequence of the newest entry ever kept; 0 when there was none.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Sequence of the newest entry given to the present connection, or acknowledged before.
    pub(super) fn last_given(&self) -> u64 {
        self.last - self.waiting() as u64
    }

    /// Entries that were not given to the present connection.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len() - self.given
    }

    pub(super) fn newest(&self) -> Option<&[u8]> {
        self.frames.get(self.entries.back()?.frame)
    }

    /// When the newest entry was noted, by `CLOCK_MONOTONIC`.
    pub(super) fn newest_kept_ns(&self) -> Option<u64> {
        self.entries.back().map(|entry| entry.kept_ns)
    }

    /// Sequence of the newest acknowledged entry.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn is_all_acknowledged(&self) -> bool {
        self.acknowledged == self.last
    }

    /// Up to here entries are in the spool file alone; 0: none is.
    pub(super) fn left(&self) -> u64 {
        self.left.map_or(0, |left| left.up_to)
    }

    /// When the oldest unacknowledged event was noted, here or in the spool file.
    pub(super) fn oldest(&self) -> Option<i64> {
        let here = || self.entries.front().map(|entry| entry.time_ns);
        self.left.map(|left| left.time_ns).or_else(here)
    }

    /// The same moment, to wait by.
    pub(super) fn oldest_kept(&self) -> Option<Instant> {
        let here = || self.entries.front().map(|entry| entry.kept_ns);
        let kept_ns = self.left.map(|left| left.kept_ns).or_else(here)?;
        Some(self.instant(kept_ns))
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes <= self.limit / 2
    }

    pub(super) fn has_much_room(&self) -> bool {
        self.bytes <= self.limit / 4
    }

    fn instant(&self, monotonic_ns: u64) -> Instant {
        let (instant, ns) = self.clocks;
        instant + Duration::from_nanos(monotonic_ns.saturating_sub(ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vfsx_proto::{GapReason, NodeRef, ToDaemon, decode};

    fn event(n: u64) -> Event {
        Event::Flushed {
            handle: n,
            node: NodeRef {
                dev: 1,
                ino: n,
                btime_ns: 0,
            },
        }
    }

    fn sequence_in(frame: &[u8]) -> u64 {
        let ToDaemon::Events(events) = decode(&frame[4..]).expect("own frame") else {
            panic!("events only")
        };
        events[0].sequence
    }

    #[test]
    fn a_full_ring_refuses_and_takes_again_after_an_acknowledgement() {
        let mut ring = Ring::new(10 * (ENTRY_OVERHEAD + 60));
        let mut kept = 0;
        while ring.push(&event(kept), 5, None).is_ok() {
            kept += 1;
        }
        assert!(kept >= 10);
        assert!(!ring.has_room());
        assert_eq!(ring.push(&event(0), 5, None), Err(NotKept::Full));
        assert_eq!(ring.last(), kept, "a refused event takes no sequence");
        ring.acknowledge(kept);
        assert!(ring.is_all_acknowledged() && ring.has_room());
        assert_eq!(ring.push(&event(0), 5, None), Ok(()));
        assert_eq!(ring.last(), kept + 1);
    }

    #[test]
    fn an_event_larger_than_a_frame_is_refused() {
        let mut ring = Ring::new(usize::MAX / 2);
        let huge = Event::Opened {
            handle: 1,
            node: NodeRef {
                dev: 1,
                ino: 1,
                btime_ns: 0,
            },
            path_hint: vec![b'x'; vfsx_proto::MAX_FRAME],
        };
        assert_eq!(ring.push(&huge, 0, None), Err(NotKept::TooLarge));
        assert_eq!(
            ring.push(
                &Event::Gap {
                    since_ns: 0,
                    reason: GapReason::Unrepresentable
                },
                0,
                None
            ),
            Ok(())
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Give,
        Acknowledge(u64),
        Rewind,
        /// The connection ends, and the oldest go to the spool file.
        Leave(u64),
        /// vfsxd has taken it in.
        TakeIn,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            4 => Just(Step::Give),
            2 => (0u64..6).prop_map(Step::Acknowledge),
            1 => Just(Step::Rewind),
            1 => (0u64..6).prop_map(Step::Leave),
            1 => Just(Step::TakeIn),
        ]
    }

    proptest! {
        /// Every connection is given all sequences after those that are acknowledged or in the spool file, in order, none twice.
        #[test]
        fn order_survives_any_mix_of_pushes_acknowledgements_and_reconnects(steps in prop::collection::vec(step(), 0..200)) {
            let mut ring = Ring::new(1 << 20);
            let (mut pushed, mut given, mut acknowledged, mut left) = (0u64, 0u64, 0u64, 0u64);
            for step in steps {
                match step {
                    Step::Push => {
                        ring.push(&event(pushed), pushed as i64, None).expect("room");
                        pushed += 1;
                    }
                    Step::Give => {
                        let got = ring.give().map(|(sequence, frame)| {
                            assert_eq!(sequence, sequence_in(frame));
                            sequence
                        });
                        prop_assert_eq!(got, (given < pushed).then_some(given + 1));
                        given += u64::from(got.is_some());
                    }
                    // Nothing is acknowledged before what is in the file.
                    Step::Acknowledge(behind) if left == 0 => {
                        acknowledged = acknowledged.max(given.saturating_sub(behind));
                        ring.acknowledge(acknowledged);
                    }
                    Step::Acknowledge(_) => {}
                    Step::Rewind => {
                        ring.rewind();
                        given = acknowledged.max(left);
                    }
                    Step::Leave(behind) => {
                        ring.rewind();
                        let up_to = pushed.saturating_sub(behind);
                        if up_to > acknowledged.max(left) {
                            left = up_to;
                        }
                        ring.leave(up_to);
                        given = acknowledged.max(left);
                    }
                    Step::TakeIn => {
                        acknowledged = acknowledged.max(left);
                        given = given.max(acknowledged);
                        ring.acknowledge(acknowledged);
                        left = 0;
                    }
                }
                prop_assert_eq!(ring.last(), pushed);
                prop_assert_eq!(ring.last_given(), given);
                prop_assert_eq!(ring.is_all_acknowledged(), acknowledged == pushed);
                prop_assert_eq!(ring.acknowledged(), acknowledged);
                prop_assert_eq!(ring.left(), left);
                prop_assert_eq!(ring.oldest(), (acknowledged < pushed).then_some(acknowledged as i64));
                let (frames, last) = ring.oldest_frames(100).unwrap_or_default();
                let behind = acknowledged.max(left);
                prop_assert_eq!(frames.is_empty(), behind == pushed);
                let mut decoder = vfsx_proto::Decoder::default();
                decoder.push(&frames);
                for expected in behind + 1..=last {
                    let Ok(Some(ToDaemon::Events(events))) = decoder.next() else {
                        panic!("a frame that is not whole")
                    };
                    prop_assert_eq!(events[0].sequence, expected);
                }
                prop_assert_eq!(decoder.pending(), 0);
            }
        }
    }
}
