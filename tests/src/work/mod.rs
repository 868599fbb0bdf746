//! What people do on a share: a real tree copied in, a day's work on it, many small files.

mod behind;
mod changes;
mod lag;
mod random;
mod source;

pub use behind::{Behind, MARK, Marks, mark_at};
pub use changes::{Counts, work};
pub use lag::Lag;
pub use random::{Random, random_file};
pub use source::{SourceTree, Wanted};

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Files and directories beneath `root`, relative to it, sorted, without the root itself.
pub fn walk(root: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let full = root.join(&dir);
        for entry in fs::read_dir(&full).with_context(|| format!("list {}", full.display()))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                pending.push(path.clone());
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    dirs.sort();
    Ok((files, dirs))
}
