//! Moments of a share: how far its records go at a time, as the sessions' shared memory tells.
//!
//! A call of smbd that changes something counts itself as begun before it looks at the clock, and as ended after it has
//! noted what it did. So all calls that began by a time are those counted when vfsxd looks after that time; when they
//! have ended, what they noted is known by its number, and it is waited for in the journal.
//!
//! A session that still holds back ranges notes them later than the calls that wrote them. So a moment is only taken when
//! every session has said before it that it holds back nothing, and still says so after it, with no change of that between:
//! one that has begun a call without having said so (it has just connected) makes for a later moment.

use super::memory::Memory;
use super::share::{COMES_BACK_WITHIN, ShareIntake, State};
use super::{BarrierError, Barriers};
use crate::catalog::{Moment, Sessions};
use crate::journal::{Session, monotonic_ns};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use vfsx_proto::ring::{WRITE_ENDED_AFTER, Word};

/// Most calls of smbd take less; one that takes longer is looked at again so often.
const POLL: Duration = Duration::from_micros(200);
/// What is sent is in the journal about as soon.
const JOURNAL_POLL: Duration = Duration::from_micros(500);
const WRITE_POLL: Duration = Duration::from_millis(1);

/// The sessions of a share, as its catalog sees them.
pub struct IntakeSessions {
    intake: Arc<ShareIntake>,
    barriers: Barriers,
    runtime: Handle,
}

