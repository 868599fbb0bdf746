//! The applier's loop with rounds.

use super::super::run::{Applier, Input};
use super::super::unread::Class;
use super::super::work::Work;
use super::Need;
use super::round::{Known, Round};
use super::steps::End;
use crate::catalog::CatalogError;
use crate::catalog::moments::Moment;
use crate::catalog::store::{CutRow, Key, ScanPhase, delete, put};
use crate::journal::Record;
use restfs_lib::kv::KvWrite;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use vfsx_proto::ring::WRITE_ENDED_AFTER;

const CLASSES: [Class; 2] = [Class::Client, Class::Scan];

impl Applier {
    /// Begins with rounds, or ends them, as the sessions and the catalog's state ask for.
    pub(in crate::catalog::applier) fn follow_sessions(&mut self, input: &mut Input) {
        let memory = &mut self.memory;
        let Some(cuts) = &mut self.cuts else { return };
        // Without a whole tree no point is exact, whatever the sessions say.
        let whole = memory.scan.phase == ScanPhase::Done && memory.gap.is_none();
        let wanted = whole && cuts.is_wanted();
        if wanted == cuts.is_on() {
            return;
        }
        if wanted {
            cuts.turn_on(memory.head.change);
            memory.unmarked = 0;
            self.shared.now().cannot_follow = false;
            memory.dirty.all_due(Instant::now());
            // What was being taken in as it came.
            cuts.push(self.left.drain(..).collect());
            let records = input.records.take();
            cuts.push(records.map(|batch| batch.records).unwrap_or_default());
            for part in input.parts.drain(..) {
                cuts.take_part(part);
            }
        } else {
            memory.round = None;
            if !cuts.have_writes_ended() {
                memory.dirty.none_before(Instant::now() + WRITE_ENDED_AFTER);
            }
            let (mut records, mut parts) = cuts.turn_off();
            records.extend(input.records.take().into_iter().flat_map(|batch| batch.records));
            self.left.extend(records);
            parts.append(&mut input.parts);
            input.parts = parts;
        }
    }

    pub(in crate::catalog::applier) fn in_rounds(&self) -> bool {
        self.cuts.as_ref().is_some_and(|cuts| cuts.is_on())
    }

    /// Readers work for a round only when its writes have ended.
    pub(in crate::catalog::applier) fn may_read(&self) -> bool {
        self.cuts
            .as_ref()
            .is_none_or(|cuts| !cuts.is_on() || cuts.is_reading())
    }

    /// What came goes to the round under way; one that is complete comes back as input.
    pub(in crate::catalog::applier) fn hand_over(&mut self, input: &mut Input) {
        let in_rounds = self.in_rounds();
        for record in input.records.iter().flat_map(|batch| &batch.records) {
            if in_rounds && record.sequence > self.received + 1 {
                self.hole = self.hole.or(Some(record.time_ns));
            }
            self.received = self.received.max(record.sequence);
        }
        let Some(cuts) = self.cuts.as_mut().filter(|_| in_rounds) else {
            return;
        };
        cuts.push(
            input
                .records
                .take()
                .map(|batch| batch.records)
                .unwrap_or_default(),
        );
        for part in input.parts.drain(..) {
            cuts.take_part(part);
        }
        let (need, idle) = (self.need(), self.readers_idle());
        input.round = self.cuts.as_mut().and_then(|cuts| cuts.next(need, idle));
    }

    /// Whether there is something to do though no record came.
    pub(in crate::catalog::applier) fn need(&self) -> Need {
        let memory = &self.memory;
        let due = CLASSES
            .into_iter()
            .filter_map(|class| memory.dirty.next_due(class))
            .min();
        let now = due.is_some_and(|due| due <= Instant::now());
        if now || (memory.round.is_some() && !self.failed) {
            return Need::Now;
        }
        let soon = memory.dirty.len() > 0
            || memory.round.is_some()
            || !memory.looks.is_empty()
            || !memory.suspects.is_empty()
            || !memory.lost.is_empty()
            || memory.displaced > 0
            || memory.lists > 0
            || memory.scan_due.is_some()
            || self.more_to_trim
            || self
                .cuts
                .as_ref()
                .is_some_and(|cuts| !cuts.is_exact_at(memory.head.change));
        if soon { Need::Soon } else { Need::None }
    }

    fn readers_idle(&self) -> bool {
        let dirty = &self.memory.dirty;
        let now = Instant::now();
        let read = self.cuts.as_ref().map_or(0, |cuts| cuts.read());
        let reading: usize = CLASSES.into_iter().map(|class| dirty.in_flight(class)).sum();
        reading <= read
            && CLASSES
                .into_iter()
                .all(|class| dirty.next_due(class).is_none_or(|due| due > now))
    }

    pub(in crate::catalog::applier) fn round_timeout(&self) -> Duration {
        match &self.cuts {
            Some(cuts) if cuts.is_on() => cuts.timeout(self.need(), self.readers_idle()),
            _ => Duration::MAX,
        }
    }

