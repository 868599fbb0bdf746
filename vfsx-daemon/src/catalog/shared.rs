//! What the catalog's threads and its callers share.

use super::kept::{Kept, KeptBytes};
use super::reader::{Cache, Clones};
use super::share::Share;
use super::status::{SiteStatus, Status};
use crate::catalog::CatalogError;
use crate::catalog::store::{BehindRow, CursorRow, Key, LogRow, get};
use crate::trouble::Trouble;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use dr_replicator::Cursor;
use restfs_lib::kv::Kv;
use restfs_lib::model::BlockKey;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How soon a request is noticed that nobody will answer.
const LOOK_UP: Duration = Duration::from_millis(200);

pub(super) struct Shared {
    pub(super) kv: Box<dyn Kv>,
    pub(super) share: Share,
    pub(super) cache: Cache,
    pub(super) clones: Clones,
    pub(super) kept: Kept,
    pub(super) source: [u8; 16],
    /// Bytes read from the share's files since the start.
    pub(super) bytes_read: AtomicU64,
    /// Objects that wait to be read.
    unread: AtomicU64,
    /// Journal sequence that somebody waits for.
    hurry: AtomicU64,
    stopping: AtomicBool,
    /// No applier runs.
    ended: AtomicBool,
    now: Mutex<Now>,
    head: watch::Sender<u64>,
    progress: watch::Sender<u64>,
}

/// As of the last transaction.
#[derive(Default)]
pub(super) struct Now {
    pub(super) status: Status,
    /// By site. Written to the store with the next transaction: the site's own position wins after a restart.
    pub(super) cursors: BTreeMap<String, Cursor>,
    pub(super) cursors_changed: bool,
    /// Nothing waits to be read or looked at.
    pub(super) exact: bool,
    /// Sites get the changes up to this one.
    pub(super) shippable: u64,
    /// Of what is behind this one they get exact states only.
    pub(super) exact_after: Option<u64>,
    /// The site that is farthest ahead cannot be given an exact state.
    pub(super) cannot_follow: bool,
}

/// Where content comes from that sites do not have yet.
pub(super) struct Content {
    pub(super) cache: Cache,
    pub(super) clones: Clones,
    pub(super) kept: Kept,
}

impl Shared {
    pub(super) fn new(
        kv: Box<dyn Kv>,
        share: Share,
        Content { cache, clones, kept }: Content,
        source: [u8; 16],
        now: Now,
    ) -> Self {
        let (head, _) = watch::channel(now.shippable);
        let (progress, _) = watch::channel(0);
        Self {
            kv,
            share,
            cache,
            clones,
            kept,
            source,
            bytes_read: AtomicU64::new(0),
            unread: AtomicU64::new(now.status.dirty_objects),
            hurry: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(true),
            now: Mutex::new(now),
            head,
            progress,
        }
    }

    pub(super) fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A site that is behind another one does not keep that from exact states.
    pub(super) fn cannot_follow(&self, site: &str) {
        let mut now = self.now();
        let at = now.cursors.get(site).map_or(0, |cursor| cursor.sequence);
        now.cannot_follow |= now.cursors.values().all(|other| other.sequence <= at);
    }

    pub(super) fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether this is more than what was waited for before.
    pub(super) fn hurry(&self, journal: u64) -> bool {
        self.hurry.fetch_max(journal, Ordering::Relaxed) < journal
    }

