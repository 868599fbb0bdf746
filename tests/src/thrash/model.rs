//! What one client knows of its own directory: what it did, and what smbd told it.

use crate::work::Random;
use std::collections::{BTreeMap, BTreeSet};

/// Names that a client works on. Few, so that most operations meet what earlier ones left.
const NAMES: u64 = 5;
const DIRS: [&str; 2] = ["d0", "d1"];
/// Sizes about the ends of blocks (64 KiB), and small ones.
const SIZES: [u64; 8] = [0, 1, 1000, 4096, 65_535, 65_536, 65_537, 200_000];
/// Where writes into a file begin.
const OFFSETS: [u64; 6] = [0, 1, 5_000, 65_536, 100_000, 150_000];

/// Something that a client does, in one or several requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// New content in place of all that was there.
    Put {
        name: String,
        size: u64,
        seed: u64,
    },
    Patch {
        name: String,
        offset: u64,
        size: u64,
        seed: u64,
    },
    Truncate {
        name: String,
        size: u64,
    },
    /// Over what the new name led to.
    Rename {
        from: String,
        to: String,
    },
    Delete {
        name: String,
    },
    MakeDir {
        name: String,
    },
    RenameDir {
        from: String,
        to: String,
    },
    /// Into the file that the client keeps open.
    Held {
        offset: u64,
        size: u64,
        seed: u64,
    },
    /// A number that grows, into a file that is closed at once: shows from outside how far the client was.
    Mark {
        number: u64,
    },
}

/// The file that stays open.
pub(super) const HELD: &str = "held";
/// The file with the mark.
pub(super) const MARK: &str = "mark";

impl Operation {
    /// Number `number` of a client's operations: the same for the same seed.
    pub(super) fn new(seed: u64, client: u64, number: u64) -> Self {
        let mut random = Random(seed ^ (client << 48) ^ (number << 16));
        let own = random.next();
        let pick = |random: &mut Random, from: &[u64]| {
            let at = random.below(from.len() as u64) as usize;
            from.get(at).copied().unwrap_or_default()
        };
        match random.below(20) {
            0..=5 => Self::Put {
                name: file(&mut random),
                size: pick(&mut random, &SIZES),
                seed: own,
            },
            6..=8 => Self::Patch {
                name: file(&mut random),
                offset: pick(&mut random, &OFFSETS),
                size: 1 + random.below(70_000),
                seed: own,
            },
            9 => Self::Truncate {
                name: file(&mut random),
                size: pick(&mut random, &SIZES),
            },
            10..=12 => Self::Rename {
                from: file(&mut random),
                to: file(&mut random),
            },
            13 => Self::Delete {
                name: file(&mut random),
            },
            14..=15 => Self::MakeDir {
                name: dir(&mut random),
            },
            16 => Self::RenameDir {
                from: dir(&mut random),
                to: dir(&mut random),
            },
            17 => Self::Mark { number },
            _ => Self::Held {
                offset: pick(&mut random, &OFFSETS),
                size: 1 + random.below(20_000),
                seed: own,
            },
        }
    }

    /// What may have changed when nobody knows how far it came: names, and what is beneath them.
    pub(super) fn touched(&self) -> Vec<&str> {
        match self {
            Self::Put { name, .. }
            | Self::Patch { name, .. }
            | Self::Truncate { name, .. }
            | Self::Delete { name }
            | Self::MakeDir { name } => vec![name],
            Self::Rename { from, to } | Self::RenameDir { from, to } => vec![from, to],
            Self::Held { .. } => vec![HELD],
            Self::Mark { .. } => vec![MARK],
        }
    }
}

fn file(random: &mut Random) -> String {
    let name = format!("f{}", random.below(NAMES));
    match random.below(2) {
        0 => name,
        _ => format!("{}/{name}", dir(random)),
    }
}

fn dir(random: &mut Random) -> String {
    let at = random.below(DIRS.len() as u64) as usize;
    DIRS.get(at).copied().unwrap_or_default().to_owned()
}

/// A directory's files with their content, and its directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) dirs: BTreeSet<String>,
}

