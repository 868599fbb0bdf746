//! The tree connects of this process that are captured.
//!
//! C memory (handles, file extensions, requests) refers to a share by its key, never by pointer: what outlives the tree connect
//! finds nothing.

use super::event_loop::Watch;
use crate::hooks::Capture;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Share {
    pub(super) capture: Capture,
    pub(super) watch: Watch,
}

thread_local! {
    // Never dropped: smbd may free connections after this thread's other values are gone.
    // Looked into several times in each call, and there are few: an ordered map is quicker than a hash.
    static SHARES: ManuallyDrop<RefCell<BTreeMap<u64, Share>>> = ManuallyDrop::default();
    static LAST_KEY: Cell<u64> = const { Cell::new(0) };
}

/// Clients wait on one of them, or did: all that the others' closes cost. Of the main thread, like the shares: a thread's own memory takes
/// a call each time.
static WAITS: AtomicBool = AtomicBool::new(false);

/// Never 0, never used twice.
pub(super) fn new_key() -> u64 {
    LAST_KEY.with(|last| {
        last.set(last.get() + 1);
        last.get()
    })
}

pub(super) fn any_waits() -> bool {
    WAITS.load(Ordering::Relaxed)
}

pub(super) fn insert(key: u64, share: Share) {
    if share.capture.waits() {
        WAITS.store(true, Ordering::Relaxed);
    }
    SHARES.with(|shares| shares.borrow_mut().insert(key, share));
}

pub(super) fn remove(key: u64) -> Option<Share> {
    SHARES.with(|shares| shares.borrow_mut().remove(&key))
}

/// `None` when there is no such share, or on a panic, which is then on record as a gap. Must not be nested: smbd is not
/// called in `work`.
pub(super) fn with<R>(key: u64, work: impl FnOnce(&mut Share) -> R) -> Option<R> {
    let get = |work: &mut dyn FnMut(&mut Share)| {
        SHARES.with(|shares| {
            let mut shares = shares.try_borrow_mut().ok()?;
            shares.get_mut(&key).map(work)
        })
    };
    let mut work = Some(work);
    let mut result = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        get(&mut |share| result = work.take().map(|work| work(share)));
    }))
    .is_err();
    if panicked {
        // A second panic leaves nothing that could still be done.
        let _ = catch_unwind(AssertUnwindSafe(|| get(&mut |share| share.capture.panicked())));
        return None;
    }
    result
}
