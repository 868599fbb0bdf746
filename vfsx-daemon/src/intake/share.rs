//! What is taken in for one share: its sessions, and the way of their events into the journal.

use super::arrivals::Arrivals;
use super::flags;
use super::pending_gap::{GapReserve, PendingGap};
use crate::journal::{self, AppendError, Body, Draft, GapReason, Journal, Session, SessionEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use vfsx_proto::Stamped;

/// A session that was open when its connection was lost for a reason on this side has this long to come back before
/// it counts as ended.
pub const COMES_BACK_WITHIN: Duration = Duration::from_secs(30);
/// Questions to a module that may wait to be sent; more means that it does not read.
const QUESTIONS_MAX: usize = 64;
/// A disk that has not synced one record in this time is as good as failed.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);

/// One share's intake. All its journal appends go through here.
pub struct ShareIntake {
    name: String,
    journal: Journal,
    gaps: PathBuf,
    state: Mutex<State>,
    /// Sessions that are expected back.
    awaited: watch::Sender<usize>,
    token: AtomicU64,
    /// One `tend` at a time, or a flag would be noted twice.
    tending: Mutex<()>,
}

struct State {
    connections: BTreeMap<Session, Connected>,
    /// Open in the journal, without a connection, until the time given.
    awaited: BTreeMap<Session, Instant>,
    /// Ended, but the journal could not take it.
    ended: BTreeSet<Session>,
    /// The journal has refused events: all are dropped, unacknowledged, until it takes a gap record. Then the modules
    /// are made to connect anew and send them again.
    discarding: bool,
    reserve: GapReserve,
    /// The last gap that went into the journal, with its record and the earliest time of those before it: the catalog
    /// knows of it only after applying that.
    noted: Option<(u64, PendingGap)>,
    arrivals: Arrivals,
}

/// A registered connection, as the share sees it.
struct Connected {
    id: u64,
    acknowledge: watch::Sender<u64>,
    ask: mpsc::Sender<u64>,
    /// Barriers that wait for `Sent` with the token; dropping one answers it too.
    barriers: Vec<(u64, oneshot::Sender<()>)>,
}

/// A registered connection, as its task sees it. It ends when `ask` is closed: another connection of the session has
/// taken its place, or the journal makes everyone connect anew.
pub(super) struct Registration {
    pub(super) acknowledged: watch::Receiver<u64>,
    pub(super) ask: mpsc::Receiver<u64>,
}

/// The connection is not the session's any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Superseded;

#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    #[error("share {share}: {waiting} of the smbd sessions did not answer in time")]
    Timeout { share: String, waiting: usize },
    #[error("share {share}: the journal cannot be written")]
    JournalFailed { share: String },
    #[error("vfsxd's own socket does not answer: {0}")]
    OwnSocket(io::Error),
}

