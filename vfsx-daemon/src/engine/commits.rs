//! How far the share is at the first of its sites, for clients that wait for that.

use super::share::ShareEngine;
use std::collections::VecDeque;
use std::sync::Arc;

/// Positions kept between what the catalog has and what a site has. While there are so many, no newer ones are noted: the
/// next is as soon as one is reached.
const POSITIONS_MAX: usize = 256;

/// Everything from records up to `journal` is in the changes up to `change`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    journal: u64,
    change: u64,
}

/// Positions that no site has reached yet, in order.
#[derive(Debug, Default)]
struct Positions {
    ahead: VecDeque<Position>,
    newest: u64,
}

impl Positions {
    fn note(&mut self, position: Position) {
        if position.journal > self.newest && self.ahead.len() < POSITIONS_MAX {
            self.newest = position.journal;
            self.ahead.push_back(position);
        }
    }

    /// A site has the changes up to this one. The journal position that it has with that, when it is a new one.
    fn reached(&mut self, change: u64) -> Option<u64> {
        let reached = self.ahead.partition_point(|position| position.change <= change);
        self.ahead
            .drain(..reached)
            .next_back()
            .map(|position| position.journal)
    }
}

/// Tells the intake what is committed as long as anybody waits for it; meanwhile what became dirty is read at once. Runs until
/// the catalog has ended.
pub(super) async fn pass_on(share: Arc<ShareEngine>) {
    let (mut wanted, mut moved) = (share.intake().wanted(), share.catalog().progress());
    let mut positions = Positions::default();
    let mut committed = 0;
    loop {
        let goal = *wanted.borrow_and_update();
        moved.borrow_and_update();
        if goal <= committed {
            positions = Positions::default();
            match wanted.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        share.catalog().hurry(goal);
        let (journal, change) = share.catalog().covered();
        positions.note(Position { journal, change });
        if let Some(journal) = share.first_site().and_then(|change| positions.reached(change)) {
            committed = journal;
            share.intake().committed(journal);
            continue;
        }
        let changed = tokio::select! {
            changed = moved.changed() => changed,
            changed = wanted.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_is_committed_when_a_site_has_the_change_that_the_catalog_had_then() {
        let mut positions = Positions::default();
        positions.note(Position {
            journal: 5,
            change: 50,
        });
        // More changes of others, and nothing more covered.
        positions.note(Position {
            journal: 5,
            change: 90,
        });
        assert_eq!(positions.reached(49), None);
        assert_eq!(positions.reached(50), Some(5));
        assert_eq!(positions.reached(50), None, "told once");
    }

    proptest! {
        /// However slow the site, a position is never told before its change, and while the catalog moves on something is
        /// always reached.
        #[test]
        fn positions_are_bounded_true_and_never_put_off(steps in prop::collection::vec((1u64..4, 0u64..4, 0u64..4), 1..1500)) {
            let mut positions = Positions::default();
            let (mut journal, mut change, mut site) = (0, 0, 0);
            let mut needed = std::collections::BTreeMap::new();
            for (records, changes, shipped) in steps {
                journal += records;
                change += changes;
                needed.insert(journal, change);
                positions.note(Position { journal, change });
                site = (site + shipped).min(change);
                if let Some(told) = positions.reached(site) {
                    prop_assert!(needed[&told] <= site);
                }
                prop_assert!(positions.ahead.len() <= POSITIONS_MAX);
            }
            if let Some(first) = positions.ahead.front().copied() {
                prop_assert!(positions.reached(first.change).is_some());
            }
        }
    }
}