/// Why a moment is not known.
#[derive(Debug, thiserror::Error)]
enum Unsure {
    #[error("sessions are still to come back")]
    Awaited,
    #[error("the journal cannot be written")]
    Discarding,
    #[error("a session works without a connection, or has left changes in a file")]
    Unheard,
    #[error("flags of sessions cannot be read: {0}")]
    Flags(#[from] std::io::Error),
    #[error("a session tells no data")]
    NoRing,
    #[error("a session holds back what it was told to send")]
    Held,
    #[error("a call of smbd takes long")]
    LongCall,
    #[error("what a session has noted is not in the journal yet")]
    Late,
    #[error("an smbd process was killed in the middle of a change")]
    Killed,
    #[error("vfsxd is stopping")]
    Stopping,
    #[error(transparent)]
    Barrier(#[from] BarrierError),
}

impl IntakeSessions {
    /// Needs a tokio runtime with several threads.
    pub fn new(intake: Arc<ShareIntake>, barriers: Barriers) -> Self {
        Self {
            intake,
            barriers,
            runtime: Handle::current(),
        }
    }

    /// A moment's clock, and whose writes may not have ended then.
    fn take(&self, until: Instant) -> Result<(u64, Vec<(Session, u64)>), Unsure> {
        if tokio::time::Instant::now() < self.barriers.from {
            return Err(Unsure::Awaited);
        }
        loop {
            let (change, told) = self.tellers(until)?;
            let clock_ns = monotonic_ns();
            self.registered(until)?;
            self.heard()?;
            let sessions = self.sessions(&self.intake.lock())?;
            // Looked at before any is waited for: calls that begin meanwhile do not count.
            let begun: Vec<_> = sessions.iter().map(|(_, ring)| ring.word(Word::Begun)).collect();
            let of_all = || sessions.iter().zip(&begun);
            if of_all().all(|((session, _), begun)| *begun == Some(0) || told.contains(session)) {
                let mut writers = Vec::new();
                for ((session, ring), begun) in of_all() {
                    let noted = self.noted(*session, ring, *begun, until)?;
                    writers.extend(noted.map(|noted| (*session, noted)));
                }
                // What a session lost meanwhile has its end in the journal, or is awaited.
                self.sessions(&self.intake.lock())?;
                return match self.intake.copy_changes() == change {
                    true => Ok((clock_ns, writers)),
                    false => Err(Unsure::Held),
                };
            }
            if Instant::now() >= until {
                return Err(Unsure::Held);
            }
        }
    }

    /// The sessions, when each of them holds back nothing, and which change of what they are asked for that is true of.
    fn tellers(&self, until: Instant) -> Result<(u64, BTreeSet<Session>), Unsure> {
        let change = self.intake.copy_changes();
        let sessions = self.sessions(&self.intake.lock())?;
        for (session, ring) in &sessions {
            let tells = || ring.word(Word::Copying) == Some(1);
            if !self.wait(*session, POLL, until, tells) {
                return Err(Unsure::Held);
            }
        }
        Ok((change, sessions.into_iter().map(|(session, _)| session).collect()))
    }

    /// No session has changed anything without being connected.
    fn heard(&self) -> Result<(), Unsure> {
        let flagged = self.intake.flagged()?;
        let state = self.intake.lock();
        let is_connected =
            |session: &Option<Session>| session.is_some_and(|s| state.connections.contains_key(&s));
        if !flagged.iter().all(is_connected) {
            return Err(Unsure::Unheard);
        }
        drop(state);
        match self.intake.filed()?.is_empty() {
            true => Ok(()),
            false => Err(Unsure::Unheard),
        }
    }

    /// All sessions that were there before this call are registered.
    fn registered(&self, until: Instant) -> Result<(), Unsure> {
        let (barriers, intake) = (self.barriers.clone(), Arc::clone(&self.intake));
        let (done, answer) = sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody waits any more when it fails.
            let _ = done.send(barriers.registered(&intake, until.into()).await);
        });
        match answer.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(registered) => Ok(registered?),
            Err(RecvTimeoutError::Timeout) => Err(Unsure::Late),
            Err(RecvTimeoutError::Disconnected) => Err(Unsure::Stopping),
        }
    }

    fn sessions(&self, state: &State) -> Result<Vec<(Session, Arc<Memory>)>, Unsure> {
        if !state.awaited.is_empty() {
            return Err(Unsure::Awaited);
        }
        if state.discarding {
            return Err(Unsure::Discarding);
        }
        let rings = state.connections.iter().map(|(session, connected)| {
            let ring = connected.ring().ok_or(Unsure::NoRing)?;
            Ok((*session, ring))
        });
        rings.collect()
    }

    /// Waits until the calls counted have ended and what they noted is in the journal. The newest event then, when a write
    /// may not have ended. `None` too when the session is over: what it sent is in the journal, and its process is gone.
    fn noted(
        &self,
        session: Session,
        ring: &Memory,
        begun: Option<u64>,
        until: Instant,
    ) -> Result<Option<u64>, Unsure> {
        let ended = || ring.word(Word::Ended) >= begun && begun.is_some();
        if !self.wait(session, POLL, until, ended) {
            return Err(Unsure::LongCall);
        }
        if self.is_over(session) && ring.is_in_call() {
            return Err(Unsure::Killed);
        }
        let (noted, running) = (ring.word(Word::Noted), ring.word(Word::Running));
        let holds_back = ring.word(Word::Copying) != Some(1);
        if holds_back && begun != Some(0) && !self.is_over(session) {
            return Err(Unsure::Held);
        }
        let Some(noted) = noted else { return Ok(None) };
        let written = || self.intake.journal().written(session) >= noted;
        if !self.wait(session, JOURNAL_POLL, until, written) {
            return Err(Unsure::Late);
        }
        Ok(running.is_none_or(|running| running <= noted).then_some(noted))
    }

    /// Sessions that may be writing, and the newest event of each in the journal.
    fn announced(&self) -> Vec<(Session, u64)> {
        let state = self.intake.lock();
        let connected = state.connections.iter().filter(|(_, c)| c.ring().is_some());
        let sessions = connected.map(|(session, _)| session).chain(state.awaited.keys());
        sessions
            .map(|session| (*session, self.intake.journal().written(*session)))
            .collect()
    }

    /// The writes that the session has announced by this event have ended, or are told again when they have.
    fn has_ended(&self, (session, announced): (Session, u64)) -> bool {
        let state = self.intake.lock();
        match (state.connections.get(&session), state.awaited.get(&session)) {
            (Some(connected), _) => {
                let ring = connected.ring();
                drop(state);
                ring.is_none_or(|ring| ring.word(Word::Running) > Some(announced))
            }
            // It has announced nothing since it was lost, and goes on with what it was writing then.
            (None, Some(back_by)) => Instant::now() + COMES_BACK_WITHIN >= *back_by + WRITE_ENDED_AFTER,
            (None, None) => true,
        }
    }

    fn is_over(&self, session: Session) -> bool {
        !self.intake.lock().connections.contains_key(&session)
    }

    /// Whether it has come, or the session is over.
    fn wait(&self, session: Session, poll: Duration, until: Instant, come: impl Fn() -> bool) -> bool {
        loop {
            if come() || self.is_over(session) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(poll);
        }
    }
}

impl Sessions for IntakeSessions {
    fn copying(&self) -> bool {
        self.intake.copying()
    }

    fn moment(&self, limit: Duration) -> Moment {
        let taken = self.take(Instant::now() + limit);
        let (clock_ns, writers, unsure) = match taken {
            Ok((clock_ns, writers)) => (clock_ns, writers, None),
            Err(why) => (monotonic_ns(), Vec::new(), Some(why.to_string())),
        };
        Moment {
            clock_ns,
            sequence: self.intake.journal().status().head,
            writers,
            unsure,
        }
    }

    fn ended(&self, moment: &Moment, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let writers = match &moment.unsure {
            None => moment.writers.clone(),
            // Any write of which there is a record may be under way.
            Some(_) => self.announced(),
        };
        writers.into_iter().all(|writer| {
            while !self.has_ended(writer) {
                if Instant::now() >= until {
                    return false;
                }
                sleep(WRITE_POLL);
            }
            true
        })
    }
}