impl ShareIntake {
    /// `directory` is the share's state directory, `gaps` the directory of all shares' gap flags.
    pub fn new(name: &str, journal: Journal, directory: &Path, gaps: &Path) -> io::Result<Arc<Self>> {
        let reserve = GapReserve::open(&directory.join("gap"))?;
        let back_by = Instant::now() + COMES_BACK_WITHIN;
        let awaited: BTreeMap<_, _> = journal
            .open_sessions()
            .into_iter()
            .map(|s| (s, back_by))
            .collect();
        Ok(Arc::new(Self {
            name: name.to_owned(),
            gaps: gaps.to_owned(),
            awaited: watch::channel(awaited.len()).0,
            token: AtomicU64::new(0),
            tending: Mutex::new(()),
            state: Mutex::new(State {
                connections: BTreeMap::new(),
                awaited,
                ended: BTreeSet::new(),
                discarding: false,
                reserve,
                noted: None,
                arrivals: Arrivals::default(),
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

    /// Notes that changes may have been missed. Kept on disk at once, in the journal as soon as it can take it.
    pub fn raise_gap(&self, since_ns: i64, reason: GapReason) {
        self.raise(&mut self.lock(), PendingGap { since_ns, reason });
    }

    /// A connection says which session it is. An older connection of the session is closed.
    pub(super) fn register(&self, session: Session, id: u64, started: Body) -> Registration {
        let mut state = self.lock();
        state.awaited.remove(&session);
        state.ended.remove(&session);
        self.publish_awaited(&state);
        let (acknowledge, acknowledged) = watch::channel(self.journal.acknowledged(session));
        let (ask, asked) = mpsc::channel(QUESTIONS_MAX);
        state.connections.insert(
            session,
            Connected {
                id,
                acknowledge,
                ask,
                barriers: Vec::new(),
            },
        );
        let draft = Draft {
            time_ns: now_ns(),
            session,
            session_sequence: 0,
            body: started,
        };
        self.append(&mut state, vec![draft]);
        Registration {
            acknowledged,
            ask: asked,
        }
    }

    /// Events of a session, in order.
    pub(super) fn take(&self, session: Session, id: u64, events: Vec<Stamped>) -> Result<(), Superseded> {
        let drafts = events
            .into_iter()
            .map(|stamped| journal::draft(session, stamped))
            .collect();
        let mut state = self.lock();
        if !state.is_current(session, id) {
            return Err(Superseded);
        }
        self.append(&mut state, drafts);
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
        if state.is_current(session, id) {
            state.connections.remove(&session);
            self.end_session(&mut state, session, SessionEnd::Closed);
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

    /// Waits until what the connected modules have noted so far is in the journal; returns its newest record then.
    /// Sessions that were open before a restart are waited for too.
    pub(super) async fn barrier(&self, deadline: tokio::time::Instant) -> Result<u64, BarrierError> {
        let timeout = |waiting| BarrierError::Timeout {
            share: self.name.clone(),
            waiting,
        };
        let mut awaited = self.awaited.subscribe();
        let all_back = awaited.wait_for(|count| *count == 0);
        if tokio::time::timeout_at(deadline, all_back).await.is_err() {
            return Err(timeout(*self.awaited.borrow()));
        }
        let mut answers = self.ask_all()?;
        while let Some(answer) = answers.pop() {
            // An error is an answer too: the connection has ended, and its end is in the journal.
            if tokio::time::timeout_at(deadline, answer).await.is_err() {
                return Err(timeout(answers.len() + 1));
            }
        }
        if self.lock().discarding {
            return Err(BarrierError::JournalFailed {
                share: self.name.clone(),
            });
        }
        Ok(self.journal.status().head)
    }

    fn ask_all(&self) -> Result<Vec<oneshot::Receiver<()>>, BarrierError> {
        let token = self.token.fetch_add(1, Ordering::Relaxed) + 1;
        let mut answers = Vec::new();
        for connected in self.lock().connections.values_mut() {
            connected.barriers.retain(|(_, waiting)| !waiting.is_closed());
            let (answer, answered) = oneshot::channel();
            // When the connection is ending, its end is the answer.
            if let Err(mpsc::error::TrySendError::Full(_)) = connected.ask.try_send(token) {
                return Err(BarrierError::Timeout {
                    share: self.name.clone(),
                    waiting: 1,
                });
            }
            connected.barriers.push((token, answer));
            answers.push(answered);
        }
        Ok(answers)
    }

    /// Done every second, and before a status or a scan: takes in gap flags, gets a failed journal going again, ends
    /// sessions that did not come back. Blocks on the disk.
    pub fn tend(&self) {
        self.tend_as_of(Instant::now());
    }

    pub(super) fn tend_as_of(&self, now: Instant) {
        let _one = self.tending.lock().unwrap_or_else(PoisonError::into_inner);
        self.notice_failed_sync();
        self.take_flags();
        self.settle_pending_gap();
        let mut state = self.lock();
        let overdue: Vec<Session> = state
            .awaited
            .iter()
            .filter(|(_, by)| **by <= now)
            .map(|(session, _)| *session)
            .collect();
        for session in overdue {
            state.awaited.remove(&session);
            self.end_session(&mut state, session, SessionEnd::NotBack);
        }
        for session in std::mem::take(&mut state.ended) {
            self.end_session(&mut state, session, SessionEnd::Closed);
        }
        self.publish_awaited(&state);
    }

    /// What a failed sync has lost was not acknowledged, but a module that has ended cannot send it again.
    fn notice_failed_sync(&self) {
        let mut state = self.lock();
        if self.journal.status().failed && !state.discarding {
            state.discarding = true;
            self.raise(
                &mut state,
                PendingGap {
                    since_ns: now_ns(),
                    reason: GapReason::JournalFailed,
                },
            );
        }
    }

    fn take_flags(&self) {
        let flags = match flags::read(&self.gaps, &self.name) {
            Ok(flags) if flags.is_empty() => return,
            Ok(flags) => flags,
            Err(error) => {
                tracing::error!(share = self.name, %error, "gap flags cannot be read");
                self.raise_gap(now_ns(), GapReason::Unknown);
                return;
            }
        };
        for (_, gap) in &flags {
            tracing::warn!(
                share = self.name,
                reason = gap.reason.text(),
                "a module has flagged a gap"
            );
            self.raise(&mut self.lock(), *gap);
        }
        if !self.settle_pending_gap() {
            return;
        }
        for (path, _) in flags {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::error!(path = %path.display(), %error, "gap flag cannot be removed; it will be taken again");
            }
        }
    }

    /// Brings a pending gap into the journal; false when it is still pending.
    fn settle_pending_gap(&self) -> bool {
        let Some(gap) = self.lock().reserve.pending() else {
            return true;
        };
        if let Err(error) = self.journal.recover() {
            tracing::error!(share = self.name, %error, "the journal cannot be recovered yet");
            return false;
        }
        let body = Body::Gap {
            since_ns: gap.since_ns,
            reason: gap.reason,
        };
        let draft = Draft {
            time_ns: now_ns(),
            session: Session::DAEMON,
            session_sequence: 0,
            body,
        };
        let sequence = match self.journal.append(vec![draft]) {
            Ok(appended) => appended.last,
            Err(error) => {
                tracing::error!(share = self.name, %error, "a gap cannot be noted in the journal yet");
                return false;
            }
        };
        if self.journal.wait_synced(sequence - 1, SYNC_PATIENCE) < sequence {
            return false;
        }
        let mut state = self.lock();
        // One that was raised meanwhile with an earlier time is noted again.
        if state.reserve.pending() != Some(gap) {
            return false;
        }
        state.note_gap(sequence, gap);
        if let Err(error) = state.reserve.clear() {
            tracing::error!(share = self.name, %error, "the gap's reserve cannot be cleared; it is noted again");
        }
        if std::mem::take(&mut state.discarding) {
            self.make_all_reconnect(&mut state);
        }
        true
    }

    /// So that the modules send again what was dropped unacknowledged.
    fn make_all_reconnect(&self, state: &mut State) {
        tracing::info!(
            share = self.name,
            "the journal takes records again; modules send what it has not"
        );
        let back_by = Instant::now() + COMES_BACK_WITHIN;
        for session in std::mem::take(&mut state.connections).into_keys() {
            state.awaited.insert(session, back_by);
        }
        self.publish_awaited(state);
    }

    fn end_session(&self, state: &mut State, session: Session, how: SessionEnd) {
        let draft = Draft {
            time_ns: now_ns(),
            session,
            session_sequence: 0,
            body: Body::SessionEnded { how },
        };
        if !self.append(state, vec![draft]) {
            state.ended.insert(session);
        }
    }

    /// False when the journal did not take them; then a gap is pending.
    fn append(&self, state: &mut State, drafts: Vec<Draft>) -> bool {
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

    fn raise(&self, state: &mut State, gap: PendingGap) {
        if let Err(error) = state.reserve.raise(gap) {
            tracing::error!(share = self.name, %error, "a gap is known in memory only");
        }
    }

    fn publish_awaited(&self, state: &State) {
        self.awaited
            .send_if_modified(|count| std::mem::replace(count, state.awaited.len()) != *count);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
    /// A gap is in the journal, in the record named or before it.
    fn note_gap(&mut self, sequence: u64, gap: PendingGap) {
        let earlier = self.noted.map(|(_, gap)| gap);
        let earliest = earlier.into_iter().chain([gap]).min_by_key(|gap| gap.since_ns);
        self.noted = Some((sequence, earliest.unwrap_or(gap)));
    }

    fn is_current(&self, session: Session, id: u64) -> bool {
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