impl Tree {
    /// Whether smbd will do it.
    pub(super) fn allows(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Put { name, .. } => self.has_parent(name),
            Operation::Patch { name, .. } | Operation::Truncate { name, .. } | Operation::Delete { name } => {
                self.files.contains_key(name)
            }
            Operation::Rename { from, to } => {
                self.files.contains_key(from) && from != to && self.has_parent(to)
            }
            Operation::MakeDir { name } => !self.dirs.contains(name),
            Operation::RenameDir { from, to } => self.dirs.contains(from) && !self.dirs.contains(to),
            Operation::Held { .. } | Operation::Mark { .. } => true,
        }
    }

    /// Does it, when it is allowed.
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Put { name, size, seed } => {
                let content = Random(*seed).bytes(*size as usize);
                self.files.insert(name.clone(), content);
            }
            Operation::Patch {
                name,
                offset,
                size,
                seed,
            } => self.write(name, *offset, *size, *seed),
            Operation::Held { offset, size, seed } => self.write(HELD, *offset, *size, *seed),
            Operation::Mark { number } => {
                self.files.insert(MARK.to_owned(), number.to_le_bytes().to_vec());
            }
            Operation::Truncate { name, size } => {
                self.files
                    .entry(name.clone())
                    .or_default()
                    .resize(*size as usize, 0);
            }
            Operation::Rename { from, to } => {
                if let Some(content) = self.files.remove(from) {
                    self.files.insert(to.clone(), content);
                }
            }
            Operation::Delete { name } => drop(self.files.remove(name)),
            Operation::MakeDir { name } => drop(self.dirs.insert(name.clone())),
            Operation::RenameDir { from, to } => self.rename_dir(from, to),
        }
    }

    fn write(&mut self, name: &str, offset: u64, size: u64, seed: u64) {
        let content = self.files.entry(name.to_owned()).or_default();
        let (begin, end) = (offset as usize, (offset + size) as usize);
        content.resize(content.len().max(end), 0);
        if let Some(part) = content.get_mut(begin..end) {
            part.copy_from_slice(&Random(seed).bytes(size as usize));
        }
    }

    fn rename_dir(&mut self, from: &str, to: &str) {
        self.dirs.remove(from);
        self.dirs.insert(to.to_owned());
        let files = std::mem::take(&mut self.files);
        let renamed = files
            .into_iter()
            .map(|(name, content)| match name.strip_prefix(from) {
                Some(rest) if rest.starts_with('/') => (format!("{to}{rest}"), content),
                _ => (name, content),
            });
        self.files = renamed.collect();
    }

    fn has_parent(&self, name: &str) -> bool {
        name.split_once('/')
            .is_none_or(|(dir, _)| self.dirs.contains(dir))
    }

    /// What is wrong with `found`, which is what is there after `operation` was begun and its end not heard of. What it does not
    /// touch is as before; what it touches is as before, or as after it, or, byte by byte, partly the one and partly the other.
    pub(super) fn contradicts(&self, operation: &Operation, found: &Self) -> Option<String> {
        let mut after = self.clone();
        after.apply(operation);
        let touched = operation.touched();
        let is_touched = |name: &str| touched.iter().any(|of| is_beneath(name, of));
        let all = [self, &after, found];
        let files: BTreeSet<_> = all.iter().flat_map(|tree| tree.files.keys()).collect();
        for name in files {
            let [old, new, is] = all.map(|tree| tree.files.get(name));
            let may_be = is == old || (is_touched(name) && (is == new || is_mixed(old, new, is)));
            if !may_be {
                return Some(format!("{name}: {}, was {}", told(is), told(old)));
            }
        }
        let dirs: BTreeSet<_> = all.iter().flat_map(|tree| &tree.dirs).collect();
        let wrong = dirs.into_iter().find(|name| {
            let [old, _, is] = all.map(|tree| tree.dirs.contains(*name));
            is != old && !is_touched(name)
        });
        wrong.map(|name| format!("directory {name}"))
    }
}

/// Whether `name` is `of`, or in the directory `of`.
fn is_beneath(name: &str, of: &str) -> bool {
    name.strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A write that was ended in the middle. A file that was made or cut, and not yet written, is empty or has zeros.
fn is_mixed(old: Option<&Vec<u8>>, new: Option<&Vec<u8>>, is: Option<&Vec<u8>>) -> bool {
    let (Some(new), Some(is)) = (new, is) else {
        return false;
    };
    let none = Vec::new();
    let old = old.unwrap_or(&none);
    let is_one =
        |(at, byte): (usize, &u8)| *byte == 0 || Some(byte) == old.get(at) || Some(byte) == new.get(at);
    is.len() <= old.len().max(new.len()) && is.iter().enumerate().all(is_one)
}

fn told(content: Option<&Vec<u8>>) -> String {
    content.map_or_else(
        || "not there".to_owned(),
        |content| format!("{} bytes", content.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        for number in 0..200 {
            let operation = Operation::new(1, 0, number);
            if tree.allows(&operation) {
                tree.apply(&operation);
            }
        }
        tree
    }

    #[test]
    fn operations_are_the_seeds_and_most_are_possible() {
        assert_eq!(Operation::new(1, 2, 3), Operation::new(1, 2, 3));
        assert_ne!(Operation::new(1, 2, 3), Operation::new(1, 3, 3));
        let tree = tree();
        let possible = (0..200).filter(|n| tree.allows(&Operation::new(2, 0, *n)));
        assert!(possible.count() > 100);
        assert!(tree.files.len() > 3 && !tree.dirs.is_empty());
    }

    #[test]
    fn half_a_write_is_taken_and_a_lost_one_of_another_file_is_not() {
        let (name, old, seed) = ("f0".to_owned(), vec![7; 1000], 5);
        let before = Tree {
            files: [(name.clone(), old), ("f1".into(), vec![1])].into(),
            dirs: BTreeSet::new(),
        };
        let operation = Operation::Patch {
            name: name.clone(),
            offset: 500,
            size: 1000,
            seed,
        };
        let mut after = before.clone();
        after.apply(&operation);
        let mut half = before.clone();
        let part = after.files[&name][..1200].to_vec();
        assert_eq!(before.contradicts(&operation, &before), None);
        assert_eq!(before.contradicts(&operation, &after), None);
        half.files.insert(name.clone(), part);
        assert_eq!(before.contradicts(&operation, &half), None);
        let mut wrong = after.clone();
        wrong.files.insert("f1".into(), vec![2]);
        assert!(before.contradicts(&operation, &wrong).is_some());
        let mut wrong = after.clone();
        wrong.files.get_mut(&name).unwrap()[0] = 9;
        assert!(before.contradicts(&operation, &wrong).is_some());
        let mut wrong = after;
        wrong.files.remove(&name);
        assert!(before.contradicts(&operation, &wrong).is_some());
    }

    #[test]
    fn a_renamed_directory_takes_its_files_along() {
        let mut tree = Tree {
            files: [("d0/f1".into(), vec![1]), ("f1".into(), vec![2])].into(),
            dirs: ["d0".to_owned()].into(),
        };
        tree.apply(&Operation::RenameDir {
            from: "d0".into(),
            to: "d1".into(),
        });
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["d1/f1", "f1"]);
        assert!(tree.dirs.contains("d1") && !tree.dirs.contains("d0"));
    }
}
