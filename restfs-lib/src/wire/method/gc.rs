//! Collecting blocks that nothing needs any more.

use super::{NoParams, methods};
use crate::wire::values::Time;
use serde::{Deserialize, Serialize};

methods! {
    GcStart = "gc.start": GcStartParams => GcStatusResult;
    GcStatus = "gc.status": NoParams => GcStatusResult;
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcStartParams {
    /// Bytes a second, read and copied; 0: as fast as it goes; absent: as configured, and as fast as it goes when the site is
    /// full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Blocks stored within so many seconds stay; absent: as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<u64>,
    /// Only says what could go.
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcStatusResult {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<GcProgress>,
    /// The last one that came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<GcReport>,
    /// What the last one with `dry_run` would have done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<GcReport>,
    /// Why the last one broke off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a collection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GcPhase {
    /// Reads which blocks files need, at any point: `done` counts segments, `total` is not known.
    #[default]
    Marking,
    /// Counts what of the packs is needed: blocks.
    Weighing,
    /// Removes and rewrites packs: bytes.
    Sweeping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcProgress {
    pub started: Time,
    pub phase: GcPhase,
    pub done: u64,
    pub total: u64,
    /// Given back so far.
    pub freed_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    pub started: Time,
    pub ended: Time,
    /// In the store when it began.
    pub blocks: u64,
    /// Blocks that nothing needed.
    pub dead_blocks: u64,
    pub removed_blocks: u64,
    /// Given back to the file system.
    pub freed_bytes: u64,
    /// Of needed blocks, written anew.
    pub copied_bytes: u64,
    pub packs_removed: u64,
    /// Bytes that nothing needs, in packs that were written within the grace.
    pub young_bytes: u64,
    /// Bytes that nothing needs, in packs with few of them.
    pub sparse_bytes: u64,
    /// Packs that stayed since a needed block in them is damaged.
    pub packs_damaged: u64,
    /// Packs that stayed since there was no space for copies.
    pub packs_no_room: u64,
}
