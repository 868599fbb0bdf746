//! A share's part of a barrier: what modules hold back comes into the journal.

use super::share::ShareIntake;
use std::io;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

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
    /// Waits until what the connected modules have noted so far is in the journal; returns its newest record then.
    /// Sessions that were open before a restart are waited for too.
    pub(super) async fn barrier(&self, deadline: Instant) -> Result<u64, BarrierError> {
        let timeout = |waiting| BarrierError::Timeout {
            share: self.name.clone(),
            waiting,
        };
        let mut awaited = self.awaited.subscribe();
        if timeout_at(deadline, awaited.wait_for(|count| *count == 0))
            .await
            .is_err()
        {
            return Err(timeout(*self.awaited.borrow()));
        }
        let mut answers = self.ask_all()?;
        while let Some(answer) = answers.pop() {
            // An error is an answer too: the connection has ended, and its end is in the journal.
            if timeout_at(deadline, answer).await.is_err() {
                return Err(timeout(answers.len() + 1));
            }
        }
        if self.lock().discarding {
            return Err(BarrierError::JournalFailed {
                share: self.name.clone(),
            });
        }
        self.journal.hurry();
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
}
