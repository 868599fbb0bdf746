//! The lines of the control socket. `vfsxctl` is of the same release, so there are no versions.

use crate::engine::{SettleStage, Settled, SyncProgress, Synced, Verified, VerifyProgress};
use crate::status::StatusReport;
use serde::{Deserialize, Serialize};

/// `share` and `site` choose one; without them all are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status {},
    Settle {
        share: Option<String>,
        site: Option<String>,
        timeout_ms: u64,
    },
    Sync {
        share: Option<String>,
    },
    Verify {
        share: Option<String>,
        site: Option<String>,
        deep: bool,
        repair: bool,
        /// Bytes per second, 0: as fast as it goes; else as configured.
        rate: Option<u64>,
    },
    Pause {
        share: Option<String>,
        site: Option<String>,
    },
    Resume {
        share: Option<String>,
        site: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Progress(Progress),
    /// The last line of a command that has succeeded.
    Done(Done),
    /// The last line of one that has not.
    Error {
        text: String,
        /// The request names something that is not there.
        usage: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    Settle { share: String, stage: SettleStage },
    Sync { share: String, progress: SyncProgress },
    Verify { share: String, progress: VerifyProgress },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    Status(StatusReport),
    Settled(Vec<Settled>),
    Synced(Vec<Synced>),
    Verified(Vec<Verified>),
    /// Paused or resumed: share and site.
    Changed(Vec<(String, String)>),
}
