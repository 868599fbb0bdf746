//! Ships a share's changes to its recovery sites. Knows `ChangeSource` (where changes come from) and `Site` (where they
//! go); nothing of Samba, sockets or SQL.

mod bandwidth;
#[cfg(any(test, feature = "test-support"))]
pub mod fake;
mod handle;
mod meet;
mod mend;
mod options;
mod plan;
mod restfs;
mod resync;
mod ship;
mod site;
mod source;
mod status;
mod task;
mod trouble;
pub mod verify;

pub use bandwidth::Bandwidth;
pub use handle::{SiteHandle, WaitError, spawn, wait_committed};
pub use mend::{Mender, Peer};
pub use options::SiteOptions;
pub use plan::weight;
pub use restfs::RestfsSite;
pub use site::{Block, BlockFault, Commit, Committed, MAX_PUT_BYTES, Position, Recounted, Site, SiteError};
pub use source::{Batch, BatchLimits, Change, ChangeSource, Cursor, ReadBlock, SourceError};
pub use status::{Lag, Pending, ResyncProgress, SiteState, SiteStatus, Verified};
