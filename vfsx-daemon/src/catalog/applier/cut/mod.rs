//! Rounds: how the change log gets places at which the tree is one moment's state of the share, while clients work on.
//!
//! As long as every session tells its writes with their data before they begin, records are not applied as they come:
//!
//! 1. a **moment** is asked for: a time, and the journal's records of all calls that began by then. They are applied, in
//!    the order in which the calls began, which is one in which the share may have changed;
//! 2. when the writes among them have ended, what they touched is read;
//! 3. the next moment tells which records came meanwhile: the **window**. What it does not touch was read as the round
//!    left it. What it touches is what the tree of before and the round's records say ([`bridge`]);
//! 4. where these do not know, the round has failed: what was read counts as it is, for the end of the next round, which
//!    the window's records become. Else the tree is exact, and the change log is marked.
//!
//! Sites get the changes up to the last mark, and no state between two of them. When there is none for too long, sessions
//! are to stop telling data ([`rest`]), and sites get what there is: the share's mode is map then.

mod bridge;
mod drive;
mod queue;
mod rest;
mod round;
mod steps;
mod window;

pub(super) use drive::Filled;
pub(super) use round::{News, Round};
pub(super) use window::Window;

use crate::catalog::moments::{Moment, Sessions};
use crate::catalog::reader::Part;
use crate::catalog::status::Cuts as Counts;
use crate::journal::{Record, monotonic_ns};
use bridge::{Found, gather};
use crossbeam_channel::{Receiver, Sender, bounded};
use queue::Queue;
use rest::Rest;
use restfs_lib::wire::limits::MAX_OPS;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use vfsx_proto::ring::WRITE_ENDED_AFTER;

/// Sites wait for an exact state this long: none is to be five seconds behind.
const PATIENCE: Duration = Duration::from_secs(3);
/// After a start sessions need a while to come back.
const PATIENCE_AT_START: Duration = Duration::from_secs(8);
/// Changes between two exact states, and their weight in a commit: a site takes them in one.
const CHANGES: u64 = MAX_OPS as u64 - 1000;
const WEIGHT: usize = 8 << 20;
/// A round does not wait longer for readers: what one of them reads is large, and later records wait.
const READING: Duration = Duration::from_millis(500);
/// Nor for the journal to bring records that are known to be there.
const GATHERING: Duration = Duration::from_secs(2);
/// For the sessions, when a moment is asked for. A call of smbd may take as long.
const MOMENT: Duration = Duration::from_secs(1);
/// What waits for its time is looked at so often.
const TICK: Duration = Duration::from_millis(200);

/// What is asked of the sessions, by a thread of its own: the answers may take a while. With a number, since one that
/// nobody waits for any more may come late.
enum Ask {
    Moment(u64),
    Ended(u64, Moment),
}

pub(super) enum Answer {
    Moment(u64, Moment),
    Ended(u64, bool),
}

#[derive(Debug)]
enum Phase {
    /// Nothing is under way.
    Idle,
    /// A moment is asked for, with this number.
    Asking(u64),
    /// Until the journal has brought the moment's records.
    Gathering(Moment, Instant),
    /// The round that is open takes more: all records of calls that began by this time.
    Applying(Moment, u64),
    /// Writes are to end; asked with this number.
    Ending(u64),
    /// Readers read.
    Reading(Instant),
}

/// See the module's text.
pub(in crate::catalog) struct Cuts {
    sessions: Arc<dyn Sessions>,
    asks: Sender<Ask>,
    asked: u64,
    pub(super) answers: Receiver<Answer>,
    on: bool,
    phase: Phase,
    queue: Queue,
    parts: Vec<Part>,
    /// Reads that have ended and wait for the end of the round.
    read: usize,
    /// Of the parts, those that were there when the moment was asked for: whatever they have seen has begun before it.
    in_time: usize,
    /// What is dirty is not read before its writes had ended.
    writes_ended: bool,
    /// All records of calls that began before the round's are applied: none of an older call comes after one that is in the
    /// tree already.
    complete: bool,
    /// Something outside of rounds has changed the tree then, on the clock of moments.
    tainted_ns: u64,
    /// The tree was true of some moment up to this one, or will be with the records up to it. `None`: it is not known.
    floor: Option<u64>,
    /// Sites get the changes up to here.
    shippable: u64,
    /// Of those behind this one they get exact states only.
    exact_after: Option<u64>,
    /// Last change that was marked; after a start that of the run before, or the newest.
    marked: u64,
    /// Last change that was marked in this run.
    exact_at: Option<u64>,
    /// Since when sites wait for more.
    held_since: Option<Instant>,
    patience: Duration,
    rest: Rest,
    last_round: Instant,
    counts: Counts,
}

