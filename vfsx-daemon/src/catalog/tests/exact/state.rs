//! What a share is at one moment, read from its files or from a catalog.

use super::super::rig::{BLOCK, join};
use crate::catalog::store::{EndRow, Key, LogRow, Prefix, page};
use restfs_lib::content::hash_block;
use restfs_lib::kv::KvRead;
use restfs_lib::model::{BucketId, HashAlgorithm, Kind, ObjectId};
use restfs_lib::tree::Tree;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Path -> what is there. Times are left out: those of what is changing are known only about.
pub(super) type State = BTreeMap<String, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) is_dir: bool,
    pub(super) mode: u32,
    pub(super) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) size: u64,
    /// Keys of blocks; `None` for zeros and holes.
    pub(super) blocks: Vec<Option<[u8; 32]>>,
}

pub(super) fn last_mark(kv: &dyn KvRead) -> u64 {
    let rows = page::<LogRow>(kv, Prefix::Log, &[], None, usize::MAX >> 1).unwrap();
    let last = rows.iter().rfind(|(_, row)| row.end == EndRow::Exact);
    match last {
        Some((Key::Log(change), _)) => *change,
        _ => 0,
    }
}

pub(super) fn differences(a: &State, b: &State) -> String {
    let all: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let lines = all.into_iter().filter(|path| a.get(*path) != b.get(*path));
    let text = |entry: Option<&Entry>| {
        entry.map_or("-".to_owned(), |e| {
            let blocks: Vec<_> = e
                .blocks
                .iter()
                .map(|b| b.map_or("0".to_owned(), |k| format!("{:02x}{:02x}", k[0], k[1])))
                .collect();
            format!(
                "{} {:o} {} {:?} {blocks:?}",
                e.is_dir, e.mode, e.size, e.attributes
            )
        })
    };
    lines
        .map(|path| {
            format!(
                "{path}: marked {}, was {}\n",
                text(a.get(path)),
                text(b.get(path))
            )
        })
        .collect()
}

/// A directory on disk.
pub(super) fn state_of(root: &Path) -> State {
    let mut state = State::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = join(&dir, &name);
            let full = root.join(&path);
            let meta = full.symlink_metadata().unwrap();
            let content = if meta.is_dir() {
                Vec::new()
            } else {
                fs::read(&full).unwrap()
            };
            if meta.is_dir() {
                todo.push(path.clone());
            }
            let entry = Entry {
                is_dir: meta.is_dir(),
                mode: meta.mode() & 0o7777,
                attributes: xattrs(&full),
                size: content.len() as u64,
                blocks: content.chunks(BLOCK as usize).map(key_of).collect(),
            };
            state.insert(path, entry);
        }
    }
    state
}

pub(super) fn key_of(block: &[u8]) -> Option<[u8; 32]> {
    let zeros = block.iter().all(|b| *b == 0);
    (!zeros).then(|| hash_block(block, HashAlgorithm::Blake3).key.0)
}

/// A tree of the store.
pub(super) fn state_in(kv: &dyn KvRead, bucket: BucketId) -> State {
    let tree = Tree::head(kv, bucket);
    let mut state = State::new();
    let mut todo = vec![(ObjectId::ROOT, String::new())];
    while let Some((dir, path)) = todo.pop() {
        for (name, id) in tree.entries(dir, None, 1000).unwrap() {
            let path = join(&path, std::str::from_utf8(&name).unwrap());
            let (object, _) = tree.object(id).unwrap().expect("an object with a name");
            if object.kind == Kind::Directory {
                todo.push((id, path.clone()));
            }
            let mut blocks: Vec<Option<[u8; 32]>> = vec![None; object.layout.blocks_in(object.size) as usize];
            for (segment, row, _) in tree.segments(id, 0, 1000).unwrap() {
                for (position, block, _) in row.blocks {
                    let index = object.layout.block_at(segment, position);
                    let zeros = vec![0; block.length as usize];
                    let is_zero = hash_block(&zeros, HashAlgorithm::Blake3).key == block.key;
                    let length = object.layout.expected_length(index, object.size);
                    assert_eq!(block.length, length, "length of block {index} of {path}");
                    blocks[index as usize] = (!is_zero).then_some(block.key.0);
                }
            }
            let entry = Entry {
                is_dir: object.kind == Kind::Directory,
                mode: object.mode,
                attributes: tree.attributes(id).unwrap().into_iter().collect(),
                size: object.size,
                blocks,
            };
            state.insert(path, entry);
        }
    }
    state
}

pub(super) fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut value = vec![0; 1024];
    match rustix::fs::getxattr(path, "user.x", &mut value[..]) {
        Ok(length) => BTreeMap::from([(b"user.x".to_vec(), value[..length].to_vec())]),
        Err(_) => BTreeMap::new(),
    }
}
