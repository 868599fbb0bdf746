//! Content of blocks that sites do not have yet, though the file may have changed since: what makes an exact point ship
//! as it was. First in memory, then in files, oldest first in both; what is over the bound is not kept.

use crate::trouble::Trouble;
use bytes::Bytes;
use restfs_lib::model::BlockKey;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes kept in memory.
const MEMORY: usize = 32 << 20;
/// A file is finished when it has this many, and removed when none of them is needed any more.
const FILE: u64 = 32 << 20;

pub(super) struct Kept {
    inner: Mutex<Inner>,
}

/// Numbers for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct KeptBytes {
    /// In memory and in files.
    pub(super) bytes: u64,
    /// Content that was not kept, for want of room or because it was not at hand; since the start.
    pub(super) dropped: u64,
}

struct Inner {
    directory: PathBuf,
    limit: u64,
    /// By the change that names it; a block may be there more than once.
    memory: VecDeque<(u64, BlockKey)>,
    files: VecDeque<KeptFile>,
    /// The newest place of each.
    places: HashMap<BlockKey, Place>,
    in_memory: usize,
    in_files: u64,
    next_file: u64,
    dropped: u64,
    /// Why the newest that was to go to a file could not.
    trouble: Option<Trouble>,
    /// The disk has to keep its space for something else: nothing is kept in files.
    short: bool,
}

struct Place {
    /// The newest change that names it.
    change: u64,
    content: Content,
}

enum Content {
    Memory(Bytes),
    File { number: u64, offset: u64, length: usize },
}

struct KeptFile {
    number: u64,
    path: PathBuf,
    file: File,
    length: u64,
    /// Newest change that names something in it.
    newest: u64,
    keys: Vec<BlockKey>,
}

impl Kept {
    /// `directory` is made when it is needed; what a run before has left there is removed.
    pub(super) fn new(directory: &Path, limit: u64) -> Self {
        // Leftovers cost space, no more; the next start tries again.
        let _ = std::fs::remove_dir_all(directory);
        Self {
            inner: Mutex::new(Inner {
                directory: directory.to_owned(),
                limit,
                memory: VecDeque::new(),
                files: VecDeque::new(),
                places: HashMap::new(),
                in_memory: 0,
                in_files: 0,
                next_file: 1,
                dropped: 0,
                trouble: None,
                short: false,
            }),
        }
    }

    /// Keeps what the change names. `None`: it is not at hand.
    pub(super) fn put(&self, change: u64, key: BlockKey, content: Option<Bytes>) {
        let mut inner = self.lock();
        match content {
            Some(content) => inner.put(change, key, content),
            None if inner.places.contains_key(&key) => inner.name_again(change, &key),
            None => inner.dropped += 1,
        }
    }

    pub(super) fn get(&self, key: &BlockKey) -> Option<Bytes> {
        let inner = self.lock();
        match &inner.places.get(key)?.content {
            Content::Memory(content) => Some(content.clone()),
            Content::File {
                number,
                offset,
                length,
            } => inner.read(*number, *offset, *length),
        }
    }

    /// Nobody needs what changes up to this one have named.
    pub(super) fn release(&self, change: u64) {
        self.lock().release(change);
    }

    /// When there is little room left: drops the oldest of what the site that is farthest ahead has already.
    pub(super) fn make_room(&self, fastest: u64) {
        let mut inner = self.lock();
        while inner.total() > inner.limit - inner.limit / 8 {
            match inner.oldest() {
                Some(oldest) if oldest <= fastest => inner.release(oldest),
                _ => return,
            }
        }
    }

    pub(super) fn bytes(&self) -> KeptBytes {
        let inner = self.lock();
        KeptBytes {
            bytes: inner.total(),
            dropped: inner.dropped,
        }
    }

