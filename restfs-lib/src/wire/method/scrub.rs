//! Reading all that is stored, to find what is no good any more.

use super::{NoParams, methods};
use crate::wire::bytes::{Hex, Name};
use crate::wire::values::Time;
use serde::{Deserialize, Serialize};

methods! {
    ScrubStart = "scrub.start": ScrubStartParams => ScrubStatusResult;
    ScrubStatus = "scrub.status": NoParams => ScrubStatusResult;
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubStartParams {
    /// Bytes a second; 0: as fast as it goes; absent: as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// From the beginning, also when one was begun.
    #[serde(default)]
    pub anew: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatusResult {
    /// Under way, or begun and interrupted by a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<ScrubProgress>,
    /// The last one that came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ScrubReport>,
    /// Blocks that are damaged or gone now, and have not been written anew.
    pub damaged_blocks: u64,
    /// Why the last one broke off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubProgress {
    pub started: Time,
    pub read_bytes: u64,
    /// Of the pack files when it began.
    pub total_bytes: u64,
    pub damages: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    pub started: Time,
    pub ended: Time,
    pub read_bytes: u64,
    /// Blocks whose stored copy was no good.
    pub damages: u64,
    /// Places that were no good, and hold nothing that is needed: copies that were replaced, file headers.
    pub unused: u64,
    /// The first of both.
    pub places: Vec<ScrubPlace>,
    /// Files that have damaged blocks, now or in their history.
    pub files: u64,
    /// The first of them.
    pub objects: Vec<ScrubObject>,
    /// Files of the commit log that were damaged; they were replaced from the metadata store, if that was whole.
    pub logs: Vec<String>,
    /// What is wrong with the metadata store, or the first of it. Then `files` and `objects` may lack some.
    #[serde(default)]
    pub metadata: Vec<String>,
}

/// A place of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubPlace {
    pub pack: u64,
    pub offset: u64,
    /// Absent: nothing was there that is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Hex<32>>,
    pub reason: String,
}

/// A file with damaged blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubObject {
    pub bucket: String,
    pub object: u64,
    /// Now, or when it had the block. Absent: it had no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Name>,
    pub blocks: u64,
    /// The head has some of them: the source sends them again by itself. Else only earlier points have.
    pub head: bool,
    /// First point that has one of them.
    pub from: u64,
}