impl Cuts {
    /// `marked`: of the run before, when it had rounds and sites may lack what came after. `at_once`: records that one
    /// transaction takes.
    pub(in crate::catalog) fn start(
        sessions: Arc<dyn Sessions>,
        head: u64,
        marked: Option<u64>,
        at_once: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (asks, asked) = bounded(1);
        let (answer, answers) = bounded(1);
        let asking = Arc::clone(&sessions);
        let thread = Builder::new()
            .name("moments".to_owned())
            .spawn(move || serve(&*asking, &asked, &answer))?;
        let shippable = marked.unwrap_or(head).min(head);
        let cuts = Self {
            sessions,
            asks,
            asked: 0,
            answers,
            on: false,
            phase: Phase::Idle,
            queue: Queue::new(at_once),
            parts: Vec::new(),
            read: 0,
            in_time: 0,
            writes_ended: false,
            complete: false,
            tainted_ns: 0,
            floor: None,
            shippable,
            exact_after: (shippable < head).then_some(0),
            marked: shippable,
            exact_at: None,
            held_since: (shippable < head).then(Instant::now),
            patience: PATIENCE_AT_START,
            rest: Rest::default(),
            last_round: Instant::now(),
            counts: Counts::default(),
        };
        Ok((cuts, thread))
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Whether the sessions tell what rounds need.
    pub(super) fn is_wanted(&self) -> bool {
        self.sessions.copying()
    }

    pub(super) fn turn_on(&mut self, head: u64) {
        tracing::info!("written data comes with the records: points are exact from now on");
        self.on = true;
        self.patience = self.patience.max(PATIENCE);
        self.phase = Phase::Idle;
        self.doubt();
        if self.held_since.is_none() {
            self.shippable = head;
            self.exact_after = Some(head);
        }
    }

    /// Gives what is in hand, to be taken as it is.
    pub(super) fn turn_off(&mut self) -> (Vec<Record>, Vec<Part>) {
        tracing::info!("files are read as they are found: points may be fuzzy");
        self.on = false;
        self.phase = Phase::Idle;
        (self.held_since, self.exact_after) = (None, None);
        (self.in_time, self.read) = (0, 0);
        (self.queue.take_all(), std::mem::take(&mut self.parts))
    }

    /// After a failed transaction: memory was loaded anew, and nothing is known of what was being read.
    pub(super) fn reset(&mut self, records: Vec<Record>) {
        for record in records {
            self.queue.push(record);
        }
        self.parts.clear();
        (self.in_time, self.read) = (0, 0);
        self.doubt();
        self.phase = Phase::Idle;
    }

    /// Something outside of rounds has changed the tree, to what the share has been by now.
    pub(super) fn taint(&mut self) {
        self.floor = None;
        self.tainted_ns = monotonic_ns();
    }

    /// Whether a moment tells of all that the tree may have in it.
    pub(super) fn is_beyond_taint(&self, clock_ns: u64) -> bool {
        clock_ns > self.tainted_ns
    }

    /// Nothing is known of how the tree, and the writes that were announced, are.
    fn doubt(&mut self) {
        self.floor = None;
        (self.writes_ended, self.complete) = (false, false);
    }

    pub(super) fn wants_records(&self) -> bool {
        !self.queue.is_full()
    }

    pub(super) fn push(&mut self, records: Vec<Record>) {
        for record in records {
            self.queue.push(record);
        }
    }

    pub(super) fn take_part(&mut self, part: Part) {
        self.read += usize::from(part.ending.is_some());
        self.parts.push(part);
    }

    pub(super) fn take_answer(&mut self, answer: Answer) {
        self.phase = match (answer, &self.phase) {
            (Answer::Moment(id, moment), Phase::Asking(asked)) if id == *asked => {
                Phase::Gathering(moment, Instant::now())
            }
            // A write that has not ended by now is told again when it has: what is read is not to be missed for it, but
            // does not make the tree that of any moment.
            (Answer::Ended(id, ended), Phase::Ending(asked)) if id == *asked => {
                self.writes_ended = ended;
                if !ended {
                    self.fail("a write takes long");
                }
                Phase::Reading(Instant::now())
            }
            _ => return,
        };
    }

    /// Reads that have ended and wait for the end of the round.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    pub(super) fn is_reading(&self) -> bool {
        matches!(self.phase, Phase::Reading(_))
    }

