//! Bounds what messages take up in memory, all connections together.

use restfs_lib::wire::limits::MAX_MESSAGE;
use restfs_lib::wire::method::*;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a permit stands for.
const UNIT: usize = 1024;
/// Methods whose answers may fill a message. Their place is reserved before they run; other answers are small.
const LONG_ANSWERS: [&str; 8] = [
    AttributeList::NAME,
    BlockGet::NAME,
    CommitList::NAME,
    ObjectList::NAME,
    ObjectRead::NAME,
    ObjectSegments::NAME,
    TreeGroups::NAME,
    TreeRows::NAME,
];

/// Requests and answers apart, so that requests can never keep the answers waiting which would free them.
pub(super) struct Memory {
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// Room for a message, given back when dropped.
#[derive(Debug)]
pub(super) struct Room(Option<OwnedSemaphorePermit>);

impl Memory {
    /// At least one message each way has room.
    pub(super) fn new(bytes: usize) -> Self {
        let permits = (bytes / 2).max(MAX_MESSAGE) / UNIT;
        Self {
            requests: Arc::new(Semaphore::new(permits)),
            answers: Arc::new(Semaphore::new(permits)),
        }
    }

    pub(super) async fn request(&self, bytes: usize) -> Room {
        take(&self.requests, bytes).await
    }

    pub(super) async fn answer(&self, method: &str) -> Room {
        match LONG_ANSWERS.contains(&method) {
            true => take(&self.answers, MAX_MESSAGE).await,
            false => Room(None),
        }
    }
}

impl Room {
    /// Gives back what the message does not need after all.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            let unused = permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
            drop(permit.split(unused));
        }
    }
}

async fn take(semaphore: &Arc<Semaphore>, bytes: usize) -> Room {
    let permits = bytes.min(MAX_MESSAGE).div_ceil(UNIT) as u32;
    // Never closed.
    Room(semaphore.clone().acquire_many_owned(permits).await.ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_answers_wait_for_room_and_short_ones_do_not() {
        let memory = Memory::new(0);
        let mut room = memory.answer(BlockGet::NAME).await;
        assert_eq!(memory.answers.available_permits(), 0);
        memory.answer(Whoami::NAME).await;
        room.shrink(3 * UNIT - 1);
        assert_eq!(memory.answers.available_permits(), MAX_MESSAGE / UNIT - 3);
        drop(room);
        assert_eq!(memory.answers.available_permits(), MAX_MESSAGE / UNIT);
    }
}
