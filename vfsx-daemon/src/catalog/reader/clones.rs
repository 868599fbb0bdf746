//! Copies of files as they were at one moment, where the file system makes them without copying (XFS, btrfs).
//!
//! A clone is a file without a name (`O_TMPFILE`) in the share's file system: no client sees it, no directory changes by it,
//! and it goes with its last handle, also when vfsxd is killed. While it is made, nobody writes to the file, and while it is
//! there, what clients write to the file takes new space: so it is made only when it is needed, not of files that take long
//! to be cloned, not when space is short, and it is not kept for long.

use crate::catalog::share::Share;
use lru::LruCache;
use restfs_lib::model::ObjectId;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    IFlags, Mode, OFlags, StatVfs, fstatvfs, ioctl_ficlone, ioctl_getflags, ioctl_setflags, openat,
};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A read that needs a clone is put off for so long at most; of a file that has to rest longer, whatever is there is read.
const PATIENCE: Duration = Duration::from_secs(2);
/// Files whose rest is remembered.
const RESTING: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Clones kept, for blocks that are shipped after they have left the cache.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).unwrap();
/// A clone is kept for so long at least: what was read of it is in the change log by then.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// And not longer, even if a site has not got everything.
const KEPT_MOST: Duration = Duration::from_secs(60);
/// Space is short when less than this part of the file system is free, or less than [`PLENTY`].
const RESERVE: u64 = 20;
const PLENTY: u64 = 8 << 30;
/// Devices that are remembered not to clone; one more is not even asked.
const DEVICES: usize = 1024;

pub(in crate::catalog) struct Clones {
    /// Of `Options::clone_rest`.
    rest: u32,
    /// The file system has to keep its space for something else.
    short: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Devices that cannot.
    cannot: HashSet<u64>,
    /// When a file may be cloned again, and how long it took the last time.
    resting: LruCache<ObjectId, (Instant, Duration)>,
    kept: LruCache<ObjectId, Kept>,
}

struct Kept {
    file: Arc<File>,
    since: Instant,
}

impl Clones {
    pub(in crate::catalog) fn new(rest: u32) -> Self {
        Self {
            rest,
            short: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                cannot: HashSet::new(),
                resting: LruCache::new(RESTING),
                kept: LruCache::new(KEPT),
            }),
        }
    }

    /// No clone is made as long as this is so, and none kept.
    pub(in crate::catalog) fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// Until when reading the file is to be put off, since it was cloned a moment ago for being written while it was read.
    pub(in crate::catalog) fn put_off(&self, object: ObjectId) -> Option<Instant> {
        let now = Instant::now();
        let (until, _) = self.lock().resting.peek(&object).copied()?;
        (until > now && until <= now + PATIENCE).then_some(until)
    }

    /// The file as it is at this moment. `None`: it is to be read as it is.
    pub(in crate::catalog) fn take(
        &self,
        share: &Share,
        object: ObjectId,
        device: u64,
        file: &File,
    ) -> Option<File> {
        if self.is_told_short() || !self.may(object, device) || is_short(file) {
            return None;
        }
        let begun = Instant::now();
        let made = make(share.root(), file);
        match made {
            Ok(_) => self.rest(object, begun.elapsed()),
            Err(e) if is_lasting(e) => {
                tracing::debug!("the file system of device {device:x} makes no clones: {e}");
                self.lock().cannot.insert(device);
            }
            // A quota, a file of a kind of its own: the next may do better.
            Err(e) => tracing::debug!("object {object} cannot be cloned: {e}"),
        }
        made.ok()
    }

    /// Keeps a clone until what was read of it has been shipped.
    pub(in crate::catalog) fn keep(&self, object: ObjectId, file: File) {
        let kept = Kept {
            file: Arc::new(file),
            since: Instant::now(),
        };
        // What it takes the place of is closed without the lock.
        let old = self.lock().kept.push(object, kept);
        drop(old);
    }

    pub(in crate::catalog) fn kept(&self, object: ObjectId) -> Option<Arc<File>> {
        self.lock().kept.peek(&object).map(|kept| Arc::clone(&kept.file))
    }

    /// Lets clones go. `shipped`: all sites have everything that is in the change log.
    pub(in crate::catalog) fn tidy(&self, shipped: bool) {
        let longest = match shipped {
            _ if self.is_told_short() => Duration::ZERO,
            true => KEPT_FOR,
            false => KEPT_MOST,
        };
        loop {
            // One after the other, each closed without the lock.
            let kept = self.lock().pop_older(longest);
            if kept.is_none() {
                return;
            }
        }
    }

    /// Whether the file could be cloned now, as far as known.
    pub(super) fn may(&self, object: ObjectId, device: u64) -> bool {
        let mut inner = self.lock();
        let rested = inner
            .resting
            .get(&object)
            .is_none_or(|(until, _)| *until <= Instant::now());
        rested && !inner.cannot.contains(&device) && inner.cannot.len() < DEVICES
    }

    fn is_told_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    fn rest(&self, object: ObjectId, took: Duration) {
        if took > Duration::from_secs(1) {
            tracing::info!("cloning object {object} took {} ms", took.as_millis());
        }
        let mut inner = self.lock();
        // Once it may be the disk that was slow, not the file.
        let counted = match inner.resting.peek(&object) {
            Some((_, before)) => took.min(*before),
            None => took.min(PATIENCE / self.rest.max(1)),
        };
        let until = Instant::now() + counted.saturating_mul(self.rest);
        inner.resting.put(object, (until, took));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn pop_older(&mut self, age: Duration) -> Option<Kept> {
        // Nothing is moved when it is looked at, so the oldest is the first.
        let (_, kept) = self.kept.peek_lru()?;
        if kept.since.elapsed() < age && !is_short(&*kept.file) {
            return None;
        }
        self.kept.pop_lru().map(|(_, kept)| kept)
    }
}

