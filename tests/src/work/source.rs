//! A real tree to copy in: files of this machine's system, mixed sizes, chosen the same way every time.

use super::random;
use crate::lab::Lab;
use crate::smb::SmbClient;
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ROOTS: [&str; 3] = ["/usr/include", "/usr/lib", "/usr/share"];
/// What counts as large; the rest are what offices and source trees are full of.
const LARGE: u64 = 1 << 20;
/// Larger files add time and nothing that smaller ones do not show.
const LARGEST: u64 = 48 << 20;
/// Neighbouring files taken together, so that directories have more than one file.
const RUN: usize = 40;
/// Size of the files that stand in where the machine has too little.
const GENERATED: u64 = 8 << 20;

#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub files: usize,
    pub bytes: u64,
    /// Directories the tree is split into, one for each client that copies.
    pub parts: usize,
}

/// A tree on local disk: `dir/part-0`, `dir/part-1`, ...
#[derive(Debug, Clone)]
pub struct SourceTree {
    pub dir: PathBuf,
    pub parts: Vec<String>,
    pub files: u64,
    pub bytes: u64,
}

impl SourceTree {
    /// Copies at least `wanted` files and bytes of this machine to `dir`; generates what the machine lacks.
    pub fn make(dir: &Path, wanted: Wanted) -> Result<Self> {
        let parts: Vec<_> = (0..wanted.parts).map(|part| format!("part-{part}")).collect();
        for part in &parts {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("create {}", dir.display()))?;
        }
        let mut tree = Self {
            dir: dir.to_owned(),
            parts,
            files: 0,
            bytes: 0,
        };
        let (small, large) = candidates()?;
        for run in spread(&small, wanted.files) {
            tree.take(run)?;
        }
        for file in large.chunks(1) {
            if tree.bytes >= wanted.bytes {
                break;
            }
            tree.take(file)?;
        }
        tree.generate(wanted)?;
        Ok(tree)
    }

    /// Copies the tree to a share of the lab by real clients, one for each part, all at once.
    pub fn copy_in(&self, lab: &Lab, share: &str) -> Result<()> {
        let copy_part = |part: &String| {
            let client = SmbClient::new(lab, share);
            client.run(&[format!("mkdir {part}")])?;
            client.put_tree(&self.dir.join(part), part)
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = self
                .parts
                .iter()
                .map(|part| scope.spawn(move || copy_part(part)))
                .collect();
            let results = clients
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")));
            results.collect()
        })
    }

    /// Copies files of one neighbourhood into one part.
    fn take(&mut self, run: &[PathBuf]) -> Result<()> {
        let number = self.files as usize / RUN;
        let part = self
            .parts
            .get(number % self.parts.len())
            .context("a tree has parts")?;
        for file in run {
            let target = self.dir.join(part).join(file.strip_prefix("/usr")?);
            fs::create_dir_all(target.parent().context("a file has a directory")?)?;
            self.bytes += fs::copy(file, &target).with_context(|| format!("copy {}", file.display()))?;
            self.files += 1;
        }
        Ok(())
    }

    fn generate(&mut self, wanted: Wanted) -> Result<()> {
        let mut number = 0;
        while self.files < wanted.files as u64 || self.bytes < wanted.bytes {
            let size = if self.bytes < wanted.bytes {
                GENERATED
            } else {
                number % 5000
            };
            let part = self
                .parts
                .get(number as usize % self.parts.len())
                .context("a tree has parts")?;
            random::random_file(
                &self.dir.join(part).join(format!("generated-{number}")),
                size,
                number,
            )?;
            self.files += 1;
            self.bytes += size;
            number += 1;
        }
        Ok(())
    }
}

/// Small and large files of the system that an SMB client can store under their own names, in order of their paths.
fn candidates() -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut small, mut large) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for root in ROOTS.iter().map(Path::new).filter(|root| root.is_dir()) {
        let (files, _) = super::walk(root)?;
        for file in files.into_iter().map(|file| root.join(file)) {
            let Some(text) = file.to_str().filter(|text| storable(text)) else {
                continue;
            };
            let Ok(metadata) = fs::symlink_metadata(&file) else {
                continue;
            };
            // Clients see one file where names differ by case only.
            if !metadata.is_file() || metadata.size() > LARGEST || !seen.insert(text.to_lowercase()) {
                continue;
            }
            if metadata.size() < LARGE {
                small.push(file)
            } else {
                large.push(file)
            }
        }
    }
    Ok((small, large))
}

/// Names that need no translation on the way through SMB.
fn storable(path: &str) -> bool {
    const REFUSED: [char; 9] = ['"', '\\', '*', '?', '<', '>', '|', ':', ';'];
    let plain = !path.contains(|c: char| REFUSED.contains(&c) || c.is_control());
    plain && path.len() < 200 && path.split('/').all(|name| !name.ends_with(['.', ' ']))
}

/// Runs of neighbours, evenly spread over `files`, together at least `count` where there are that many.
fn spread(files: &[PathBuf], count: usize) -> Vec<&[PathBuf]> {
    let runs: Vec<_> = files.chunks(RUN).collect();
    let wanted = count.div_ceil(RUN).min(runs.len());
    (0..wanted)
        .filter_map(|number| runs.get(number * runs.len() / wanted).copied())
        .collect()
}