    pub(super) fn hurry_to(&self) -> u64 {
        self.hurry.load(Ordering::Relaxed)
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    pub(super) fn bump_progress(&self) {
        self.progress.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// A transaction is done.
    pub(super) fn publish(&self, status: Status, exact: bool, shippable: u64, exact_after: Option<u64>) {
        self.unread.store(status.dirty_objects, Ordering::Relaxed);
        let freed = {
            let mut now = self.now();
            now.status = status;
            now.exact = exact;
            now.shippable = shippable;
            std::mem::replace(&mut now.exact_after, exact_after) != exact_after
        };
        self.release();
        self.head
            .send_if_modified(|old| std::mem::replace(old, shippable) != shippable || freed);
        self.bump_progress();
    }

    /// Keeps the content of blocks that changes name, as far as it is at hand, until every site has them.
    pub(super) fn keep(&self, named: &[(u64, BlockKey)]) {
        if named.is_empty() {
            return;
        }
        let Some((_, fastest)) = self.cursors() else {
            return;
        };
        for (change, key) in named {
            self.kept.put(*change, *key, self.cache.get(key));
        }
        // A site that is far behind makes no other lose its exact points.
        self.kept.make_room(fastest);
    }

    pub(super) fn kept_bytes(&self) -> KeptBytes {
        self.kept.bytes()
    }

    /// What every site has is not kept.
    fn release(&self) {
        match self.cursors() {
            Some((slowest, _)) => self.kept.release(slowest),
            None => self.kept.release(u64::MAX),
        }
    }

    /// The slowest and the fastest site's; `None`: no site has one.
    fn cursors(&self) -> Option<(u64, u64)> {
        let now = self.now();
        let all = || now.cursors.values().map(|cursor| cursor.sequence);
        Some((all().min()?, all().max()?))
    }

    /// Lets clones go that no site needs any more.
    pub(super) fn tidy_clones(&self) {
        let shipped = {
            let now = self.now();
            let head = now.status.head;
            let mut cursors = now.cursors.values();
            cursors.all(|cursor| cursor.epoch > 0 && cursor.sequence >= head)
        };
        self.clones.tidy(shipped);
    }

    /// Waits for an answer of the applier. A request that is still in its channel when it ends is answered by nobody, so
    /// this looks up now and then.
    pub(super) fn answer<T>(&self, answer: &Receiver<Result<T, CatalogError>>) -> Result<T, CatalogError> {
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            match answer.recv_timeout(LOOK_UP) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if !ended => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(CatalogError::Stopped);
                }
            }
        }
    }

    pub(super) fn started(&self) {
        self.ended.store(false, Ordering::Release);
    }

    /// The applier has ended; an error, unless it was told to.
    pub(super) fn ended(&self) {
        self.ended.store(true, Ordering::Release);
        if self.stopping() {
            return;
        }
        let text = "the catalog has ended by an internal error, which the log names; restart vfsxd";
        self.now().status.failed = Some(Trouble {
            full: false,
            why: text.to_owned(),
        });
        self.bump_progress();
    }

    pub(super) fn status(&self) -> Status {
        let mut status = self.now().status.clone();
        status.bytes_read = self.bytes_read.load(Ordering::Relaxed);
        let kept = self.kept_bytes();
        (status.kept_bytes, status.kept_dropped) = (kept.bytes, kept.dropped);
        status.kept_trouble = self.kept.trouble();
        status
    }

    pub(super) fn cursor(&self, site: &str) -> Option<Cursor> {
        self.now().cursors.get(site).copied()
    }

    /// Whether the cursor must be on disk before the site's task goes on: all but a step forward, which the site's own
    /// position would bring back after a crash.
    pub(super) fn set_cursor(&self, site: &str, cursor: Cursor) -> bool {
        let old = {
            let mut now = self.now();
            now.cursors_changed = true;
            now.cursors.insert(site.to_owned(), cursor)
        };
        self.bump_progress();
        cursor.epoch == 0 || old.is_none_or(|old| old.epoch != cursor.epoch || old.sequence > cursor.sequence)
    }

    /// How far a site is. The change after its cursor knows what was covered before it.
    pub(super) fn site(&self, site: &str) -> Result<Option<SiteStatus>, CatalogError> {
        // Before the log is read: what the status calls covered is in the log by then.
        let (cursor, status) = {
            let now = self.now();
            (now.cursors.get(site).copied(), now.status.clone())
        };
        let kv = self.kv.read()?;
        // Epoch 0: the trees are being compared, nothing is known to be in step.
        let Some(Cursor {
            epoch: epoch @ 1..,
            sequence,
        }) = cursor
        else {
            return Ok(None);
        };
        let mut found = SiteStatus {
            epoch,
            cursor: sequence,
            ..SiteStatus::default()
        };
        let head: super::store::HeadRow = get(&*kv, &Key::meta("head"))?.unwrap_or_default();
        if sequence >= head.change {
            found.journal = status.covered;
            found.oldest_unshipped_ns = status.oldest_dirty_ns;
            return Ok(Some(found));
        }
        found.pending_ops = head.change - sequence;
        let next = sequence.saturating_add(1);
        if next < head.oldest {
            let behind: Option<BehindRow> = get(&*kv, &Key::meta(&format!("behind/{site}")))?;
            // Of another place: the site was put back from a backup.
            if let Some(behind) = behind.filter(|behind| behind.sequence == next) {
                found.pending_bytes = head.bytes.saturating_sub(behind.bytes);
                found.oldest_unshipped_ns = Some(behind.oldest_ns);
            }
        } else if let Some(row) = get::<LogRow>(&*kv, &Key::Log(next))? {
            found.journal = row.covered;
            found.pending_bytes = head.bytes.saturating_sub(row.bytes);
            found.oldest_unshipped_ns = Some(row.oldest_ns);
        }
        Ok(Some(found))
    }
}

impl From<Cursor> for CursorRow {
    fn from(c: Cursor) -> Self {
        Self {
            epoch: c.epoch,
            sequence: c.sequence,
        }
    }
}

impl From<CursorRow> for Cursor {
    fn from(c: CursorRow) -> Self {
        Self {
            epoch: c.epoch,
            sequence: c.sequence,
        }
    }
}
