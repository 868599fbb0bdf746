//! A share's part of a barrier: what modules hold back comes into the journal.

use super::share::{ShareIntake, State, Unheard};
use crate::journal::Session;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Who is not heard yet is looked for again so soon, and half as often each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Sessions that come back do so within two seconds, and a journal that fails is tried again every second.
const LAST_PAUSE: Duration = Duration::from_millis(200);
/// Beyond this the disk hangs.
const LOOK_TAKES: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    #[error("share {share}: {waiting} of the smbd sessions did not answer in time")]
    Timeout { share: String, waiting: usize },
    #[error(
        "share {share}: what clients did by {sessions} smbd sessions that are over, or not connected, is not taken in yet ({which})"
    )]
    Unheard {
        share: String,
        sessions: usize,
        /// A file that tells of one.
        which: String,
    },
    #[error("share {share}: the journal cannot be written")]
    JournalFailed { share: String },
    #[error("share {share}: what smbd sessions have left cannot be looked at: {source}")]
    Left { share: String, source: io::Error },
    #[error("vfsxd's own socket does not answer: {0}")]
    OwnSocket(io::Error),
}

/// A barrier under way.
#[derive(Default)]
pub(super) struct Barrier {
    /// Those of the first look: what others did came after the call.
    open: Option<Unheard>,
    /// Connected, or expected, when the connected were asked.
    asked: Unheard,
    /// Who has sent all, by which connection. By another one it comes again: the journal may not have taken it.
    told: BTreeMap<Session, u64>,
}

impl Barrier {
    fn is_told(&self, state: &State, who: Option<Session>) -> bool {
        who.is_some_and(|who| self.told.get(&who).is_some_and(|by| state.is_current(who, *by)))
    }

    fn concerns(&self, who: Option<Session>) -> bool {
        self.open.as_ref().is_none_or(|open| open.contains(&who))
    }

    /// Who is not heard yet. What a session leaves is there before its connection ends, so one that was there before the look and is not
    /// any more is looked for once more.
    pub(super) fn still(&mut self, state: &State, left: &Unheard) -> Unheard {
        let mut all = here(state);
        all.append(&mut self.asked);
        all.extend(left.iter().copied());
        let still = all.iter().copied();
        let still = still.filter(|who| self.concerns(*who) && !self.is_told(state, *who));
        let still = still.collect();
        self.open.get_or_insert(all);
        still
    }
}

/// Who is connected, or expected.
fn here(state: &State) -> Unheard {
    let sessions = state.connections.keys().chain(state.awaited.keys());
    sessions.copied().map(Some).collect()
}

impl ShareIntake {
    /// Waits until what all modules have noted before this call is in the journal; returns its newest record then. Each session that is
    /// connected, expected, or has left a flag or a file is to answer, or to be over with nothing left of it. A journal that cannot be
    /// written for the time is waited for, too.
    pub(super) async fn barrier(self: &Arc<Self>, deadline: Instant) -> Result<u64, BarrierError> {
        let mut barrier = Barrier::default();
        let mut pause = FIRST_PAUSE;
        let mut hurried = false;
        let mut known = None;
        loop {
            // Before the look: who is connected only then is asked the next time.
            self.ask_all(&mut barrier, deadline).await?;
            let begun = Instant::now();
            let Ok(looked) = timeout_at(deadline, self.look()).await else {
                // One that has begun just before the time was over had no chance.
                let known = known.filter(|_| begun.elapsed() < LOOK_TAKES);
                return Err(known.unwrap_or_else(|| self.cannot_look(io::ErrorKind::TimedOut.into())));
            };
            let why = match looked {
                Ok(left) => {
                    let (still, fails) = {
                        let state = self.lock();
                        (barrier.still(&state, &left), state.discarding)
                    };
                    if !fails && still.is_empty() {
                        self.journal.hurry();
                        return Ok(self.journal.status().head);
                    }
                    if !left.is_empty() && !std::mem::replace(&mut hurried, true) {
                        self.journal.hurry();
                        self.hurried.notify_one();
                    }
                    self.why(fails, &still, &left)
                }
                Err(source) => self.cannot_look(source),
            };
            let again = Instant::now() + pause;
            if again >= deadline {
                return Err(why);
            }
            known = Some(why);
            pause = (pause * 2).min(LAST_PAUSE);
            sleep_until(again).await;
        }
    }

    fn why(&self, fails: bool, still: &Unheard, left: &Unheard) -> BarrierError {
        let share = self.name.clone();
        let unheard: Vec<_> = still.intersection(left).collect();
        match unheard.first() {
            _ if fails => BarrierError::JournalFailed { share },
            Some(who) => BarrierError::Unheard {
                share,
                sessions: unheard.len(),
                which: who.map_or_else(|| "one without a name".to_owned(), |who| hex::encode(who.0)),
            },
            None => BarrierError::Timeout {
                share,
                waiting: still.len(),
            },
        }
    }

    fn cannot_look(&self, source: io::Error) -> BarrierError {
        BarrierError::Left {
            share: self.name.clone(),
            source,
        }
    }

    /// What sessions have left, looked at aside: the disk may hang.
    async fn look(self: &Arc<Self>) -> io::Result<Unheard> {
        let share = Arc::clone(self);
        let look = tokio::task::spawn_blocking(move || share.left_behind());
        look.await.map_err(io::Error::other)?
    }

    /// Asks the connected sessions for what they hold back, and waits for the answers. One whose connection ends instead is over, or
    /// comes back, or has left something.
    async fn ask_all(&self, barrier: &mut Barrier, deadline: Instant) -> Result<(), BarrierError> {
        let mut questions = self.ask(barrier)?;
        while let Some(Question { session, id, answer }) = questions.pop() {
            match timeout_at(deadline, answer).await {
                Ok(Ok(())) => drop(barrier.told.insert(session, id)),
                Ok(Err(_)) => {}
                Err(_) => {
                    return Err(BarrierError::Timeout {
                        share: self.name.clone(),
                        waiting: questions.len() + 1,
                    });
                }
            }
        }
        Ok(())
    }

    fn ask(&self, barrier: &mut Barrier) -> Result<Vec<Question>, BarrierError> {
        let token = self.token.fetch_add(1, Ordering::Relaxed) + 1;
        let mut questions = Vec::new();
        let mut state = self.lock();
        barrier.asked = here(&state);
        let to_ask = |session: &&Session| {
            let who = Some(**session);
            barrier.concerns(who) && !barrier.is_told(&state, who)
        };
        let to_ask: Vec<Session> = state.connections.keys().filter(to_ask).copied().collect();
        for session in to_ask {
            let Some(connected) = state.connections.get_mut(&session) else {
                continue;
            };
            connected.barriers.retain(|(_, waiting)| !waiting.is_closed());
            let (say, answer) = oneshot::channel();
            // When the connection is ending, its end is the answer.
            if let Err(mpsc::error::TrySendError::Full(_)) = connected.ask.try_send(token) {
                return Err(BarrierError::Timeout {
                    share: self.name.clone(),
                    waiting: 1,
                });
            }
            connected.barriers.push((token, say));
            questions.push(Question {
                session,
                id: connected.id,
                answer,
            });
        }
        Ok(questions)
    }
}

/// One that waits for its answer.
struct Question {
    session: Session,
    /// The connection's.
    id: u64,
    answer: oneshot::Receiver<()>,
}