    /// As long as this is so, what memory does not hold is not kept; what files hold is given up.
    pub(super) fn set_short(&self, short: bool) {
        let mut inner = self.lock();
        inner.short = short;
        while short && inner.drop_oldest_file() {}
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.lock().trouble.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn total(&self) -> u64 {
        self.in_files + self.in_memory as u64
    }

    /// Releasing up to this change makes room.
    fn oldest(&self) -> Option<u64> {
        let in_files = self.files.front().map(|file| file.newest);
        in_files.or_else(|| self.memory.front().map(|(change, _)| *change))
    }

    fn put(&mut self, change: u64, key: BlockKey, content: Bytes) {
        if self.places.contains_key(&key) {
            return self.name_again(change, &key);
        }
        if self.total() + content.len() as u64 > self.limit {
            self.dropped += 1;
            return;
        }
        self.in_memory += content.len();
        self.memory.push_back((change, key));
        let content = Content::Memory(content);
        self.places.insert(key, Place { change, content });
        while self.in_memory > MEMORY {
            if self.short {
                self.forget_oldest_in_memory();
                continue;
            }
            match self.spill() {
                Ok(()) => self.trouble = None,
                Err(e) => {
                    self.complain(&e);
                    self.forget_oldest_in_memory();
                }
            }
        }
    }

    /// A block that is kept already is needed for longer.
    fn name_again(&mut self, change: u64, key: &BlockKey) {
        let Some(place) = self.places.get_mut(key) else {
            return;
        };
        place.change = place.change.max(change);
        match place.content {
            Content::Memory(_) => {}
            Content::File { number, .. } => {
                if let Some(file) = self.files.iter_mut().find(|file| file.number == number) {
                    file.newest = file.newest.max(change);
                }
            }
        }
    }

    /// Brings the oldest block in memory into a file.
    fn spill(&mut self) -> io::Result<()> {
        let Some((_, key)) = self.memory.front().copied() else {
            return Err(Errno::NOENT.into());
        };
        let Some(Place {
            change,
            content: Content::Memory(content),
        }) = self.places.get(&key)
        else {
            self.memory.pop_front();
            return Ok(());
        };
        let (change, content) = (*change, content.clone());
        let file = self.open_file()?;
        file.file.write_all_at(&content, file.length)?;
        let place = Content::File {
            number: file.number,
            offset: file.length,
            length: content.len(),
        };
        file.length += content.len() as u64;
        file.newest = file.newest.max(change);
        file.keys.push(key);
        self.in_files += content.len() as u64;
        self.in_memory -= content.len();
        self.memory.pop_front();
        self.places.insert(
            key,
            Place {
                change,
                content: place,
            },
        );
        Ok(())
    }

    fn open_file(&mut self) -> io::Result<&mut KeptFile> {
        if self.files.back().is_none_or(|file| file.length >= FILE) {
            let number = self.next_file;
            let made = DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(&self.directory);
            made?;
            let path = self.directory.join(number.to_string());
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            self.next_file += 1;
            self.files.push_back(KeptFile {
                number,
                path,
                file,
                length: 0,
                newest: 0,
                keys: Vec::new(),
            });
        }
        self.files.back_mut().ok_or_else(|| Errno::NOENT.into())
    }

    fn read(&self, number: u64, offset: u64, length: usize) -> Option<Bytes> {
        let file = self.files.iter().find(|file| file.number == number)?;
        let mut content = vec![0; length];
        match file.file.read_exact_at(&mut content, offset) {
            Ok(()) => Some(Bytes::from(content)),
            Err(e) => {
                tracing::warn!(path = %file.path.display(), "a kept block cannot be read: {e}");
                None
            }
        }
    }

    fn release(&mut self, change: u64) {
        while self.files.front().is_some_and(|file| file.newest <= change) {
            self.remove_oldest_file();
        }
        while let Some((first, key)) = self.memory.front().copied() {
            if first > change {
                break;
            }
            // One that is named again moves to where the later change belongs.
            let later = self
                .places
                .get(&key)
                .map(|place| place.change)
                .filter(|later| *later > change);
            self.memory.pop_front();
            match later {
                Some(later) => {
                    let at = self.memory.partition_point(|(other, _)| *other <= later);
                    self.memory.insert(at, (later, key));
                }
                None => self.forget(&key),
            }
        }
        if self.total() == 0 {
            self.trouble = None;
        }
    }

    /// How many blocks were in it.
    fn remove_oldest_file(&mut self) -> Option<usize> {
        let file = self.files.pop_front()?;
        self.in_files -= file.length;
        for key in &file.keys {
            let here = |place: &Place| matches!(place.content, Content::File { number, .. } if number == file.number);
            if self.places.get(key).is_some_and(here) {
                self.places.remove(key);
            }
        }
        // What cannot be removed now is with the next start.
        let _ = std::fs::remove_file(&file.path);
        Some(file.keys.len())
    }

    /// Though it is needed. False: there is none.
    fn drop_oldest_file(&mut self) -> bool {
        let blocks = self.remove_oldest_file();
        self.dropped += blocks.unwrap_or_default() as u64;
        blocks.is_some()
    }

    fn forget_oldest_in_memory(&mut self) {
        if let Some((_, key)) = self.memory.pop_front() {
            self.dropped += 1;
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &BlockKey) {
        if let Some(Place {
            content: Content::Memory(content),
            ..
        }) = self.places.remove(key)
        {
            self.in_memory -= content.len();
        }
    }

    fn complain(&mut self, error: &io::Error) {
        let path = self.directory.display();
        if self.trouble.is_none() {
            tracing::error!(%path, "blocks for sites that are behind cannot be kept, so points may be fuzzy: {error}");
        }
        self.trouble = Some(Trouble::of(error, format!("cannot write below {path}: {error}")));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = std::fs::remove_file(&file.path);
        }
        let _ = std::fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: usize = 1 << 20;

    fn key(n: u8) -> BlockKey {
        BlockKey([n; 32])
    }

    fn content(n: u8) -> Bytes {
        Bytes::from(vec![n; BLOCK])
    }

    fn kept(limit: usize) -> (tempfile::TempDir, Kept) {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(&dir.path().join("kept"), (limit * BLOCK) as u64);
        (dir, kept)
    }

    fn files(dir: &tempfile::TempDir) -> usize {
        std::fs::read_dir(dir.path().join("kept")).map_or(0, |entries| entries.count())
    }

    #[test]
    fn what_does_not_fit_in_memory_is_in_files_until_it_is_released() {
        let (dir, kept) = kept(200);
        for n in 0..150u8 {
            kept.put(n.into(), key(n), Some(content(n)));
        }
        assert!(files(&dir) >= 3);
        for n in 0..150u8 {
            assert_eq!(kept.get(&key(n)), Some(content(n)), "{n}");
        }
        kept.release(100);
        assert_eq!(kept.get(&key(20)), None);
        assert_eq!(kept.get(&key(101)), Some(content(101)));
        kept.release(149);
        assert_eq!((kept.bytes().bytes, files(&dir)), (0, 0));
    }

    #[test]
    fn over_the_bound_the_newest_is_not_kept_and_that_is_counted() {
        let (_dir, kept) = kept(3);
        for n in 0..5u8 {
            kept.put(n.into(), key(n), Some(content(n)));
        }
        assert_eq!(kept.bytes().dropped, 2);
        assert!(kept.get(&key(2)).is_some() && kept.get(&key(3)).is_none());
        kept.release(0);
        kept.put(7, key(7), Some(content(7)));
        assert!(kept.get(&key(7)).is_some());
    }

    #[test]
    fn a_site_that_is_far_behind_costs_another_nothing() {
        let (_dir, kept) = kept(100);
        for n in 0..120u8 {
            kept.put(n.into(), key(n), Some(content(n)));
            kept.make_room(u64::from(n).saturating_sub(10));
        }
        assert_eq!(kept.bytes().dropped, 0);
        assert!(kept.get(&key(115)).is_some() && kept.get(&key(0)).is_none());
        // Without one that is ahead everything stays.
        let before = kept.bytes().bytes;
        kept.make_room(0);
        assert_eq!(kept.bytes().bytes, before);
    }

    #[test]
    fn a_directory_that_cannot_be_made_costs_content_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let kept = Kept::new(&dir.path().join("file/kept"), u64::MAX);
        for n in 0..100u8 {
            kept.put(n.into(), key(n), Some(content(n)));
        }
        assert!(kept.bytes().bytes <= MEMORY as u64 && kept.bytes().dropped > 0);
        assert_eq!(kept.get(&key(99)), Some(content(99)));
        let why = kept.trouble().map(|trouble| (trouble.full, trouble.why));
        assert!(
            matches!(&why, Some((false, text)) if text.contains("file/kept")),
            "{why:?}"
        );
        kept.release(100);
        assert_eq!(kept.trouble(), None, "nothing is to be kept any more");
    }

    #[test]
    fn with_little_room_on_the_disk_what_memory_holds_is_kept_and_nothing_else() {
        let (dir, kept) = kept(200);
        for n in 0..100u8 {
            kept.put(n.into(), key(n), Some(content(n)));
        }
        assert!(files(&dir) > 0);
        kept.set_short(true);
        assert_eq!(files(&dir), 0, "the space is given back");
        let in_memory = (MEMORY / BLOCK) as u64;
        let bytes = kept.bytes();
        assert_eq!((bytes.bytes, bytes.dropped), (MEMORY as u64, 100 - in_memory));
        kept.put(100, key(100), Some(content(100)));
        assert_eq!(files(&dir), 0);
        assert!(kept.get(&key(99)).is_some() && kept.get(&key(100)).is_some() && kept.get(&key(0)).is_none());
        kept.set_short(false);
        kept.put(101, key(101), Some(content(101)));
        assert_eq!(files(&dir), 1, "there is room again");
    }

    #[test]
    fn what_a_run_before_has_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("1"), b"old").unwrap();
        drop(Kept::new(&path, 1));
        assert!(!path.exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Against a map: what was put for a change that is not released is there.
        #[test]
        fn what_a_site_may_ask_for_is_there(steps in proptest::collection::vec((0u8..60, 0u64..40), 1..150)) {
            let (_dir, kept) = kept(1000);
            let mut model: HashMap<u8, u64> = HashMap::new();
            let (mut change, mut released) = (0u64, 0);
            for (n, back) in steps {
                change += 1;
                kept.put(change, key(n), Some(content(n)));
                model.insert(n, change);
                if n % 10 == 0 {
                    released = released.max(change.saturating_sub(back));
                    kept.release(released);
                }
                for (n, named) in &model {
                    if *named > released {
                        prop_assert_eq!(kept.get(&key(*n)).map(|c| c[0]), Some(*n));
                    }
                }
            }
            kept.release(change);
            prop_assert_eq!(kept.bytes().bytes, 0);
        }
    }
}
