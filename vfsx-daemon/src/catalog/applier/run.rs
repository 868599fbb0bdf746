//! The applier's loop.

use super::cut::{After, Cuts, Filled};
use super::memory::Memory;
use super::unread::Class;
use super::work::{Rules, Work};
use super::{Batch, BlockAnswer, Request, Waiting};
use crate::catalog::CatalogError;
use crate::catalog::dirt::Unread;
use crate::catalog::moments::Moment;
use crate::catalog::reader::{Job, Part};
use crate::catalog::shared::Shared;
use crate::catalog::status::{ClosedGap, Gap, ScanProgress, ScanState, Status};
use crate::catalog::store::{CutRow, DirtRow, Key, ScanPhase, get, put};
use crate::journal::Record;
use crate::pace::Pace;
use crate::trouble::Trouble;
use crossbeam_channel::{Receiver, Sender, TryRecvError, never, select};
use dr_replicator::Cursor;
use restfs_lib::kv::{KvRead, KvWrite};
use restfs_lib::tree::Tree;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Objects that wait to be read before records wait, in the journal, for them: each takes memory. Records are taken all
/// the same when nothing is being read, since what keeps everything from being read may be what they say.
const UNREAD: usize = 100_000;
/// Parts and requests taken into one transaction.
const PARTS: usize = 256;
const REQUESTS: usize = 64;
/// While something waits for its time (a name to be looked at again, an object to be dropped): how often it is asked.
const TICK: Duration = Duration::from_millis(200);
/// Longest wait when nothing does: cursors are written by then.
const IDLE: Duration = Duration::from_secs(1);
/// Time between transactions, in the long run, while little is to be done and nobody waits: what comes meanwhile goes into one.
/// Each is a sync of the disk, one here and some at each site.
const REST: Duration = Duration::from_millis(20);
/// Transactions that may come without a rest: those of a change now and then.
const AT_ONCE: u32 = 4;
/// Objects to be read, from which on that is no rest but a delay.
const LITTLE: usize = 64;
/// After a transaction that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

const CLASSES: [Class; 2] = [Class::Client, Class::Scan];

pub(in crate::catalog) struct Channels {
    pub(in crate::catalog) records: Receiver<Batch>,
    pub(in crate::catalog) parts: Receiver<Part>,
    pub(in crate::catalog) requests: Receiver<Request>,
    /// By class. Bounded; never more reads of a class are under way than it holds.
    pub(in crate::catalog) jobs: [Sender<Job>; 2],
    /// Of one place: the scanner looks for itself what there is.
    pub(in crate::catalog) scanner: Sender<()>,
}

pub(in crate::catalog) struct Applier {
    pub(super) shared: Arc<Shared>,
    pub(super) rules: Rules,
    sites: Vec<String>,
    channels: Channels,
    pub(super) memory: Memory,
    /// `None`: there are never rounds.
    pub(super) cuts: Option<Cuts>,
    /// As it is in the store.
    pub(super) cut_row: Option<CutRow>,
    /// What rounds had at hand when they ended: it comes before what the journal gives.
    pub(super) left: VecDeque<Record>,
    /// The last round was not exact.
    pub(super) failed: bool,
    /// Highest sequence that the journal gave.
    pub(super) received: u64,
    /// It left some out; when the next one was noted.
    pub(super) hole: Option<i64>,
    /// All records there were are applied.
    pub(super) caught_up: bool,
    stopping: bool,
    pub(super) more_to_trim: bool,
    pace: Pace,
    last_transaction: Instant,
    /// Of the tree, with the change it was counted at.
    objects: u64,
}

/// What goes into a transaction.
#[derive(Default)]
pub(super) struct Input {
    pub(super) records: Option<Batch>,
    pub(super) parts: Vec<Part>,
    requests: Vec<Request>,
    /// The records of a round are there up to this moment.
    pub(super) round: Option<Moment>,
}

