//! What the catalog asks of smbd's sessions, so that its recovery points are states that the share had.

use crate::journal::Session;
use std::time::Duration;

/// A moment of the share, and how far its records go.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// On the clock of `Record::began_ns`.
    pub clock_ns: u64,
    /// Whatever was done by calls that had begun by then is in the journal's records up to this one.
    pub sequence: u64,
    /// Writes that were announced by these events of their sessions, or earlier ones, may not have ended.
    pub writers: Vec<(Session, u64)>,
    /// Why all that cannot be said, one line. The records up to `sequence` are there all the same.
    pub unsure: Option<String>,
}

/// The sessions of a share, as far as the catalog needs them.
pub trait Sessions: Send + Sync + 'static {
    /// Every session tells its writes with their data, before they begin. While it is not so, points are made from what is
    /// read, as it is read.
    fn copying(&self) -> bool;

    /// Waits until everything that was done before the call is in the journal, `limit` at most.
    fn moment(&self, limit: Duration) -> Moment;

    /// Waits until the writes announced by the moment have ended, `limit` at most. Whether they have. When the moment is unsure, the
    /// writes of all records that are in the journal by now.
    fn ended(&self, moment: &Moment, limit: Duration) -> bool;
}

/// For a catalog that nobody tells written data.
pub struct NoSessions;

impl Sessions for NoSessions {
    fn copying(&self) -> bool {
        false
    }

    fn moment(&self, _limit: Duration) -> Moment {
        Moment {
            unsure: Some("there are no sessions".to_owned()),
            ..Moment::default()
        }
    }

    fn ended(&self, _moment: &Moment, _limit: Duration) -> bool {
        false
    }
}