    /// Moves on; a moment whose records are there is to be made a round of. `need`: there is something to do, now or
    /// soon. `readers_idle`: no reader is at work, and nothing is to be read at once.
    pub(super) fn next(&mut self, need: Need, readers_idle: bool) -> Option<Moment> {
        match &self.phase {
            Phase::Idle => {
                let due = match need {
                    Need::Now => true,
                    Need::Soon => self.last_round.elapsed() >= TICK,
                    Need::None => false,
                };
                if due || !self.queue.is_empty() {
                    self.ask_moment();
                }
                None
            }
            Phase::Reading(since)
                if readers_idle && self.is_worth_a_round() || since.elapsed() >= READING =>
            {
                self.ask_moment();
                None
            }
            Phase::Gathering(moment, since)
                if self.queue.reached() >= moment.sequence
                    // What is missing cannot come before a round has made room.
                    || self.queue.is_full()
                    || since.elapsed() >= GATHERING =>
            {
                let mut moment = moment.clone();
                if self.queue.reached() < moment.sequence {
                    let why = match self.queue.is_full() {
                        true => "more records wait than are taken at once",
                        false => "records of the journal are late",
                    };
                    moment.unsure = Some(why.to_owned());
                }
                self.phase = Phase::Idle;
                self.last_round = Instant::now();
                Some(moment)
            }
            Phase::Applying(moment, _) => Some(moment.clone()),
            _ => None,
        }
    }

    /// A round that takes in nothing, since what is to be read cannot be yet, is not made again at once.
    fn is_worth_a_round(&self) -> bool {
        !self.queue.is_empty() || !self.parts.is_empty() || self.last_round.elapsed() >= TICK
    }

    /// How long nothing has to be done when nothing comes. `readers_idle`: as for [`Self::next`].
    pub(super) fn timeout(&self, need: Need, readers_idle: bool) -> Duration {
        let now = Instant::now();
        let held = self
            .held_since
            .map(|since| (since + self.patience).saturating_duration_since(now));
        let next = match (&self.phase, need) {
            (Phase::Reading(since), _) => {
                let until = match readers_idle {
                    true => (*since + READING).min(self.last_round + TICK),
                    false => *since + READING,
                };
                Some(until.saturating_duration_since(now))
            }
            (Phase::Gathering(_, since), _) => Some((*since + GATHERING).saturating_duration_since(now)),
            (Phase::Applying(..), _) | (Phase::Idle, Need::Now) => Some(Duration::ZERO),
            (Phase::Idle, Need::Soon) => Some((self.last_round + TICK).saturating_duration_since(now)),
            _ => None,
        };
        held.into_iter().chain(next).min().unwrap_or(Duration::MAX)
    }

    /// The round is applied, and nothing of it is to be read.
    pub(super) fn read_nothing(&mut self, moment: &Moment) {
        self.writes_ended |= moment.unsure.is_none() && moment.writers.is_empty();
    }

    /// The round is applied, and what it touched is to be read when its writes have ended.
    pub(super) fn read_after(&mut self, moment: Moment) {
        self.writes_ended = false;
        self.asked += 1;
        if self.asks.try_send(Ask::Ended(self.asked, moment)).is_ok() {
            self.phase = Phase::Ending(self.asked);
        }
    }

    fn ask_moment(&mut self) {
        self.in_time = self.parts.len();
        self.asked += 1;
        if self.asks.try_send(Ask::Moment(self.asked)).is_ok() {
            self.phase = Phase::Asking(self.asked);
        }
    }

    pub(super) fn fail(&mut self, why: impl Into<String>) {
        let why = why.into();
        tracing::debug!(why, "a round is not exact");
        self.counts.last_failure = Some(why);
    }