impl Applier {
    pub(in crate::catalog) fn new(
        shared: Arc<Shared>,
        rules: Rules,
        sites: Vec<String>,
        channels: Channels,
        cuts: Option<Cuts>,
    ) -> Result<Self, CatalogError> {
        let kv = shared.kv.read()?;
        let (memory, cut_row) = (Memory::load(&*kv)?, get(&*kv, &Key::meta("cut"))?);
        drop(kv);
        Ok(Self {
            received: memory.head.applied,
            shared,
            rules,
            sites,
            channels,
            memory,
            cuts,
            cut_row,
            left: VecDeque::new(),
            failed: false,
            hole: None,
            last_transaction: Instant::now(),
            caught_up: false,
            stopping: false,
            more_to_trim: false,
            pace: Pace::new(REST, AT_ONCE),
            objects: 0,
        })
    }

    /// Runs until it is told to stop.
    pub(in crate::catalog) fn run(&mut self) {
        // What a stop left behind: files to read, directories to list.
        let mut input = Input::default();
        loop {
            self.follow_sessions(&mut input);
            if self.has_reason(&input) {
                self.transact(&mut input);
            }
            self.dispatch();
            if self.stopping {
                return;
            }
            input = self.wait();
        }
    }

    /// Takes what there is; waits when there is nothing.
    fn wait(&mut self) -> Input {
        let mut input = Input::default();
        if self.may_rest() {
            let rest = self.pace.next().saturating_duration_since(Instant::now());
            input.requests.extend(self.channels.requests.recv_timeout(rest));
        }
        let records = match self.is_behind() || !self.left.is_empty() {
            true => never(),
            false => self.channels.records.clone(),
        };
        if !self.is_behind() {
            input.records = self.take_left();
        }
        let timeout = match input.requests.is_empty() && input.records.is_none() {
            true => self.timeout(),
            false => Duration::ZERO,
        };
        let answers = self.cuts.as_ref().map_or_else(never, |cuts| cuts.answers.clone());
        select! {
            recv(answers) -> answer => if let (Ok(answer), Some(cuts)) = (answer, &mut self.cuts) {
                cuts.take_answer(answer);
            },
            recv(records) -> batch => input.records = batch.ok(),
            recv(self.channels.parts) -> part => input.parts.extend(part),
            recv(self.channels.requests) -> request => input.requests.push(request.unwrap_or(Request::Stop)),
            default(timeout) => {}
        }
        if input.records.is_none() {
            input.records = records.try_recv().ok();
        }
        while input.parts.len() < PARTS {
            let Ok(part) = self.channels.parts.try_recv() else {
                break;
            };
            input.parts.push(part);
        }
        while input.requests.len() < REQUESTS {
            match self.channels.requests.try_recv() {
                Ok(request) => input.requests.push(request),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    input.requests.push(Request::Stop);
                    break;
                }
            }
        }
        self.hand_over(&mut input);
        input
    }

    fn take_left(&mut self) -> Option<Batch> {
        let count = self.left.len().min(self.rules.at_once);
        let records: Vec<Record> = self.left.drain(..count).collect();
        let more = !self.left.is_empty();
        (count > 0).then_some(Batch { records, more })
    }

    /// Rounds have a pace of their own.
    fn may_rest(&self) -> bool {
        !self.in_rounds()
            && self.caught_up
            && self.memory.dirty.len() <= LITTLE
            && self.memory.covered() >= self.shared.hurry_to()
    }

    /// In rounds most of what comes is for a later transaction.
    fn has_reason(&self, input: &Input) -> bool {
        !self.in_rounds()
            || input.round.is_some()
            || !input.requests.is_empty()
            || self.last_transaction.elapsed() >= IDLE
    }

    fn timeout(&self) -> Duration {
        self.own_timeout().min(self.round_timeout())
    }

    fn own_timeout(&self) -> Duration {
        let memory = &self.memory;
        let waiting = !memory.looks.is_empty()
            || !memory.suspects.is_empty()
            || !memory.lost.is_empty()
            || memory.displaced > 0
            || memory.scan_due.is_some()
            || memory.scan.phase != ScanPhase::Done
            || self.more_to_trim;
        let longest = match waiting {
            _ if memory.more_to_drop && !self.in_rounds() => Duration::ZERO,
            true => TICK,
            false => IDLE,
        };
        let due = CLASSES.into_iter().filter(|class| self.has_room(*class));
        match due.filter_map(|class| memory.dirty.next_due(class)).min() {
            Some(due) => due.saturating_duration_since(Instant::now()).min(longest),
            None => longest,
        }
    }

    fn has_room(&self, class: Class) -> bool {
        let jobs = &self.channels.jobs[class as usize];
        // What is read for a round stays in flight until it ends, and keeps nobody from reading the rest.
        let read = self.cuts.as_ref().map_or(0, Cuts::read);
        let reading = self.memory.dirty.in_flight(class).saturating_sub(read);
        reading < jobs.capacity().unwrap_or(1) && !jobs.is_full()
    }

    fn is_behind(&self) -> bool {
        if let Some(cuts) = self.cuts.as_ref().filter(|cuts| cuts.is_on()) {
            return !cuts.wants_records();
        }
        let dirty = &self.memory.dirty;
        dirty.len() > UNREAD && CLASSES.into_iter().any(|class| dirty.in_flight(class) > 0)
    }

    /// One transaction, tried until it succeeds or the end has come: records are never left out.
    fn transact(&mut self, input: &mut Input) {
        if let Some(batch) = &input.records {
            self.caught_up = !batch.more && self.channels.records.is_empty();
        }
        loop {
            let mut waiting = Vec::new();
            let mut taken = Vec::new();
            self.last_transaction = Instant::now();
            let result = self.try_once(input, &mut waiting, &mut taken);
            if result.is_ok() {
                // Before the answers: who has one may look at the status next.
                self.publish(None);
            }
            for reply in waiting {
                reply.answer(&result);
            }
            self.pace.done();
            let Err(e) = result else { return };
            tracing::error!("catalog: {e}; trying again");
            // Files are read again, who asked was answered; records have to be taken in.
            input.parts.clear();
            input.requests.clear();
            self.shared.now().cursors_changed = true;
            // What is in memory never happened: nothing of it may be told to anybody.
            self.reload();
            if let Some(cuts) = &mut self.cuts {
                cuts.reset(taken);
            }
            self.publish(Some(e.trouble()));
            if self.stopping || self.pause() {
                self.stopping = true;
                return;
            }
        }
    }

    /// Waits after a failure. Whether the end has come.
    fn pause(&self) -> bool {
        let until = Instant::now() + AFTER_FAILURE;
        while Instant::now() < until {
            if self.shared.stopping() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// What is in memory may be ahead of the store after a failure.
    fn reload(&mut self) {
        match self
            .shared
            .kv
            .read()
            .map_err(CatalogError::from)
            .and_then(|kv| Memory::load(&*kv))
        {
            Ok(mut memory) => {
                self.cut_row = None;
                memory.dirty.continue_from(&self.memory.dirty);
                (memory.errors, memory.last_error) = (self.memory.errors, self.memory.last_error.take());
                self.memory = memory;
            }
            Err(e) => tracing::error!("catalog cannot be read: {e}"),
        }
    }

    fn try_once(
        &mut self,
        input: &mut Input,
        waiting: &mut Vec<Waiting>,
        taken: &mut Vec<Record>,
    ) -> Result<(), CatalogError> {
        let shared = Arc::clone(&self.shared);
        let mut kv = shared.kv.write()?;
        let before = self.memory.head;
        let in_rounds = self.in_rounds();
        self.fill(&mut *kv, input, waiting)?;
        let filled = match input.round.take() {
            Some(moment) => self.fill_round(&mut *kv, moment, taken)?,
            None => Filled::default(),
        };
        self.put_cut(&mut *kv, filled.marked)?;
        if self.memory.head != before {
            put(&mut *kv, &Key::meta("head"), &self.memory.head)?;
        }
        let totals = Tree::head(&*kv, super::BUCKET).totals()?;
        kv.commit()?;
        self.objects = totals.objects;
        self.hole = None;
        input.records = None;
        if in_rounds {
            self.shared.keep(&filled.named);
        }
        let after = After {
            head: self.memory.head.change,
            marked: filled.marked,
            unmarked: self.memory.unmarked,
            cannot_follow: std::mem::take(&mut self.shared.now().cannot_follow),
            quiet: self.is_quiet(),
        };
        if let Some(cuts) = &mut self.cuts {
            cuts.settle(after);
        }
        Ok(())
    }

    fn fill(
        &mut self,
        kv: &mut dyn KvWrite,
        input: &mut Input,
        waiting: &mut Vec<Waiting>,
    ) -> Result<(), CatalogError> {
        // Behind the requests, so that the cursors they speak of are among them.
        let cursors = self.take_cursors();
        let in_rounds = self.in_rounds();
        let mut work = Work::new(
            kv,
            &mut self.memory,
            &self.shared.share,
            &self.shared.cache,
            self.rules,
            now_ns(),
        );
        let records = input.records.as_ref().map_or(&[][..], |batch| &batch.records);
        let first = records.first().map(|r| (r.sequence, r.time_ns));
        for record in records {
            work.take_record(record)?;
        }
        work.settle_cause(first);
        for part in input.parts.drain(..) {
            work.take_part(part)?;
        }
        work.settle_cause(first);
        for request in input.requests.drain(..) {
            match request {
                Request::Stop => self.stopping = true,
                Request::Cursors(reply) => waiting.push(Waiting::Done(reply)),
                Request::Page(page, reply) => {
                    let done = work.take_page(page);
                    waiting.push(Waiting::Done(reply));
                    done?;
                }
                Request::Scan(reply) => {
                    let number = work.request_scan()?;
                    waiting.push(Waiting::Scan(reply, number));
                }
                Request::Block {
                    object,
                    index,
                    before,
                    found,
                    reply,
                } => {
                    let answer = work.take_block(object, index, before, found)?;
                    if matches!(answer, BlockAnswer::Taken) {
                        work.doubt_round();
                        self.cuts.iter_mut().for_each(Cuts::taint);
                    }
                    waiting.push(Waiting::Block(reply, answer));
                }
                Request::Away(object) => work.suspect(object)?,
                // Done at the end.
                Request::Hurry => {}
                Request::Exclude(row, reply) => {
                    let done = work.set_exclude(row);
                    waiting.push(Waiting::Done(reply));
                    done?;
                }
            }
        }
        if !in_rounds {
            work.resume_looks();
        }
        work.look_and_refresh()?;
        if self.caught_up && !in_rounds {
            work.drop_displaced()?;
            work.give_up_lost()?;
            work.give_up_looks()?;
        }
        work.step_scan()?;
        work.look_and_refresh()?;
        work.hurry(self.shared.hurry_to());
        let named = work.save()?;
        if in_rounds {
            self.shared.keep(&named);
        }
        if cursors.changed {
            work.put_cursors(&cursors.cursors)?;
        }
        self.more_to_trim = work.trim(&self.sites, &cursors.cursors)?;
        Ok(())
    }

    fn take_cursors(&self) -> Cursors {
        let mut now = self.shared.now();
        let changed = std::mem::take(&mut now.cursors_changed);
        Cursors {
            cursors: now.cursors.clone(),
            changed,
        }
    }

    /// Gives what is due to the readers, and wakes the scanner when there is something to list.
    fn dispatch(&mut self) {
        if self.stopping {
            return;
        }
        let may_read = self.may_read();
        if self.memory.lists > 0 {
            // Full means that it was woken already.
            let _ = self.channels.scanner.try_send(());
        }
        for class in CLASSES.into_iter().filter(|_| may_read) {
            if let Err(e) = self.send_jobs(class) {
                self.memory.note_error(format!("catalog cannot be read: {e}"));
            }
        }
    }

    fn send_jobs(&mut self, class: Class) -> Result<(), CatalogError> {
        let now = Instant::now();
        if self.memory.dirty.next_due(class).is_none_or(|due| due > now) {
            return Ok(());
        }
        let kv = self.shared.kv.read()?;
        while self.has_room(class) {
            let Some((object, flight)) = self.memory.dirty.begin(class, now) else {
                return Ok(());
            };
            let Some(row) = get::<DirtRow>(&*kv, &Key::Dirt(object))? else {
                self.memory.dirty.fail(object, now);
                continue;
            };
            let job = Job {
                object,
                flight,
                // A round is one moment's content by other means.
                rest: (!self.in_rounds() && self.memory.dirty.rests(object)).then_some(row.last_ns),
                dirt: Unread::from(row).dirt,
            };
            if self.channels.jobs[class as usize].try_send(job).is_err() {
                self.memory.dirty.fail(object, now);
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        let memory = &self.memory;
        // Of a file that is open for writing the module may hold back ranges.
        memory.covered() == memory.head.applied && memory.intents == 0
    }

    fn publish(&self, failed: Option<Trouble>) {
        let memory = &self.memory;
        let exact = self.is_quiet() && !self.in_rounds();
        let mut status = status(memory, self.objects, failed);
        status.cuts = self
            .cuts
            .as_ref()
            .map(|cuts| cuts.counts().clone())
            .unwrap_or_default();
        let exact_after = self.cuts.as_ref().and_then(Cuts::exact_after);
        self.shared.publish(status, exact, self.shippable(), exact_after);
    }
}

/// What a catalog that is not running yet says of itself.
pub(in crate::catalog) fn stored_status(kv: &dyn KvRead) -> Result<Status, CatalogError> {
    let objects = Tree::head(kv, super::BUCKET).totals()?.objects;
    Ok(status(&Memory::load(kv)?, objects, None))
}

struct Cursors {
    cursors: BTreeMap<String, Cursor>,
    changed: bool,
}

/// Numbers for `vfsxctl status`.
fn status(memory: &Memory, objects: u64, failed: Option<Trouble>) -> Status {
    let scan = &memory.scan;
    let done = scan.phase == ScanPhase::Done;
    Status {
        applied: memory.head.applied,
        covered: memory.covered(),
        head: memory.head.change,
        objects,
        dirty_objects: memory.dirty.len() as u64,
        dirty_bytes: memory.dirty.bytes(),
        oldest_dirty_ns: memory.dirty.oldest_ns(),
        open_handles: memory.intents,
        pending_looks: (memory.looks.len() + memory.lost.len()) as u64 + memory.lists,
        displaced: memory.displaced,
        gap: memory.gap.as_ref().map(|gap| Gap {
            since_ns: gap.since_ns,
            reason: gap.reason.clone(),
        }),
        last_gap: memory.last_gap.as_ref().map(|gap| ClosedGap {
            since_ns: gap.since_ns,
            until_ns: gap.until_ns,
            reason: gap.reason.clone(),
        }),
        scan: ScanProgress {
            state: match scan.phase {
                ScanPhase::Done => ScanState::Done,
                ScanPhase::Needed => ScanState::Needed,
                ScanPhase::Walking | ScanPhase::Reading => ScanState::Running,
            },
            finished: scan.finished(),
            started_ns: scan.started_ns,
            directories: scan.directories,
            files: scan.files,
            bytes: scan.bytes,
            differences: scan.differences,
            unread_bytes: if done { 0 } else { memory.dirty.bytes() },
        },
        bytes_read: 0,
        kept_bytes: 0,
        kept_dropped: 0,
        cuts: Default::default(),
        read_errors: memory.errors,
        last_error: memory.last_error.clone(),
        failed,
        kept_trouble: None,
    }
}

pub(in crate::catalog) fn now_ns() -> i64 {
    jiff::Timestamp::now()
        .as_nanosecond()
        .try_into()
        .unwrap_or(i64::MAX)
}
