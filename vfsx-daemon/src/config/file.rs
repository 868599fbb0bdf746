//! The file as it is written.

use super::units::{Bytes, Interval, Rate, Span};
use super::{DEFAULT_CONTROL, Mode};
use serde::Deserialize;
use std::path::PathBuf;
use toml::Spanned;

/// Where in the file, and what is wrong there.
pub(super) type Wrong = (Option<usize>, String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) state_dir: Option<Spanned<PathBuf>>,
    pub(super) socket: Option<Spanned<PathBuf>>,
    pub(super) control: Option<Spanned<PathBuf>>,
    pub(super) allow_uids: Option<Spanned<Vec<u32>>>,
    pub(super) journal_max: Option<Spanned<Bytes>>,
    pub(super) changes_max: Option<Spanned<u64>>,
    pub(super) sessions_max: Option<Spanned<usize>>,
    pub(super) age: Option<Spanned<Span>>,
    pub(super) log: Option<String>,
    pub(super) metrics: Option<std::net::SocketAddr>,
    #[serde(default)]
    pub(super) verify: VerifyEntry,
    #[serde(default)]
    pub(super) reconcile: ReconcileEntry,
    #[serde(default)]
    pub(super) space: SpaceEntry,
    #[serde(default, rename = "share")]
    pub(super) shares: Vec<ShareEntry>,
    #[serde(default, rename = "site")]
    pub(super) sites: Vec<SiteEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyEntry {
    pub(super) every: Option<Spanned<Interval>>,
    pub(super) deep_every: Option<Spanned<Interval>>,
    pub(super) rate: Option<Rate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReconcileEntry {
    pub(super) after_gap: Option<Spanned<Interval>>,
    pub(super) every: Option<Spanned<Interval>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpaceEntry {
    pub(super) warn: Option<Spanned<Bytes>>,
    pub(super) reserve: Option<Spanned<Bytes>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareEntry {
    pub(super) name: Spanned<String>,
    pub(super) path: Spanned<PathBuf>,
    #[serde(default)]
    pub(super) mode: Mode,
    #[serde(default)]
    pub(super) reconcile: ReconcileEntry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteEntry {
    pub(super) name: Spanned<String>,
    pub(super) url: Spanned<String>,
    pub(super) bucket: Option<String>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
    pub(super) ca_file: Option<Spanned<PathBuf>>,
    pub(super) fingerprint: Option<Spanned<String>>,
    pub(super) limit: Option<Rate>,
    pub(super) shares: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) insecure: bool,
}

/// The error is one line.
pub(super) fn parse(text: &str) -> Result<File, Wrong> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map(|span| span.start);
        (at, error.message().trim().replace('\n', " "))
    })
}

/// Only where the control socket is.
pub(super) fn control(text: &str) -> Result<PathBuf, Wrong> {
    let control = parse(text)?.control;
    Ok(control.map_or_else(|| DEFAULT_CONTROL.into(), Spanned::into_inner))
}
