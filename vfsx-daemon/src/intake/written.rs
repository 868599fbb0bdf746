//! Events on their way into the journal, together with the data that they announce.

use super::memory::Memory;
use super::share::{ShareIntake, Superseded};
use crate::journal::{self, Body, Draft, Session, monotonic_ns};
use std::sync::Arc;
use vfsx_proto::{Event, Stamped};

/// Data in one append: what a connection may hold in memory.
const AT_ONCE: usize = 4 << 20;

/// A connection's way into the journal.
pub(super) struct Written {
    session: Session,
    memory: Option<Arc<Memory>>,
    complained: bool,
}

impl Written {
    pub(super) fn new(session: Session, memory: Option<Arc<Memory>>) -> Self {
        Self {
            session,
            memory,
            complained: false,
        }
    }

    pub(super) fn session(&self) -> Session {
        self.session
    }

    pub(super) fn memory(&self) -> Option<Arc<Memory>> {
        self.memory.clone()
    }

    pub(super) fn take(
        &mut self,
        share: &ShareIntake,
        id: u64,
        events: Vec<Stamped>,
    ) -> Result<(), Superseded> {
        // What comes again after a new connection may have had its place in the ring given to other data.
        let known = share.journal().written(self.session);
        let now = monotonic_ns();
        let (mut drafts, mut bytes) = (Vec::new(), 0);
        for stamped in events {
            let mut draft = self.draft(stamped, share.copying(), known);
            // A record from the future would wait for its time.
            draft.began_ns = draft.began_ns.min(now);
            bytes += draft.body.data_len();
            drafts.push(draft);
            if bytes >= AT_ONCE {
                self.append(share, id, std::mem::take(&mut drafts), bytes)?;
                bytes = 0;
            }
        }
        self.append(share, id, drafts, bytes)
    }

    fn append(
        &self,
        share: &ShareIntake,
        id: u64,
        drafts: Vec<Draft>,
        bytes: usize,
    ) -> Result<(), Superseded> {
        share.take(self.session, id, drafts)?;
        if bytes > 0 {
            share.decide(&mut share.lock());
        }
        Ok(())
    }

    /// Without its data a write is a range like others: it is read from the file when it has ended.
    fn draft(&mut self, stamped: Stamped, wanted: bool, known: u64) -> Draft {
        let place = match (&stamped.event, &self.memory) {
            (Event::Write { length, data, .. }, Some(memory)) if wanted && stamped.sequence > known => {
                data.map(|place| (Arc::clone(memory), place, *length))
            }
            _ => None,
        };
        let mut draft = journal::draft(self.session, stamped);
        if let (Some((memory, place, length)), Body::Write { data, .. }) = (place, &mut draft.body) {
            *data = memory.read(place, length);
            if data.is_none() && !std::mem::replace(&mut self.complained, true) {
                tracing::error!("written data is not what smbd has announced; it is read from the file");
            }
        }
        draft
    }
}