    /// The round's part of a transaction. The records that it took, for the case that the transaction fails.
    pub(in crate::catalog::applier) fn fill_round(
        &mut self,
        kv: &mut dyn KvWrite,
        moment: Moment,
        taken: &mut Vec<Record>,
    ) -> Result<Filled, CatalogError> {
        let now_ns = super::super::now_ns();
        let Some(cuts) = &mut self.cuts else {
            return Ok(Filled::default());
        };
        let mut work = Work::new(
            kv,
            &mut self.memory,
            &self.shared.share,
            &self.shared.cache,
            self.rules,
            now_ns,
        );
        if let Some(since_ns) = self.hole {
            work.note_hole(since_ns)?;
        }
        let goes_on = match cuts.going_on() {
            Some(until) => {
                let next = cuts.queue().take(until);
                *taken = next.records;
                work.apply_in_round(taken)?;
                (next.until < until).then_some(until)
            }
            None => {
                let window = work.window(cuts.queue().through(moment.clock_ns))?;
                let beyond = cuts.is_beyond_taint(moment.clock_ns);
                let sure = moment.unsure.is_none() && beyond;
                match &moment.unsure {
                    Some(why) => cuts.fail(why.clone()),
                    None if !beyond => cuts.fail("a site needed content that was not kept"),
                    None => {}
                }
                let found = cuts.take_found();
                let had_round = work.memory.round.is_some();
                self.failed = false;
                let ended = cuts.have_writes_ended();
                let known = match work.close_round(found, &window, sure && ended)? {
                    End::Exact => Known::default(),
                    End::Fuzzy(why, known) => {
                        match sure {
                            true => cuts.found(moment.clock_ns),
                            false => cuts.lose_floor(),
                        }
                        self.failed = had_round;
                        // Else that is why.
                        if had_round && sure && ended {
                            cuts.fail(why);
                        }
                        match cuts.is_complete() {
                            true => known,
                            // In another order than it was done.
                            false => known.left(&HashSet::new(), work.memory.dirty.ids()),
                        }
                    }
                };
                let next = cuts.queue().take(moment.clock_ns);
                let ahead_of = cuts.ahead_of().min(moment.clock_ns);
                let goes_on = (next.until < ahead_of).then_some(ahead_of);
                let founded = sure && cuts.is_founded(goes_on.unwrap_or(next.until));
                cuts.set_complete(sure);
                *taken = next.records;
                let later = cuts.queue().through(goes_on.unwrap_or(0));
                let described = work.descriptions(taken.iter().chain(later));
                work.open_round(taken, Round::new(founded, known, described), &window)?;
                goes_on
            }
        };
        if let Some(until) = goes_on {
            let named = work.save()?;
            tracing::trace!(taken = taken.len(), "round goes on");
            cuts.go_on(moment, until);
            return Ok(Filled { marked: None, named });
        }
        let unread = work.memory.dirty.len() > 0;
        if !unread {
            work.close_unread_round()?;
        }
        self.caught_up = cuts.queue().is_empty();
        if self.caught_up {
            work.drop_displaced()?;
            work.give_up_lost()?;
            work.give_up_looks()?;
        }
        work.step_scan()?;
        let marked = work.marked;
        tracing::trace!(
            taken = taken.len(),
            ?marked,
            unread,
            failed = self.failed,
            "round"
        );
        let named = work.save()?;
        match unread {
            true => cuts.read_after(moment),
            false => cuts.read_nothing(&moment),
        }
        Ok(Filled { marked, named })
    }

    /// Notes how far rounds are, for the next start.
    pub(in crate::catalog::applier) fn put_cut(
        &mut self,
        kv: &mut dyn KvWrite,
        marked: Option<u64>,
    ) -> Result<(), CatalogError> {
        let Some(cuts) = &self.cuts else { return Ok(()) };
        let wanted = (cuts.is_on() || cuts.is_held()).then(|| CutRow {
            marked: marked.unwrap_or(cuts.marked()),
            beyond: self.memory.beyond.iter().copied().collect(),
        });
        if wanted == self.cut_row {
            return Ok(());
        }
        let key = Key::meta("cut");
        match &wanted {
            Some(row) => put(kv, &key, row)?,
            None => delete(kv, &key)?,
        }
        self.cut_row = wanted;
        Ok(())
    }

    /// Sites get the changes up to here.
    pub(in crate::catalog::applier) fn shippable(&self) -> u64 {
        let head = self.memory.head.change;
        self.cuts.as_ref().map_or(head, |cuts| cuts.shippable(head))
    }
}

/// What a round has done in a transaction.
#[derive(Default)]
pub(in crate::catalog::applier) struct Filled {
    /// The change behind which the tree is exact.
    pub(in crate::catalog::applier) marked: Option<u64>,
    /// Blocks that changes name.
    pub(in crate::catalog::applier) named: Vec<(u64, restfs_lib::model::BlockKey)>,
}
