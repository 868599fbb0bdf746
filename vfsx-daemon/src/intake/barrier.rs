//! A share's part of a barrier: what modules hold back comes into the journal.

use super::share::ShareIntake;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

/// A journal that fails is tried again every second.
const TRIED_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// What sessions have left in files is taken in about as soon.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    #[error("share {share}: {waiting} of the smbd sessions did not answer in time")]
    Timeout { share: String, waiting: usize },
    #[error("share {share}: the journal cannot be written")]
    JournalFailed { share: String },
    #[error(
        "share {share}: what clients did by an smbd session without a connection, or one that is over, is not all taken in"
    )]
    Unheard { share: String },
    #[error("share {share}: what smbd sessions have left cannot be looked at: {source}")]
    Left { share: String, source: io::Error },
    #[error("vfsxd's own socket does not answer: {0}")]
    OwnSocket(io::Error),
}

impl ShareIntake {
    /// Waits until what all modules have noted so far is in the journal; returns its newest record then. Sessions that were open before
    /// a restart are waited for too, what sessions that are over have left in files, and a journal that cannot be written for the time.
    pub(super) async fn barrier(self: &Arc<Self>, deadline: Instant) -> Result<u64, BarrierError> {
        let timeout = |waiting| BarrierError::Timeout {
            share: self.name.clone(),
            waiting,
        };
        let mut awaited = self.awaited.subscribe();
        loop {
            if timeout_at(deadline, awaited.wait_for(|count| *count == 0))
                .await
                .is_err()
            {
                return Err(timeout(*self.awaited.borrow()));
            }
            let mut answers = self.ask_all()?;
            while let Some(answer) = answers.pop() {
                // An error is an answer too: the connection has ended, and what it brought is in the journal.
                if timeout_at(deadline, answer).await.is_err() {
                    return Err(timeout(answers.len() + 1));
                }
            }
            let unheard = self.unheard().await?;
            let (fails, waiting) = {
                let state = self.lock();
                (state.discarding, state.awaited.len())
            };
            if !fails && !unheard && waiting == 0 {
                self.journal.hurry();
                return Ok(self.journal.status().head);
            }
            // What was dropped meanwhile comes again, once there is space: then all are asked anew.
            let again = Instant::now()
                + match unheard {
                    true => LOOKED_AGAIN_AFTER,
                    false => TRIED_AGAIN_AFTER,
                };
            if again >= deadline {
                let share = self.name.clone();
                return Err(match (fails, waiting) {
                    (true, _) => BarrierError::JournalFailed { share },
                    (false, 0) => BarrierError::Unheard { share },
                    (false, waiting) => timeout(waiting),
                });
            }
            sleep_until(again).await;
        }
    }

    /// Whether there is something that connections do not tell. It is taken in at once then, as far as it can be.
    async fn unheard(self: &Arc<Self>) -> Result<bool, BarrierError> {
        let share = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || share.is_unheard()).await;
        let unheard = looked
            .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
            .map_err(|source| BarrierError::Left {
                share: self.name.clone(),
                source,
            })?;
        if unheard {
            self.journal.hurry();
            self.hurried.notify_one();
        }
        Ok(unheard)
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
}
