//! The results of a share's verifies, kept over restarts: the last one, and the last that found something until a later
//! one that looked as closely finds nothing.

use super::{Outcome, Verified};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One verify in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// When it ended, RFC 3339.
    pub at: String,
    pub deep: bool,
    pub outcome: Outcome,
    /// Of the copy here: between the share and what vfsxd knows of it. They are left, not mended.
    pub share_differences: u64,
    pub sites: Vec<SiteResult>,
    /// Found at first; what was mended of it is not among the differences.
    pub found: u64,
    pub in_change: u64,
    pub files: u64,
    pub bytes: u64,
    pub blocks: u64,
    pub duration_ms: u64,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteResult {
    pub name: String,
    pub differences: u64,
}

impl VerifyResult {
    pub fn differences(&self) -> u64 {
        self.share_differences + self.sites.iter().map(|site| site.differences).sum::<u64>()
    }

    /// Looked at least as closely as `other`, at everything that `other` looked at.
    fn covers(&self, other: &Self) -> bool {
        let has = |name: &str| self.sites.iter().any(|site| site.name == name);
        self.deep >= other.deep && other.sites.iter().all(|site| has(&site.name))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::engine) struct Record {
    pub(in crate::engine) last: Option<VerifyResult>,
    pub(in crate::engine) found: Option<VerifyResult>,
    /// When one was last begun, seconds since the epoch; at first when the record was made.
    pub(in crate::engine) plain_begun: i64,
    pub(in crate::engine) deep_begun: i64,
}

impl Record {
    /// Takes a result in.
    fn note(&mut self, result: VerifyResult) {
        let clean = matches!(result.outcome, Outcome::Clean | Outcome::Mended);
        let replaces = self.found.as_ref().is_none_or(|found| result.covers(found));
        if replaces && clean {
            self.found = None;
        }
        if replaces && result.differences() > 0 {
            self.found = Some(result.clone());
        }
        self.last = Some(result);
    }
}

/// The record and its file.
#[derive(Debug)]
pub(in crate::engine) struct Records {
    path: PathBuf,
    record: Record,
}

impl Records {
    /// None there, or one that cannot be read, is a new one: it holds nothing that another verify does not find again.
    pub(in crate::engine) fn open(directory: &Path, now: i64) -> io::Result<Self> {
        let path = directory.join("verify");
        let new = Record {
            plain_begun: now,
            deep_begun: now,
            ..Record::default()
        };
        let read = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(e) => Err(e),
        };
        let known = match read {
            Ok(record) => Some(record),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                tracing::warn!(file = %path.display(), "results of earlier verifies cannot be read: {e}");
                None
            }
        };
        let is_new = known.is_none();
        let records = Self {
            path,
            record: known.unwrap_or(new),
        };
        if is_new {
            records.write()?;
        }
        Ok(records)
    }

    pub(in crate::engine) fn get(&self) -> &Record {
        &self.record
    }

    pub(in crate::engine) fn begin(&mut self, deep: bool, now: i64) -> io::Result<()> {
        self.record.plain_begun = now;
        if deep {
            self.record.deep_begun = now;
        }
        self.write()
    }

    pub(in crate::engine) fn note(&mut self, result: VerifyResult) -> io::Result<()> {
        self.record.note(result);
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.record)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

impl From<&Verified> for VerifyResult {
    fn from(verified: &Verified) -> Self {
        let left = verified.left();
        let of = |site: Option<&str>| {
            let listed = left.differences.iter();
            listed.filter(|d| d.site.as_deref() == site).count() as u64
        };
        // What is not listed is no less there; which site it is of does not matter to anybody then.
        let unlisted = left.unlisted;
        let mut sites: Vec<_> = verified
            .sites
            .iter()
            .map(|name| SiteResult {
                name: name.clone(),
                differences: of(Some(name)),
            })
            .collect();
        let share = of(None);
        match sites.iter_mut().find(|site| site.differences > 0) {
            Some(site) if share == 0 => site.differences += unlisted,
            _ => {}
        }
        Self {
            at: verified.at.clone(),
            deep: verified.deep,
            outcome: verified.outcome,
            share_differences: if share > 0 { share + unlisted } else { 0 },
            sites,
            found: verified.found.count(),
            in_change: left.in_change,
            files: verified.files,
            bytes: verified.bytes,
            blocks: verified.blocks,
            duration_ms: verified.duration_ms,
            error: verified.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(deep: bool, differences: u64, outcome: Outcome) -> VerifyResult {
        VerifyResult {
            at: "2026-11-20T14:00:00Z".into(),
            deep,
            outcome,
            share_differences: 0,
            sites: vec![SiteResult {
                name: "a".into(),
                differences,
            }],
            found: differences,
            in_change: 0,
            files: 0,
            bytes: 0,
            blocks: 0,
            duration_ms: 0,
            error: None,
        }
    }

    #[test]
    fn what_a_deep_verify_found_is_shown_until_a_deep_one_is_clean() {
        let mut record = Record::default();
        record.note(result(true, 3, Outcome::Differences));
        record.note(result(false, 0, Outcome::Clean));
        assert!(record.found.is_some(), "a plain one has not looked there");
        let mut elsewhere = result(true, 0, Outcome::Clean);
        elsewhere.sites[0].name = "b".into();
        record.note(elsewhere);
        assert!(record.found.is_some(), "another site says nothing of this one");
        record.note(result(true, 0, Outcome::Failed));
        assert!(record.found.is_some(), "one that came to no end proves nothing");
        record.note(result(true, 0, Outcome::Clean));
        assert_eq!(record.found, None);
        record.note(result(false, 1, Outcome::Differences));
        record.note(result(true, 0, Outcome::Mended));
        assert_eq!(record.found, None);
    }

    #[test]
    fn results_survive_a_restart_and_a_damaged_file_is_no_obstacle() {
        let scratch = tempfile::tempdir().expect("scratch");
        let mut records = Records::open(scratch.path(), 100).expect("opens");
        records.begin(true, 200).expect("writes");
        records
            .note(result(true, 3, Outcome::Differences))
            .expect("writes");
        let records = Records::open(scratch.path(), 300).expect("opens");
        assert_eq!(
            records.get().found.as_ref().map(VerifyResult::differences),
            Some(3)
        );
        assert_eq!(records.get().deep_begun, 200);
        fs::write(scratch.path().join("verify"), "half").expect("writes");
        let records = Records::open(scratch.path(), 400).expect("opens");
        assert_eq!(
            (records.get().last.clone(), records.get().deep_begun),
            (None, 400)
        );
    }
}
