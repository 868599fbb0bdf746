//! Compares two directory trees completely: names, types, content, owner, mode, times, attributes, links.
//!
//! Whether a restored tree is what the share was is decided here, so it shares no code with the restore.

mod links;
mod node;
mod report;
#[cfg(test)]
mod tests;

pub use report::{Aspect, Difference, Report};

use links::LinkGroups;
use node::Node;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Options {
    /// Differences that are listed; all are counted.
    pub list_limit: usize,
    /// Attributes that are not looked at: what a security module of the kernel puts on files by itself, and how btrfs stores them.
    pub ignored_xattrs: Vec<OsString>,
    /// Whether a file of `b` may not take much more space on disk than that of `a`.
    pub sparseness: bool,
    /// Whether the two roots themselves are compared, not only what is in them.
    pub roots: bool,
}

impl Default for Options {
    fn default() -> Self {
        let ignored = [
            "security.selinux",
            "security.ima",
            "security.evm",
            "btrfs.compression",
        ];
        Self {
            list_limit: 100,
            ignored_xattrs: ignored.map(OsString::from).to_vec(),
            sparseness: true,
            roots: true,
        }
    }
}

/// Compares the trees below `a` and `b`. An error: a root is no directory or cannot be read. What cannot be read
/// further down is a difference. Needs root to see all attributes, and to leave access times alone.
pub fn compare(a: &Path, b: &Path, options: &Options) -> io::Result<Report> {
    let mut comparison = Comparison {
        a,
        b,
        options,
        report: Report::new(options.list_limit),
        links_a: LinkGroups::default(),
        links_b: LinkGroups::default(),
    };
    let roots = [Node::read(a)?, Node::read(b)?];
    if let Some((root, _)) = [a, b].iter().zip(&roots).find(|(_, node)| !node.is_directory()) {
        return Err(io::Error::other(format!("{} is no directory", root.display())));
    }
    if options.roots {
        comparison.nodes(Path::new(""), &roots[0], &roots[1]);
    }
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        comparison.directory(&directory, &mut directories);
    }
    comparison.links();
    Ok(comparison.report)
}

struct Comparison<'a> {
    a: &'a Path,
    b: &'a Path,
    options: &'a Options,
    report: Report,
    links_a: LinkGroups,
    links_b: LinkGroups,
}

impl Comparison<'_> {
    /// Compares what is in a directory of both trees; its directories go to `found`.
    fn directory(&mut self, path: &Path, found: &mut Vec<PathBuf>) {
        let (Some(a), Some(b)) = (self.names(self.a, path), self.names(self.b, path)) else {
            return;
        };
        for name in a.difference(&b) {
            self.report.add(&path.join(name), Aspect::OnlyA, String::new());
        }
        for name in b.difference(&a) {
            self.report.add(&path.join(name), Aspect::OnlyB, String::new());
        }
        for name in a.intersection(&b) {
            let path = path.join(name);
            let (Some(a), Some(b)) = (self.node(self.a, &path), self.node(self.b, &path)) else {
                continue;
            };
            self.nodes(&path, &a, &b);
            if a.is_directory() && b.is_directory() {
                found.push(path);
            }
        }
    }

    fn names(&mut self, root: &Path, path: &Path) -> Option<BTreeSet<OsString>> {
        let names = node::names(&root.join(path));
        self.readable(root, path, names)
    }

    fn node(&mut self, root: &Path, path: &Path) -> Option<Node> {
        let node = Node::read(&root.join(path));
        self.readable(root, path, node)
    }

    fn readable<T>(&mut self, root: &Path, path: &Path, result: io::Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                self.report
                    .add(path, Aspect::Unreadable, format!("{}: {error}", root.display()))
            })
            .ok()
    }

    fn nodes(&mut self, path: &Path, a: &Node, b: &Node) {
        self.report.count(a);
        self.links_a.add(path, a);
        self.links_b.add(path, b);
        if a.kind() != b.kind() {
            self.report
                .add(path, Aspect::Type, format!("{} / {}", a.kind(), b.kind()));
            return;
        }
        for (aspect, detail) in a.differences(b) {
            self.report.add(path, aspect, detail);
        }
        self.xattrs(path);
        if a.is_file() {
            self.content(path, a, b);
        } else if a.is_symlink() {
            self.target(path);
        }
    }

    fn xattrs(&mut self, path: &Path) {
        let ignored = &self.options.ignored_xattrs;
        let (a, b) = (
            node::xattrs(&self.a.join(path), ignored),
            node::xattrs(&self.b.join(path), ignored),
        );
        let (Some(a), Some(b)) = (self.readable(self.a, path, a), self.readable(self.b, path, b)) else {
            return;
        };
        let names: BTreeSet<&OsString> = a.keys().chain(b.keys()).collect();
        for name in names {
            let said = match (a.get(name), b.get(name)) {
                (Some(a), Some(b)) if a == b => continue,
                (Some(a), Some(b)) => format!("{} / {} bytes, not the same", a.len(), b.len()),
                (Some(_), None) => "only in a".to_owned(),
                (None, _) => "only in b".to_owned(),
            };
            self.report
                .add(path, Aspect::Xattr, format!("{}: {said}", name.display()));
        }
    }

    fn content(&mut self, path: &Path, a: &Node, b: &Node) {
        if self.options.sparseness && b.takes_much_more_than(a) {
            let detail = format!("{} / {} bytes allocated", a.allocated(), b.allocated());
            self.report.add(path, Aspect::Sparseness, detail);
        }
        if a.size() != b.size() {
            return;
        }
        match node::first_difference(&self.a.join(path), &self.b.join(path)) {
            Ok(None) => {}
            Ok(Some(offset)) => self
                .report
                .add(path, Aspect::Content, format!("from byte {offset}")),
            Err(error) => self.report.add(path, Aspect::Unreadable, error.to_string()),
        }
    }

    fn target(&mut self, path: &Path) {
        let (a, b) = (self.a.join(path).read_link(), self.b.join(path).read_link());
        let (Some(a), Some(b)) = (self.readable(self.a, path, a), self.readable(self.b, path, b)) else {
            return;
        };
        if a != b {
            self.report
                .add(path, Aspect::Target, format!("{} / {}", a.display(), b.display()));
        }
    }

    fn links(&mut self) {
        for (path, a, b) in self.links_a.differences(&self.links_b) {
            let said = |first: Option<&Path>| match first {
                Some(first) => format!("one file with {}", first.display()),
                None => "a file of its own".to_owned(),
            };
            self.report
                .add(path, Aspect::Links, format!("{} / {}", said(a), said(b)));
        }
    }
}
