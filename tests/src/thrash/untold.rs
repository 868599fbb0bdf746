//! What a killed smbd did in the microseconds before it could tell of it: docs/module.md, known limits.
//!
//! That is a name, or an attribute, of an operation whose end nobody heard of. In the restored tree the names are put right as that
//! operation did it; then all that is left are attributes of just those names. Content is never among it: before the first write
//! into a file vfsxd is told that there will be one.

use super::model::Doubt;
use crate::compare::{Aspect, Difference};
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Does in the `restored` tree what `doubts` are of and the `share` shows as done. Gives the number of names that this changed.
pub(super) fn put_right(share: &Path, restored: &Path, doubts: &[Doubt]) -> Result<u64> {
    let mut changed = 0;
    // What is in a directory can be put right when the directory is there.
    loop {
        let mut more = 0;
        for doubt in doubts {
            more += u64::from(put_one_right(share, restored, doubt)?);
        }
        if more == 0 {
            return Ok(changed);
        }
        changed += more;
    }
}

fn put_one_right(share: &Path, restored: &Path, doubt: &Doubt) -> Result<bool> {
    let is_there = |root: &Path, name: &str| root.join(name).symlink_metadata().is_ok();
    let gone = doubt.gone.as_deref();
    let gone = gone.filter(|name| is_there(restored, name) && !is_there(share, name));
    let came = doubt.came.as_deref().filter(|name| is_there(share, name));
    Ok(match (gone, came) {
        (Some(from), Some(to)) => fs::rename(restored.join(from), restored.join(to)).is_ok(),
        (Some(gone), None) => fs::remove_file(restored.join(gone)).is_ok(),
        (None, Some(came)) if !is_there(restored, came) => {
            let (from, to) = (share.join(came), restored.join(came));
            (!doubt.made || is_empty(&from)?)
                && Command::new("cp").arg("-a").args([from, to]).status()?.success()
        }
        _ => false,
    })
}

fn is_empty(path: &Path) -> Result<bool> {
    let metadata = path.symlink_metadata()?;
    Ok(match metadata.is_dir() {
        true => fs::read_dir(path)?.next().is_none(),
        false => metadata.len() == 0,
    })
}

/// Whether `difference` is one of the attributes that an operation in doubt sets.
pub(super) fn explains(doubt: &Doubt, difference: &Difference) -> bool {
    let is_parent = |name: &String| {
        let parent = name.rsplit_once('/').map_or(".", |(parent, _)| parent);
        difference.path == parent
    };
    match difference.aspect {
        Aspect::Mtime if doubt.gone.iter().chain(&doubt.came).any(is_parent) => true,
        Aspect::Mtime | Aspect::Xattr | Aspect::Mode | Aspect::Uid | Aspect::Gid => {
            doubt.names.contains(&difference.path)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{self, Options};
    use crate::thrash::model::{Operation, Tree};
    use std::collections::BTreeSet;

    /// Whether the difference of two directories is explained by `operation`, which began on a tree with these files, and how many
    /// names it is about.
    fn judged(
        before: &[&str],
        share: &[(&str, &str)],
        site: &[(&str, &str)],
        operation: &Operation,
    ) -> Option<u64> {
        let tree = Tree {
            files: before
                .iter()
                .map(|name| ((*name).to_owned(), Vec::new()))
                .collect(),
            dirs: BTreeSet::new(),
        };
        let doubts = [Doubt::of(operation, &tree)];
        let dirs = [share, site].map(|files| {
            let dir = tempfile::tempdir().unwrap();
            for (name, content) in files {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            dir
        });
        let [share, site] = [0, 1].map(|at: usize| dirs[at].path());
        let changed = put_right(share, site, &doubts).unwrap();
        let report = compare::compare(share, site, &Options::default()).unwrap();
        // Times of these files are those of their making.
        let mut left = report
            .differences
            .iter()
            .filter(|found| found.aspect != Aspect::Mtime);
        left.all(|found| doubts.iter().any(|doubt| explains(doubt, found)))
            .then_some(changed)
    }

    fn rename(from: &str, to: &str) -> Operation {
        Operation::Rename {
            from: from.into(),
            to: to.into(),
        }
    }

    #[test]
    fn a_name_of_which_nobody_was_told_is_taken_and_lost_content_is_not() {
        let files = ["f0", "f1"];
        let both = [("f0", "new"), ("f1", "old")];
        let moved = [("f1", "new")];
        assert_eq!(judged(&files, &moved, &both, &rename("f0", "f1")), Some(1));
        assert_eq!(judged(&files, &moved, &moved, &rename("f0", "f1")), Some(0));
        let torn = [("f0", "n"), ("f1", "old")];
        assert_eq!(judged(&files, &moved, &torn, &rename("f0", "f1")), None);
        assert_eq!(
            judged(&files, &moved, &[("f1", "old")], &rename("f0", "f1")),
            None
        );
        let other = [("f1", "new"), ("f2", "x")];
        assert_eq!(judged(&files, &other, &both, &rename("f0", "f1")), None);

        let put = Operation::Put {
            name: "f3".into(),
            size: 1,
            seed: 1,
        };
        assert_eq!(judged(&files, &[("f3", "")], &[], &put), Some(1));
        assert_eq!(judged(&files, &[("f3", "x")], &[], &put), None);
        assert_eq!(judged(&files, &[("f3", "x")], &[("f3", "y")], &put), None);
        assert_eq!(judged(&["f3"], &[("f3", "")], &[], &put), None);

        let delete = Operation::Delete { name: "f0".into() };
        assert_eq!(judged(&files, &moved, &both[..1], &delete), None);
        assert_eq!(
            judged(&files, &moved, &[("f0", ""), ("f1", "new")], &delete),
            Some(1)
        );
        let renamed = Operation::RenameDir {
            from: "d0".into(),
            to: "d1".into(),
        };
        assert_eq!(
            judged(&files, &[("d1/f0", "x")], &[("d0/f0", "x")], &renamed),
            Some(1)
        );
        assert_eq!(
            judged(&files, &[("d1/f0", "x")], &[("d0/f0", "y")], &renamed),
            None
        );
    }
}
