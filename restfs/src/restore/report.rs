//! Counting what was restored, and what was not.

use super::{Progress, RestoreError};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Problems that are listed; all are counted.
const MAX_PROBLEMS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// From the bucket's root, undecodable bytes replaced.
    pub path: String,
    pub what: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    /// Fifos, sockets, devices.
    pub special: u64,
    /// Second and further names of files.
    pub hard_links: u64,
    /// Sizes of the files, holes included.
    pub bytes: u64,
    /// Content written: without holes.
    pub written_bytes: u64,
    /// All problems; 0: everything was restored as it was.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
}

/// What an object is counted as.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    File(u64),
    Directory,
    Symlink,
    Special,
    HardLink,
}

pub(super) struct Report<'a> {
    progress: &'a dyn Progress,
    summary: Mutex<Summary>,
    stopped: AtomicBool,
    error: Mutex<Option<RestoreError>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            summary: Mutex::default(),
            stopped: AtomicBool::new(false),
            error: Mutex::default(),
        }
    }

    pub(super) fn count(&self, counted: Counted) {
        let mut summary = lock(&self.summary);
        match counted {
            Counted::File(bytes) => {
                summary.files += 1;
                summary.bytes = summary.bytes.saturating_add(bytes);
            }
            Counted::Directory => summary.directories += 1,
            Counted::Symlink => summary.symlinks += 1,
            Counted::Special => summary.special += 1,
            Counted::HardLink => summary.hard_links += 1,
        }
        drop(summary);
        self.progress.advanced(1, 0);
    }

    pub(super) fn done_bytes(&self, bytes: u64) {
        self.progress.advanced(0, bytes);
    }

    pub(super) fn written(&self, bytes: u64) {
        lock(&self.summary).written_bytes += bytes;
    }

    pub(super) fn problem(&self, path: &[u8], what: String) {
        let mut summary = lock(&self.summary);
        summary.problem_count += 1;
        if summary.problems.len() < MAX_PROBLEMS {
            summary.problems.push(Problem {
                path: shown(path),
                what,
            });
        }
    }

    /// The first reason to stop is the one that is told.
    pub(super) fn stop(&self, error: RestoreError) {
        lock(&self.error).get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn finish(&self) -> Result<Summary, RestoreError> {
        match lock(&self.error).take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut lock(&self.summary))),
        }
    }
}

/// A path for people. Control characters in names must not reach a terminal.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let text: String = text
        .chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    if text.starts_with('/') {
        text
    } else {
        format!("/{text}")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
