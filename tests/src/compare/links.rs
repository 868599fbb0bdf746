//! Which names of a tree are one file.

use super::node::Node;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

#[derive(Default)]
pub(super) struct LinkGroups {
    groups: HashMap<(u64, u64), BTreeSet<PathBuf>>,
    group_of: HashMap<PathBuf, (u64, u64)>,
}

impl LinkGroups {
    pub(super) fn add(&mut self, path: &Path, node: &Node) {
        if let Some(inode) = node.shared_inode() {
            self.groups.entry(inode).or_default().insert(path.to_owned());
            self.group_of.insert(path.to_owned(), inode);
        }
    }

    /// Names whose groups are not the same, each with another name of its group here and there.
    pub(super) fn differences<'a>(
        &'a self,
        other: &'a Self,
    ) -> Vec<(&'a Path, Option<&'a Path>, Option<&'a Path>)> {
        let names: BTreeSet<&PathBuf> = self.group_of.keys().chain(other.group_of.keys()).collect();
        let differs = |name: &&PathBuf| self.others(name).ne(other.others(name));
        let one = |name| (self.others(name).next(), other.others(name).next());
        names
            .into_iter()
            .filter(differs)
            .map(|name| (name.as_path(), one(name).0, one(name).1))
            .collect()
    }

    fn others<'a>(&'a self, name: &'a Path) -> impl Iterator<Item = &'a Path> {
        let group = self.group_of.get(name).and_then(|inode| self.groups.get(inode));
        group
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .filter(move |other| *other != name)
    }
}
