//! What a verify finds, as people and tools read it.

use crate::catalog::Fault;
use dr_replicator::BlockFault;
use dr_replicator::verify::{RowDifference, RowFault};
use restfs_lib::model::RowKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Differences that are listed; beyond, they are counted.
pub const LISTED: usize = 10_000;

/// How the copy differs. The copy is what vfsxd knows of the share, or a site's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// The copy lacks the name.
    Missing,
    /// Only the copy has it.
    Extra,
    /// The name leads to another file.
    Other,
    Metadata,
    Attribute,
    Content,
    /// The share's file cannot be read.
    Unreadable,
    /// The site does not have a block of the file.
    BlockMissing,
    /// It has it, and it is damaged.
    BlockDamaged,
    /// The site's database contradicts itself.
    Digest,
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Other => "other",
            Self::Metadata => "metadata",
            Self::Attribute => "attribute",
            Self::Content => "content",
            Self::Unreadable => "unreadable",
            Self::BlockMissing => "block-missing",
            Self::BlockDamaged => "block-damaged",
            Self::Digest => "digest",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// The site that differs; `None`: what vfsxd knows of the share does.
    pub site: Option<String>,
    /// From the share's root, with `/` before it. Bytes that are no UTF-8 as `\xNN`.
    pub path: String,
    pub kind: DifferenceKind,
    pub detail: Option<String>,
}

/// Differences by path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Findings {
    pub differences: BTreeSet<Difference>,
    /// Beyond those listed.
    pub unlisted: u64,
    /// Files, names and rows that changed whenever they were looked at: nothing can be said of them.
    pub in_change: u64,
}

impl Findings {
    pub fn count(&self) -> u64 {
        self.differences.len() as u64 + self.unlisted
    }

    pub(super) fn add(&mut self, difference: Difference) {
        if self.differences.len() < LISTED {
            self.differences.insert(difference);
        } else if !self.differences.contains(&difference) {
            self.unlisted += 1;
        }
    }

    /// A path that is missing or extra as a whole differs in nothing else.
    pub(super) fn tidy(&mut self) {
        let whole: BTreeSet<_> = self
            .differences
            .iter()
            .filter(|d| matches!(d.kind, DifferenceKind::Missing | DifferenceKind::Extra))
            .map(|d| (d.site.clone(), d.path.clone()))
            .collect();
        self.differences.retain(|d| {
            matches!(d.kind, DifferenceKind::Missing | DifferenceKind::Extra)
                || !whole.contains(&(d.site.clone(), d.path.clone()))
        });
    }
}

/// Of an object on the share at `path`.
pub(super) fn of_fault(path: &[u8], fault: &Fault) -> Difference {
    let below = |name: &[u8]| match path {
        [] => name.to_vec(),
        path => [path, b"/", name].concat(),
    };
    let (path, kind, detail) = match fault {
        Fault::Unknown { name } => (below(name), DifferenceKind::Missing, None),
        Fault::Gone { name } => (below(name), DifferenceKind::Extra, None),
        Fault::Other { name } => (below(name), DifferenceKind::Other, None),
        Fault::Metadata { what } => (path.to_vec(), DifferenceKind::Metadata, Some((*what).to_owned())),
        Fault::Attribute { name } => (path.to_vec(), DifferenceKind::Attribute, Some(text(name))),
        Fault::Content { first, blocks } => {
            let detail = format!("from byte {first} on, {blocks} blocks");
            (path.to_vec(), DifferenceKind::Content, Some(detail))
        }
        Fault::Unreadable { why } => (path.to_vec(), DifferenceKind::Unreadable, Some(why.clone())),
    };
    Difference {
        site: None,
        path: shown(&path),
        kind,
        detail,
    }
}

/// Of a row whose object, or directory, is at `path`.
pub(super) fn of_row(site: &str, path: &[u8], difference: &RowDifference) -> Difference {
    let whole = match difference.fault {
        RowFault::MissingAtSite => Some(DifferenceKind::Missing),
        RowFault::OnlyAtSite => Some(DifferenceKind::Extra),
        RowFault::Differs => None,
    };
    let (path, kind, detail) = match &difference.row {
        RowKey::Object { .. } => (path.to_vec(), whole.unwrap_or(DifferenceKind::Metadata), None),
        RowKey::Attribute { name, .. } => (path.to_vec(), DifferenceKind::Attribute, Some(text(name))),
        RowKey::Entry { name, .. } => {
            let path = match path {
                [] => name.clone(),
                path => [path, b"/", &name[..]].concat(),
            };
            (path, whole.unwrap_or(DifferenceKind::Other), None)
        }
        RowKey::Segment { segment, .. } => (
            path.to_vec(),
            DifferenceKind::Content,
            Some(format!("segment {segment}")),
        ),
    };
    Difference {
        site: Some(site.to_owned()),
        path: shown(&path),
        kind,
        detail,
    }
}

pub(super) fn of_block(site: &str, path: &[u8], fault: BlockFault, block: &str) -> Difference {
    let kind = match fault {
        BlockFault::Missing => DifferenceKind::BlockMissing,
        BlockFault::Damaged => DifferenceKind::BlockDamaged,
    };
    Difference {
        site: Some(site.to_owned()),
        path: shown(path),
        kind,
        detail: Some(block.to_owned()),
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", text(path))
}

/// What is no UTF-8, and what would break a line, is escaped.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use restfs_lib::model::ObjectId;

    fn row(row: RowKey, fault: RowFault) -> RowDifference {
        RowDifference { row, fault }
    }

    #[test]
    fn a_file_that_a_site_lacks_is_one_difference_with_its_path() {
        let (id, dir) = (ObjectId(7), ObjectId::ROOT);
        let name = b"caf\xc3\xa9 \xff\n".to_vec();
        let mut findings = Findings::default();
        for (path, row) in [
            (&name[..], row(RowKey::Object { id }, RowFault::MissingAtSite)),
            (
                &name[..],
                row(RowKey::Segment { id, segment: 0 }, RowFault::MissingAtSite),
            ),
            (
                b"",
                row(
                    RowKey::Entry {
                        dir,
                        name: name.clone(),
                    },
                    RowFault::MissingAtSite,
                ),
            ),
        ] {
            findings.add(of_row("berlin", path, &row));
        }
        findings.tidy();
        let found: Vec<_> = findings.differences.iter().collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, "/café \\xff\\n");
        assert_eq!(found[0].kind, DifferenceKind::Missing);
    }

    #[test]
    fn more_than_a_list_can_hold_is_counted() {
        let mut findings = Findings::default();
        for n in 0..LISTED as u64 + 5 {
            let name = n.to_string().into_bytes();
            findings.add(of_fault(b"d", &Fault::Unknown { name }));
        }
        assert_eq!(findings.differences.len(), LISTED);
        assert_eq!(findings.count(), LISTED as u64 + 5);
    }
}