    /// After a transaction.
    pub(super) fn settle(&mut self, after: After) {
        let After {
            head, marked, quiet, ..
        } = after;
        if quiet && !self.on && self.counts.rests() {
            rest::end(&mut self.counts);
        }
        if let Some(marked) = marked {
            self.counts.exact += 1;
            self.marked = marked;
            self.exact_at = Some(marked);
            self.shippable = self.shippable.max(marked);
            self.patience = PATIENCE;
            self.held_since = None;
            if self.on && !self.counts.rests() {
                self.exact_after.get_or_insert(marked);
            }
        }
        if !self.on && self.held_since.is_none() {
            self.shippable = head;
        }
        if self.shippable < head {
            self.held_since.get_or_insert_with(Instant::now);
        }
        let waited = self
            .held_since
            .is_some_and(|since| since.elapsed() >= self.patience);
        let too_much = head.saturating_sub(self.shippable) > CHANGES || after.unmarked > WEIGHT;
        if waited || self.on && (self.counts.rests() || too_much || after.cannot_follow) {
            self.give_up(&after, too_much);
        }
        if self.shippable >= head {
            self.held_since = None;
        }
    }

    /// Sites get what there is.
    fn give_up(&mut self, after: &After, too_much: bool) {
        let is_new = !self.counts.rests();
        self.counts.fuzzy += u64::from(is_new && self.shippable < after.head);
        self.shippable = after.head;
        self.exact_after = None;
        self.patience = PATIENCE;
        if !self.on || !is_new {
            return;
        }
        if too_much {
            self.fail("there are too many changes since the last exact state");
        } else if after.cannot_follow {
            self.fail("sites need content that was not kept");
        }
        self.rest.begin(&mut self.counts);
    }

    /// Sites get the changes up to here.
    pub(super) fn shippable(&self, head: u64) -> u64 {
        if self.on || self.held_since.is_some() {
            self.shippable.min(head)
        } else {
            head
        }
    }

    /// Of the changes behind this one sites get exact states only.
    pub(super) fn exact_after(&self) -> Option<u64> {
        self.exact_after
    }

