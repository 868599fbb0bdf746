//! Ships a share's changes to its recovery sites. Knows `ChangeSource` (where changes come from) and `Site` (where they
//! go); nothing of Samba, sockets or SQL.

mod site;
mod source;

pub use site::{Commit, Committed, Position, Site, SiteError};
pub use source::{Batch, BatchLimits, Block, Change, ChangeSource, Cursor, ReadBlock, SourceError};