/// Whether clients may soon lack the space that a clone makes them need.
pub(super) fn is_short(file: impl AsFd) -> bool {
    // One that does not tell is not trusted.
    !fstatvfs(file).is_ok_and(|stat| has_plenty(&stat))
}

fn has_plenty(stat: &StatVfs) -> bool {
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let all = stat.f_blocks.saturating_mul(stat.f_frsize);
    free >= (all / RESERVE).min(PLENTY)
}

fn make(root: BorrowedFd<'_>, file: &File) -> rustix::io::Result<File> {
    // With EXCL it can never be given a name.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let clone = openat(root, c".", flags, Mode::RUSR | Mode::WUSR)?;
    match ioctl_ficlone(&clone, file) {
        Ok(()) => Ok(clone.into()),
        // btrfs clones a file without copy on write (databases, images of virtual machines) only into one of its kind.
        Err(Errno::INVAL) if ioctl_getflags(file)?.contains(IFlags::NOCOW) => {
            ioctl_setflags(&clone, ioctl_getflags(&clone)? | IFlags::NOCOW)?;
            ioctl_ficlone(&clone, file)?;
            Ok(clone.into())
        }
        Err(e) => Err(e),
    }
}

/// No file of this file system can be cloned, now and later.
fn is_lasting(error: Errno) -> bool {
    matches!(
        error,
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::NOSYS | Errno::ISDIR | Errno::ROFS
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A share in memory: there O_TMPFILE works, and cloning does not.
    fn share() -> (TempDir, Share, File) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let share = Share::open(dir.path()).unwrap();
        let mut both = File::options();
        let both = both.read(true).write(true).create_new(true);
        let file = both.open(dir.path().join("file")).unwrap();
        (dir, share, file)
    }

    #[test]
    fn a_file_system_that_cannot_is_asked_once() {
        let (_dir, share, file) = share();
        let clones = Clones::new(50);
        assert!(clones.may(ObjectId(1), 7));
        assert!(clones.take(&share, ObjectId(1), 7, &file).is_none());
        assert!(!clones.may(ObjectId(2), 7));
        assert!(
            clones.may(ObjectId(2), 8),
            "another device is another file system"
        );
    }

    #[test]
    fn a_file_that_takes_long_rests_long_and_its_reads_are_put_off_for_seconds_only() {
        let clones = Clones::new(50);
        let (before, took) = (Instant::now(), Duration::from_millis(30));
        clones.rest(ObjectId(1), took);
        assert!(!clones.may(ObjectId(1), 0));
        let until = clones.put_off(ObjectId(1)).unwrap();
        assert!(until >= before + took * 50);
        let slow = Duration::from_secs(1);
        clones.rest(ObjectId(2), slow);
        assert!(!clones.may(ObjectId(2), 0));
        assert!(clones.put_off(ObjectId(2)).is_some(), "once it may be the disk");
        clones.rest(ObjectId(2), slow);
        assert!(!clones.may(ObjectId(2), 0));
        assert_eq!(clones.put_off(ObjectId(2)), None);
        clones.rest(ObjectId(2), took);
        assert!(
            clones.put_off(ObjectId(2)).is_some(),
            "it does not take long any more"
        );
        assert_eq!(clones.put_off(ObjectId(3)), None);
        assert!(clones.may(ObjectId(3), 0));
    }

    #[test]
    fn only_so_many_clones_are_kept_and_not_for_ever() {
        let (_dir, _share, file) = share();
        let clones = Clones::new(50);
        for id in 1..=100 {
            clones.keep(ObjectId(id), file.try_clone().unwrap());
        }
        assert!(clones.kept(ObjectId(100)).is_some());
        assert!(clones.kept(ObjectId(100 - KEPT.get() as u64)).is_none());
        clones.tidy(true);
        assert!(
            clones.kept(ObjectId(100)).is_some(),
            "what was read of it may not be in the change log yet"
        );
        let age = |by| {
            for (_, kept) in clones.lock().kept.iter_mut() {
                kept.since = kept.since.checked_sub(by).unwrap();
            }
        };
        age(KEPT_FOR);
        clones.tidy(false);
        assert!(clones.kept(ObjectId(100)).is_some(), "a site still lacks it");
        clones.tidy(true);
        assert!(clones.kept(ObjectId(100)).is_none());
        clones.keep(ObjectId(1), file.try_clone().unwrap());
        age(KEPT_MOST);
        clones.tidy(false);
        assert!(clones.kept(ObjectId(1)).is_none());
        clones.keep(ObjectId(1), file.try_clone().unwrap());
        clones.set_short(true);
        clones.tidy(false);
        assert!(clones.kept(ObjectId(1)).is_none(), "the space is needed");
    }
}
