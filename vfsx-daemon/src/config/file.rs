//! The file as it is written.

use super::units::{Bytes, Interval, Rate, Span};
use super::{DEFAULT_CONTROL, Mode};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) state_dir: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
    pub(super) control: Option<PathBuf>,
    pub(super) allow_uids: Option<Vec<u32>>,
    pub(super) journal_max: Option<Bytes>,
    pub(super) changes_max: Option<u64>,
    pub(super) age: Option<Span>,
    pub(super) log: Option<String>,
    pub(super) metrics: Option<std::net::SocketAddr>,
    #[serde(default)]
    pub(super) verify: VerifyEntry,
    #[serde(default)]
    pub(super) reconcile: ReconcileEntry,
    #[serde(default, rename = "share")]
    pub(super) shares: Vec<ShareEntry>,
    #[serde(default, rename = "site")]
    pub(super) sites: Vec<SiteEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyEntry {
    pub(super) every: Option<Interval>,
    pub(super) deep_every: Option<Interval>,
    pub(super) rate: Option<Rate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReconcileEntry {
    pub(super) after_gap: Option<Interval>,
    pub(super) every: Option<Interval>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareEntry {
    pub(super) name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) mode: Mode,
    #[serde(default)]
    pub(super) reconcile: ReconcileEntry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteEntry {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) bucket: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) fingerprint: Option<String>,
    pub(super) limit: Option<Rate>,
    pub(super) shares: Option<Vec<String>>,
    #[serde(default)]
    pub(super) insecure: bool,
}

impl File {
    pub(super) fn control(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| DEFAULT_CONTROL.into())
    }
}

/// The error has its line, and is one line.
pub(super) fn parse(text: &str) -> Result<File, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        (line, error.message().trim().replace('\n', " "))
    })
}
