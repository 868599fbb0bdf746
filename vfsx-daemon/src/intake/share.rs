//! What is taken in for one share: its sessions, and the way of their events into the journal.

use super::arrivals::Arrivals;
use super::capture::Capture;
use super::commits::Commits;
use super::flags;
use super::memory::Memory;
use super::pending_gap::{GapReserve, PendingGap};
use super::tend::Undecided;
use crate::journal::{AppendError, Body, Draft, GapReason, Journal, Session, SessionEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use vfsx_proto::ring::{Filled, Word};
use vfsx_proto::{Durability, Exclude, Waits};

/// A session that was open when its connection was lost for a reason on this side has this long to come back before
/// it counts as ended; one that has left a spool file, as long as that is there.
pub const COMES_BACK_WITHIN: Duration = Duration::from_secs(30);
/// Questions to a module that may wait to be sent; more means that it does not read.
const QUESTIONS_MAX: usize = 64;

/// Where modules leave files while vfsxd is away.
#[derive(Debug, Clone)]
pub struct Left {
    /// Flags: changes were lost.
    pub gaps: PathBuf,
    /// Flags: changes are in the memory of a process, and lost when it is killed.
    pub standing: PathBuf,
    /// Events that nobody has taken.
    pub spool: PathBuf,
}

/// One share's intake. All its journal appends go through here.
pub struct ShareIntake {
    pub(super) name: String,
    pub(super) journal: Journal,
    pub(super) left: Left,
    state: Mutex<State>,
    pub(super) token: AtomicU64,
    /// What the newest tree connect says of names that are not replicated.
    pub(super) exclude: watch::Sender<Exclude>,
    /// Newest record that a module waits for the commit of.
    pub(super) wanted: watch::Sender<u64>,
    /// Written data is asked for.
    pub(super) copy: watch::Sender<bool>,
    /// Counts the changes of that.
    pub(super) copy_changes: AtomicU64,
    /// One `tend` at a time, or a flag would be noted twice.
    pub(super) tending: Mutex<Undecided>,
    /// One spool file at a time: two connections of a session, and a tending, may want the same.
    pub(super) spooling: Mutex<()>,
    /// There is something to be tended now.
    pub(super) hurried: Notify,
}

pub(super) struct State {
    pub(super) connections: BTreeMap<Session, Connected>,
    /// Open in the journal, without a connection, until the time given.
    pub(super) awaited: BTreeMap<Session, Instant>,
    /// Memory of those that were connected to this vfsxd: it tells whether they had noted more than they had sent.
    pub(super) kept: BTreeMap<Session, Arc<Memory>>,
    /// Ended, but the journal could not take it.
    pub(super) ended: BTreeSet<Session>,
    pub(super) away: super::commits::Away,
    /// The journal has refused events: all are dropped, unacknowledged, until it takes a gap record. Then the modules
    /// are made to connect anew and send them again.
    pub(super) discarding: bool,
    pub(super) reserve: GapReserve,
    /// The last gap that went into the journal, with its record and the earliest time of those before it: the catalog
    /// knows of it only after applying that.
    noted: Option<(u64, PendingGap)>,
    /// A failure that lasts was told.
    pub(super) complained: bool,
    arrivals: Arrivals,
    /// Everything from records up to here is at a site, as far as anybody asked.
    pub(super) committed: u64,
    /// Of sessions that are forgotten.
    pub(super) waits_before: Waits,
    pub(super) capture: Capture,
}

/// A registered connection, as the share sees it.
pub(super) struct Connected {
    pub(super) id: u64,
    acknowledge: watch::Sender<u64>,
    pub(super) ask: mpsc::Sender<u64>,
    /// Barriers that wait for `Sent` with the token; dropping one answers it too.
    pub(super) barriers: Vec<(u64, oneshot::Sender<()>)>,
    pub(super) commits: Commits,
    pub(super) memory: Option<Arc<Memory>>,
    /// What its outbox has held since when.
    pub(super) held: Option<(Filled, Instant)>,
}

impl Connected {
    /// The memory of a session that tells written data.
    pub(super) fn ring(&self) -> Option<Arc<Memory>> {
        self.memory.clone().filter(|memory| memory.has_ring())
    }
}

/// A registered connection, as its task sees it. It ends when `ask` is closed: another connection of the session has
/// taken its place, or the journal makes everyone connect anew.
pub(super) struct Registration {
    pub(super) acknowledged: watch::Receiver<u64>,
    pub(super) ask: mpsc::Receiver<u64>,
    pub(super) committed: watch::Receiver<u64>,
    /// Whether written data is wanted, for a session that has a ring.
    pub(super) copy: Option<watch::Receiver<bool>>,
}

impl Registration {
    /// Of a connection whose session has another one.
    fn ended(copy: Option<watch::Receiver<bool>>) -> Self {
        Self {
            acknowledged: watch::channel(0).1,
            ask: mpsc::channel(1).1,
            committed: watch::channel(0).1,
            copy,
        }
    }
}

/// What a connection says of its session.
pub(super) struct Arrival {
    pub(super) durability: Durability,
    pub(super) started: Body,
    pub(super) memory: Option<Arc<Memory>>,
}

/// The connection is not the session's any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Superseded;

/// Sessions of which there may be changes that are not in the journal. `None`: those whose names are none.
pub(super) type Unheard = BTreeSet<Option<Session>>;

impl ShareIntake {
    /// `directory` is the share's state directory; `left` the directories of what modules leave there for all shares.
    /// `data`: written data is taken from sessions that tell it.
    pub fn new(
        name: &str,
        journal: Journal,
        directory: &Path,
        left: Left,
        data: bool,
    ) -> io::Result<Arc<Self>> {
        let reserve = GapReserve::open(&directory.join("gap"))?;
        let back_by = Instant::now() + COMES_BACK_WITHIN;
        let awaited: BTreeMap<_, _> = journal
            .open_sessions()
            .into_iter()
            .map(|s| (s, back_by))
            .collect();
        Ok(Arc::new(Self {
            name: name.to_owned(),
            left,
            token: AtomicU64::new(0),
            exclude: watch::channel(Exclude::default()).0,
            wanted: watch::channel(0).0,
            copy: watch::channel(false).0,
            copy_changes: AtomicU64::new(0),
            tending: Mutex::default(),
            spooling: Mutex::default(),
            hurried: Notify::new(),
            state: Mutex::new(State {
                connections: BTreeMap::new(),
                awaited,
                kept: BTreeMap::new(),
                ended: BTreeSet::new(),
                away: Default::default(),
                discarding: false,
                reserve,
                noted: None,
                complained: false,
                arrivals: Arrivals::default(),
                committed: 0,
                waits_before: Waits::default(),
                capture: Capture::new(data),
            }),
            journal,
        }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Connected sessions, and those expected back.
    pub fn sessions(&self) -> (usize, usize) {
        let state = self.lock();
        (state.connections.len(), state.awaited.len())
    }

    /// A gap that who has applied the records up to `applied` does not know of: in the journal after that, or not in the
    /// journal yet.
    pub fn gap_after(&self, applied: u64) -> Option<PendingGap> {
        let mut state = self.lock();
        state.noted = state.noted.filter(|(sequence, _)| *sequence > applied);
        let noted = state.noted.map(|(_, gap)| gap);
        state
            .reserve
            .pending()
            .into_iter()
            .chain(noted)
            .min_by_key(|gap| gap.since_ns)
    }

    /// When the oldest record after `applied` was noted, or somewhat earlier.
    pub fn oldest_after(&self, applied: u64) -> Option<i64> {
        if self.journal.status().head <= applied {
            return None;
        }
        self.lock().arrivals.time_of(applied + 1)
    }

    /// Tells when the records from `sequence` on were noted, for those that were there before this start.
    pub fn note_backlog(&self, sequence: u64, time_ns: i64) {
        self.lock().arrivals.note(sequence, time_ns);
    }

    /// Names that are not replicated, as the newest tree connect says; changes when another one says so.
    pub fn exclude(&self) -> watch::Receiver<Exclude> {
        self.exclude.subscribe()
    }

    /// A tree connect says which names are not replicated.
    pub(super) fn note_exclude(&self, exclude: Exclude) {
        self.exclude.send_if_modified(|newest| {
            // A clock that was set back would make the newest an old one; the catalog knows, too.
            let newer = exclude.read_ns >= newest.read_ns || newest.read_ns > now_ns();
            if newer {
                *newest = exclude;
            }
            newer
        });
    }

    /// Notes that changes may have been missed. Kept on disk at once, in the journal as soon as it can take it.
    pub fn raise_gap(&self, since_ns: i64, reason: GapReason) {
        self.raise(&mut self.lock(), PendingGap { since_ns, reason });
    }

    /// A connection says which session it is. An older connection of the session is closed; so is this one, when it was the older, and it took
    /// longer to take in what the session had spooled.
    pub(super) fn register(&self, session: Session, id: u64, arrival: Arrival) -> Registration {
        let Arrival {
            durability,
            started,
            memory,
        } = arrival;
        let with_ring = memory.as_ref().is_some_and(|memory| memory.has_ring());
        let copy = with_ring.then(|| self.told_copy());
        let mut state = self.lock();
        if state.connections.get(&session).is_some_and(|newer| newer.id > id) {
            return Registration::ended(copy);
        }
        state.awaited.remove(&session);
        state.kept.remove(&session);
        state.ended.remove(&session);
        let (acknowledge, acknowledged) = watch::channel(self.journal.acknowledged(session));
        let (ask, asked) = mpsc::channel(QUESTIONS_MAX);
        let (commits, committed) = state.commits_of(session, durability);
        state.connections.insert(
            session,
            Connected {
                id,
                acknowledge,
                ask,
                barriers: Vec::new(),
                commits,
                memory,
                held: None,
            },
        );
        self.arrived(&mut state, with_ring);
        let draft = Draft::note(session, now_ns(), started);
        self.append(&mut state, vec![draft]);
        Registration {
            acknowledged,
            ask: asked,
            committed,
            copy,
        }
    }

    /// There is no place for a session. It keeps what it notes, and comes back all the time: nothing is whole without it, and it
    /// has not ended.
    pub(super) fn turned_away(&self, session: Session) {
        let mut state = self.lock();
        if !state.connections.contains_key(&session) {
            state.awaited.insert(session, Instant::now() + COMES_BACK_WITHIN);
            self.decide(&mut state);
        }
    }

    /// Events of a session, in order.
    pub(super) fn take(&self, session: Session, id: u64, drafts: Vec<Draft>) -> Result<(), Superseded> {
        let mut state = self.lock();
        if !state.is_current(session, id) {
            return Err(Superseded);
        }
        self.append(&mut state, drafts);
        let waits = |connected: &Connected| connected.commits.waits_for_disk();
        if state.connections.get(&session).is_some_and(waits) {
            self.journal.hurry();
        }
        // What was on disk before this connection is not synced again, so it is acknowledged here.
        state.acknowledge(session, self.journal.acknowledged(session));
        Ok(())
    }

    /// The module has sent all that it had noted before it was asked with this token.
    pub(super) fn sent(&self, session: Session, id: u64, token: u64) {
        let mut state = self.lock();
        if !state.is_current(session, id) {
            return;
        }
        if let Some(connected) = state.connections.get_mut(&session)
            && let Some(at) = connected.barriers.iter().position(|(t, _)| *t == token)
        {
            // The barrier may have given up.
            let _ = connected.barriers.swap_remove(at).1.send(());
        }
    }

    /// The connection is closed by the module: its process has ended, or it will connect again as the same session.
    pub(super) fn closed(&self, session: Session, id: u64) {
        let mut state = self.lock();
        if !state.is_current(session, id) {
            return;
        }
        let connected = state.connections.remove(&session);
        if let Some(connected) = &connected {
            state.keep_waits(&connected.commits);
        }
        self.decide(&mut state);
        let memory = connected.and_then(|connected| connected.memory);
        let was_killed = memory
            .as_ref()
            .is_some_and(|memory| self.was_killed(session, memory));
        if was_killed {
            self.note_kill(&mut state, "in the middle of a change");
        }
        if !was_killed && self.has_left(&self.left.spool, session) {
            // It is over when that is taken in: until then its files count as open, and nobody calls the share settled.
            state.kept.extend(memory.map(|memory| (session, memory)));
            state.awaited.insert(session, Instant::now() + COMES_BACK_WITHIN);
            self.hurried.notify_one();
            return;
        }
        self.end_session(&mut state, session, SessionEnd::Closed);
        if !state.ended.contains(&session) {
            let acknowledged = self.journal.acknowledged(session);
            flags::drop_word(&self.left.standing, &self.name, session, acknowledged);
        }
    }

    /// The connection has ended for a reason on this side: the session goes on, and will be back.
    pub(super) fn lost(&self, session: Session, id: u64) {
        let mut state = self.lock();
        if state.is_current(session, id) {
            if let Some(connected) = state.connections.remove(&session) {
                state.keep(session, &connected);
            }
            state.awaited.insert(session, Instant::now() + COMES_BACK_WITHIN);
            self.decide(&mut state);
        }
    }

    /// A session that ends by itself is within no call then, and what it has noted is in the journal, or left in a file.
    pub(super) fn was_killed(&self, session: Session, memory: &Memory) -> bool {
        let untold = memory.word(Word::Noted) > Some(self.journal.written(session));
        memory.is_in_call() || untold && !self.has_left_file(session)
    }

    /// Then that file tells what has become of the rest: a standing flag, too, is looked at once its process has ended.
    fn has_left_file(&self, session: Session) -> bool {
        let standing = flags::standing(&self.left.standing, &self.name).unwrap_or_default();
        self.has_left(&self.left.spool, session)
            || self.has_left(&self.left.gaps, session)
            || standing.iter().any(|path| flags::session(path) == Some(session))
    }

    pub(super) fn has_left(&self, directory: &Path, session: Session) -> bool {
        flags::file_of(directory, &self.name, session).is_ok_and(|file| file.is_some())
    }

    /// Sessions that may have changed something that is not told by a connection: those with a flag, or a file.
    pub(super) fn left_behind(&self) -> io::Result<Unheard> {
        // Flags first: what they tell of is in a file before they are lowered.
        let mut found = self.flagged()?;
        found.append(&mut self.filed()?);
        Ok(found)
    }

    /// Sessions whose standing flags say more than the journal has. One that could not connect raises it before it changes anything, and
    /// lowers it when all it did is in the journal, or in a file that is to be taken in; one that is connected has one when it was not
    /// acknowledged for long.
    pub(super) fn flagged(&self) -> io::Result<Unheard> {
        let mut found = Unheard::new();
        for path in flags::standing(&self.left.standing, &self.name)? {
            if !self.is_told(&path)? {
                found.insert(flags::session(&path));
            }
        }
        Ok(found)
    }

    /// Sessions that have left a spool file, or a gap flag.
    pub(super) fn filed(&self) -> io::Result<Unheard> {
        let spooled = flags::sessions(&self.left.spool, &self.name)?;
        let lost = flags::sessions(&self.left.gaps, &self.name)?;
        Ok(spooled.into_iter().chain(lost).collect())
    }

    /// The flag says no more than the journal has.
    fn is_told(&self, standing: &Path) -> io::Result<bool> {
        match flags::parse(standing.to_owned()) {
            Ok(flag) => Ok(flag
                .unless
                .is_some_and(|(session, last)| self.journal.acknowledged(session) >= last)),
            // It was lowered.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// No session is connected or expected, and none is known to hold changes that nobody has.
    pub fn is_quiet(&self) -> bool {
        self.sessions() == (0, 0)
            && flags::standing(&self.left.standing, &self.name).is_ok_and(|flags| flags.is_empty())
    }

    /// A process was killed: what it had done last, nobody has noted.
    pub(super) fn note_kill(&self, state: &mut State, when: &str) {
        tracing::warn!(
            share = self.name,
            "an smbd process was killed {when}; the share will be compared"
        );
        let (since_ns, reason) = (now_ns(), GapReason::Killed);
        let draft = Draft::note(Session::DAEMON, since_ns, Body::Gap { since_ns, reason });
        if !self.append(state, vec![draft]) {
            self.raise(state, PendingGap { since_ns, reason });
        }
    }

    /// Passes on what the journal has synced; runs until the journal is gone.
    pub(super) async fn acknowledge_synced(self: Arc<Self>) {
        let mut synced = self.journal.synced();
        loop {
            {
                let state = self.lock();
                for (session, sequence) in self.journal.take_acknowledgements() {
                    state.acknowledge(session, sequence);
                }
            }
            if synced.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn end_session(&self, state: &mut State, session: Session, how: SessionEnd) {
        let draft = Draft::note(session, now_ns(), Body::SessionEnded { how });
        if !self.append(state, vec![draft]) {
            state.ended.insert(session);
        }
    }

    /// False when the journal did not take them; then a gap is pending.
    pub(super) fn append(&self, state: &mut State, drafts: Vec<Draft>) -> bool {
        let Some(oldest) = drafts.iter().map(|d| d.time_ns).min() else {
            return true;
        };
        if state.discarding {
            return false;
        }
        let told = drafts.iter().filter_map(gap_of).min_by_key(|gap| gap.since_ns);
        match self.journal.append(drafts) {
            Ok(appended) => {
                if let Some(gap) = told {
                    state.note_gap(appended.last, gap);
                }
                if appended.hole {
                    state.note_gap(
                        appended.last,
                        PendingGap {
                            since_ns: oldest,
                            reason: GapReason::SessionHole,
                        },
                    );
                    tracing::error!(
                        share = self.name,
                        "events of a session are missing; a gap is noted"
                    );
                }
                state.arrivals.note(appended.last, oldest);
                true
            }
            Err(AppendError::Unrepresentable(why)) => {
                tracing::error!(share = self.name, why, "events cannot be put into the journal");
                self.raise(
                    state,
                    PendingGap {
                        since_ns: oldest,
                        reason: GapReason::Unrepresentable,
                    },
                );
                true
            }
            Err(error) => {
                tracing::error!(share = self.name, %error, "events are not taken until the journal works again");
                state.discarding = true;
                self.raise(
                    state,
                    PendingGap {
                        since_ns: oldest,
                        reason: GapReason::JournalFailed,
                    },
                );
                false
            }
        }
    }

    pub(super) fn raise(&self, state: &mut State, gap: PendingGap) {
        if let Err(error) = state.reserve.raise(gap) {
            tracing::error!(share = self.name, %error, "a gap is known in memory only");
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gap_of(draft: &Draft) -> Option<PendingGap> {
    match draft.body {
        Body::Gap { since_ns, reason } => Some(PendingGap { since_ns, reason }),
        _ => None,
    }
}

impl State {
    /// Its connection is gone, and it may come back.
    pub(super) fn keep(&mut self, session: Session, connected: &Connected) {
        self.keep_waits(&connected.commits);
        if let Some(memory) = &connected.memory {
            self.kept.insert(session, Arc::clone(memory));
        }
    }

    /// A gap is in the journal, in the record named or before it.
    pub(super) fn note_gap(&mut self, sequence: u64, gap: PendingGap) {
        let earlier = self.noted.map(|(_, gap)| gap);
        let earliest = earlier.into_iter().chain([gap]).min_by_key(|gap| gap.since_ns);
        self.noted = Some((sequence, earliest.unwrap_or(gap)));
    }

    pub(super) fn is_current(&self, session: Session, id: u64) -> bool {
        self.connections.get(&session).is_some_and(|c| c.id == id)
    }

    fn acknowledge(&self, session: Session, sequence: u64) {
        if let Some(connected) = self.connections.get(&session) {
            connected.acknowledge.send_if_modified(|sent| {
                let more = sequence > *sent;
                *sent = sequence.max(*sent);
                more
            });
        }
    }
}

/// Wall clock, nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
