//! What a comparison found.

use super::node::Node;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    OnlyA,
    OnlyB,
    Type,
    Content,
    Size,
    Mode,
    Uid,
    Gid,
    Mtime,
    Xattr,
    Target,
    Device,
    /// Which names are one file.
    Links,
    Sparseness,
    /// It could not be compared.
    Unreadable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Below the roots, undecodable bytes replaced.
    pub path: String,
    pub aspect: Aspect,
    /// a / b
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub identical: bool,
    /// Names of the first tree that were compared.
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    /// Of files' content; holes and second names count too.
    pub bytes: u64,
    pub counts: BTreeMap<Aspect, u64>,
    /// The first ones.
    pub differences: Vec<Difference>,
    #[serde(skip)]
    list_limit: usize,
}

impl Report {
    pub(super) fn new(list_limit: usize) -> Self {
        Self {
            identical: true,
            files: 0,
            directories: 0,
            others: 0,
            bytes: 0,
            counts: BTreeMap::new(),
            differences: Vec::new(),
            list_limit,
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    pub(super) fn count(&mut self, node: &Node) {
        if node.is_directory() {
            self.directories += 1;
        } else if node.is_file() {
            self.files += 1;
            self.bytes += node.size();
        } else {
            self.others += 1;
        }
    }

    pub(super) fn add(&mut self, path: &Path, aspect: Aspect, detail: String) {
        self.identical = false;
        *self.counts.entry(aspect).or_default() += 1;
        if self.differences.len() < self.list_limit {
            let path = match path.as_os_str().is_empty() {
                true => ".".to_owned(),
                false => path.to_string_lossy().into_owned(),
            };
            self.differences.push(Difference { path, aspect, detail });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Difference { path, aspect, detail } in &self.differences {
            writeln!(
                f,
                "{path}: {aspect}{}{detail}",
                if detail.is_empty() { "" } else { ": " }
            )?;
        }
        let left = self.total() - self.differences.len() as u64;
        if left > 0 {
            writeln!(f, "and {left} more")?;
        }
        let verdict = if self.identical { "identical" } else { "different" };
        let Self {
            files,
            directories,
            others,
            bytes,
            ..
        } = self;
        write!(
            f,
            "{verdict}: {files} files, {directories} directories, {others} others, {bytes} bytes"
        )
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyA => "only in a",
            Self::OnlyB => "only in b",
            Self::Type => "type",
            Self::Content => "content",
            Self::Size => "size",
            Self::Mode => "mode",
            Self::Uid => "owner",
            Self::Gid => "group",
            Self::Mtime => "mtime",
            Self::Xattr => "attribute",
            Self::Target => "target",
            Self::Device => "device number",
            Self::Links => "hard links",
            Self::Sparseness => "space on disk",
            Self::Unreadable => "cannot be compared",
        })
    }
}