    /// The round that is open has all records up to its end, or may lack some.
    pub(super) fn set_complete(&mut self, complete: bool) {
        self.complete = complete;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// A round has ended that was not exact, at this moment, which is sure. What was read as it was is true by now, with the
    /// records up to now: unless it was read before a write had ended, of which there is no record to come, or has more in it
    /// than is to come before these.
    pub(super) fn found(&mut self, clock_ns: u64) {
        self.floor = (self.writes_ended && self.complete).then_some(clock_ns);
    }

    /// Whether a round that ends at this time, or begins at it, has a true tree to begin with.
    pub(super) fn is_founded(&self, until: u64) -> bool {
        self.floor.is_some_and(|floor| until >= floor)
    }

    /// The tree has things in it of which the records are still to come: before those of calls that began by this time are
    /// applied no round can be exact, and reading is for nothing.
    pub(super) fn ahead_of(&self) -> u64 {
        self.floor.unwrap_or(u64::MAX)
    }

    /// The round takes more in the next transaction.
    pub(super) fn go_on(&mut self, moment: Moment, until: u64) {
        self.phase = Phase::Applying(moment, until);
    }

    /// By when the calls began whose records the open round is still to take.
    pub(super) fn going_on(&mut self) -> Option<u64> {
        let Phase::Applying(_, until) = &self.phase else {
            return None;
        };
        let until = *until;
        self.phase = Phase::Idle;
        Some(until)
    }

    /// Nobody knows of what moment the tree is.
    pub(super) fn lose_floor(&mut self) {
        self.floor = None;
    }

    pub(super) fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// What was read before the newest moment. The parts of a read that has not ended by then are left.
    pub(super) fn take_found(&mut self) -> Vec<Found> {
        let late = self.parts.split_off(self.in_time.min(self.parts.len()));
        let found = gather(&mut self.parts);
        self.parts.extend(late);
        self.in_time = 0;
        self.read = self.parts.iter().filter(|part| part.ending.is_some()).count();
        found
    }

    /// What was read for the round that is open is not older than the writes of which it has records.
    pub(super) fn have_writes_ended(&self) -> bool {
        self.writes_ended
    }

    /// Sites wait for changes that are there.
    pub(super) fn is_held(&self) -> bool {
        self.held_since.is_some()
    }

    /// Last change that was marked, for the next start.
    pub(super) fn marked(&self) -> u64 {
        self.marked
    }

    pub(super) fn is_exact_at(&self, change: u64) -> bool {
        self.exact_at == Some(change)
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// What a transaction has left.
pub(super) struct After {
    /// Newest change, and the one of them that was marked.
    pub(super) head: u64,
    pub(super) marked: Option<u64>,
    /// Weight of the changes since the last mark in a commit.
    pub(super) unmarked: usize,
    /// Sites cannot be given what is marked.
    pub(super) cannot_follow: bool,
    /// All that clients did is in them.
    pub(super) quiet: bool,
}

/// Whether a round is to be made though no record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    None,
    /// Something waits for its time.
    Soon,
    Now,
}

/// Until nobody asks any more.
fn serve(sessions: &dyn Sessions, asked: &Receiver<Ask>, answer: &Sender<Answer>) {
    while let Ok(ask) = asked.recv() {
        let said = match ask {
            Ask::Moment(id) => Answer::Moment(id, sessions.moment(MOMENT)),
            Ask::Ended(id, moment) => Answer::Ended(id, sessions.ended(&moment, WRITE_ENDED_AFTER)),
        };
        if answer.send(said).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::NoSessions;
    use crate::catalog::reader::Ending;
    use restfs_lib::model::ObjectId;

    fn cuts() -> Cuts {
        let (mut cuts, _thread) = Cuts::start(Arc::new(NoSessions), 0, None, 512).unwrap();
        cuts.turn_on(0);
        cuts
    }

    fn read(id: u64) -> Part {
        Part {
            object: ObjectId(id),
            flight: id,
            slice: None,
            ending: Some(Ending::Away),
        }
    }

    #[test]
    fn what_is_read_after_a_moment_was_asked_for_does_not_count_for_it() {
        let mut cuts = cuts();
        let found = |cuts: &mut Cuts| -> Vec<u64> { cuts.take_found().iter().map(|f| f.object.0).collect() };
        cuts.take_part(read(1));
        assert!(cuts.next(Need::Now, true).is_none());
        cuts.take_part(read(2));
        assert_eq!(found(&mut cuts), [1]);
        assert!(found(&mut cuts).is_empty());
        cuts.phase = Phase::Idle;
        let answer = cuts.answers.recv();
        assert!(matches!(answer, Ok(Answer::Moment(..))));
        assert!(cuts.next(Need::Now, true).is_none());
        assert_eq!(found(&mut cuts), [2]);
    }

    /// As of a file that cannot be found yet, and is to be looked for later.
    #[test]
    fn a_round_in_which_nothing_can_be_read_is_not_made_again_at_once() {
        let mut cuts = cuts();
        cuts.last_round = Instant::now();
        cuts.phase = Phase::Reading(Instant::now());
        assert!(cuts.next(Need::Soon, true).is_none());
        assert!(cuts.is_reading(), "no moment is asked for");
        let rest = cuts.timeout(Need::Soon, true);
        assert!(rest > Duration::ZERO && rest <= TICK, "{rest:?}");
        cuts.last_round -= TICK;
        assert_eq!(cuts.timeout(Need::Soon, true), Duration::ZERO);
        assert!(cuts.timeout(Need::Soon, false) > TICK, "a reader is waited for");
        assert!(cuts.next(Need::Soon, true).is_none());
        assert!(!cuts.is_reading());
        assert!(matches!(cuts.answers.recv(), Ok(Answer::Moment(..))));

        cuts.last_round = Instant::now();
        cuts.phase = Phase::Reading(Instant::now());
        cuts.take_part(read(1));
        assert!(cuts.next(Need::Soon, true).is_none());
        assert!(!cuts.is_reading(), "what was read is taken in at once");
    }

    fn after(head: u64, marked: Option<u64>) -> After {
        After {
            head,
            marked,
            unmarked: 0,
            cannot_follow: false,
            quiet: false,
        }
    }

    #[test]
    fn sites_get_exact_states_only_until_there_was_none_for_too_long() {
        let mut cuts = cuts();
        cuts.settle(after(5, None));
        assert_eq!((cuts.shippable(5), cuts.exact_after()), (0, Some(0)));
        cuts.settle(after(7, Some(7)));
        assert_eq!((cuts.shippable(7), cuts.exact_after()), (7, Some(0)));
        assert!(!cuts.is_held());
        cuts.settle(after(9, None));
        cuts.held_since = cuts.held_since.map(|since| since - PATIENCE);
        cuts.settle(after(10, None));
        assert_eq!((cuts.shippable(10), cuts.exact_after()), (10, None));
        assert!(cuts.counts.rests() && cuts.counts.fuzzy == 1);
        cuts.settle(after(11, None));
        assert_eq!(cuts.shippable(11), 11, "the sessions were not told yet");
        cuts.turn_off();
        cuts.settle(after(12, None));
        assert_eq!((cuts.shippable(12), cuts.exact_after()), (12, None));
        assert!(cuts.counts.rests());
        cuts.settle(After {
            quiet: true,
            ..after(12, None)
        });
        assert!(!cuts.counts.rests(), "clients have paused");
        cuts.turn_on(12);
        assert_eq!(cuts.exact_after(), Some(12));
        cuts.settle(after(13, None));
        cuts.held_since = cuts.held_since.map(|since| since - PATIENCE);
        cuts.settle(after(14, None));
        assert_eq!(cuts.exact_after(), None);
        rest::end(&mut cuts.counts);
        cuts.settle(after(15, Some(15)));
        assert_eq!(cuts.exact_after(), Some(15), "the sessions were never told");
    }

    #[test]
    fn what_no_commit_could_take_is_not_waited_for() {
        let mut cuts = cuts();
        cuts.settle(after(CHANGES, None));
        assert!(!cuts.counts.rests());
        cuts.settle(after(CHANGES + 1, None));
        assert!(cuts.counts.rests() && cuts.exact_after().is_none());

        let mut cuts = self::cuts();
        let heavy = |unmarked| After {
            unmarked,
            ..after(1, None)
        };
        cuts.settle(heavy(WEIGHT));
        assert!(!cuts.counts.rests());
        cuts.settle(heavy(WEIGHT + 1));
        assert!(cuts.counts.rests() && cuts.exact_after().is_none());
    }

    #[test]
    fn exact_states_of_which_the_content_is_gone_are_not_waited_for() {
        let mut cuts = cuts();
        cuts.settle(after(3, Some(3)));
        assert!(!cuts.counts.rests());
        cuts.settle(After {
            cannot_follow: true,
            ..after(3, None)
        });
        assert!(cuts.counts.rests() && cuts.exact_after().is_none());
        assert_eq!(cuts.counts.fuzzy, 0, "sites had it before");
        assert!(cuts.counts.last_failure.is_some());
    }

    /// What the run before has left is held until the sessions had time to come back.
    #[test]
    fn after_a_start_sites_wait_for_longer() {
        let (mut cuts, _thread) = Cuts::start(Arc::new(NoSessions), 9, Some(4), 512).unwrap();
        assert_eq!((cuts.shippable(9), cuts.exact_after()), (4, Some(0)));
        cuts.held_since = cuts.held_since.map(|since| since - PATIENCE);
        cuts.settle(after(9, None));
        assert_eq!(cuts.shippable(9), 4);
        cuts.held_since = cuts.held_since.map(|since| since - PATIENCE_AT_START);
        cuts.settle(after(9, None));
        assert_eq!((cuts.shippable(9), cuts.exact_after()), (9, None));
        assert!(!cuts.counts.rests(), "no session tells data");
    }

    /// A tree that is ahead of its records is true of no moment before they are all applied.
    #[test]
    fn a_round_that_goes_on_does_so_at_once() {
        let mut cuts = cuts();
        assert_eq!(cuts.ahead_of(), u64::MAX, "nobody knows");
        cuts.go_on(Moment::default(), 7);
        assert_eq!(cuts.timeout(Need::None, true), Duration::ZERO);
        assert!(cuts.next(Need::None, true).is_some());
        assert!(!cuts.is_reading());
        assert_eq!(cuts.going_on(), Some(7));
        assert_eq!(cuts.going_on(), None);
        assert!(cuts.next(Need::None, true).is_none());
        cuts.go_on(Moment::default(), 7);
        cuts.reset(Vec::new());
        assert_eq!(cuts.going_on(), None, "the round is lost");
    }

    /// Of more than a round takes, what is missing of its moment cannot come before it has made room.
    #[test]
    fn a_round_of_a_full_queue_does_not_wait_for_what_cannot_come() {
        let mut cuts = cuts();
        let moment = |sequence| Moment {
            sequence,
            ..Moment::default()
        };
        let mut sequence = 0;
        while cuts.wants_records() {
            cuts.phase = Phase::Gathering(moment(1_000_000), Instant::now());
            assert!(cuts.next(Need::Now, true).is_none(), "more is on its way");
            sequence += 1;
            cuts.push(vec![queue::tests::record(sequence, sequence, 1 << 20)]);
        }
        let due = cuts.next(Need::Now, true).expect("goes on");
        assert!(due.unsure.is_some(), "it is not all");
    }
}
