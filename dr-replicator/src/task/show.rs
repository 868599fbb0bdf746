//! Bringing the status up to date.

use super::SiteTask;
use super::phase::Phase;
use crate::status::SiteState;
use std::sync::atomic::Ordering;

impl SiteTask {
    pub(super) fn publish(&mut self) {
        let head = *self.head.borrow();
        let status = &mut self.report.status;
        status.head = head;
        status.wire_bytes = self.steps.shipper.site.wire_bytes();
        status.shipped_bytes = self.steps.shipper.shipped.load(Ordering::Relaxed);
        status.resync = match &self.phase {
            Phase::Comparing(comparing) => Some(*comparing.progress.borrow()),
            _ => None,
        };
        status.pending.ops = head.saturating_sub(status.cursor);
        status.pending.bytes = 0;
        if status.pending.ops == 0 {
            status.pending.oldest_ns = None;
        }
        if let Phase::Following(following) = &self.phase {
            status.pending.bytes = following.pending_bytes();
            status.pending.oldest_ns = following.oldest_ns().or(status.pending.oldest_ns);
            let trouble = self.suffering.clone();
            let differs = self.differs.clone().map(|why| (SiteState::Failed, why));
            match (following.state(head), trouble.or(differs)) {
                (SiteState::InSync, _) => self.report.state(SiteState::InSync, None),
                (state, None) => self.report.state(state, None),
                (_, Some((state, error))) => self.report.state(state, Some(error)),
            }
        }
        self.report.publish();
    }

    /// The age of the oldest pending change matters most while the site cannot be reached.
    pub(super) fn look_for_oldest(&mut self) {
        let status = &self.report.status;
        if self.oldest.is_none() && status.pending.ops > 0 && status.pending.oldest_ns.is_none() {
            self.oldest = Some(Box::pin(self.steps.clone().oldest(status.cursor)));
        }
    }
}
