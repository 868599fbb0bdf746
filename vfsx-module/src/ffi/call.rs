//! The frame of every callback: note before, call the next module, note after, keep errno.

use super::event_loop;
use super::shares;
use crate::hooks::{Capture, Change, Outcome};
use crate::{os, sys};

/// A result as C gives it.
pub(super) trait CResult {
    fn outcome(&self, errno: i32) -> Outcome;
}

impl CResult for i32 {
    fn outcome(&self, errno: i32) -> Outcome {
        Outcome::of((*self).into(), errno)
    }
}

impl CResult for isize {
    fn outcome(&self, errno: i32) -> Outcome {
        Outcome::of(*self as i64, errno)
    }
}

impl CResult for sys::NTSTATUS {
    /// A failing status tells nothing of how far the call came.
    fn outcome(&self, _errno: i32) -> Outcome {
        if self.v == 0 {
            Outcome::Done
        } else {
            Outcome::Unknown
        }
    }
}

/// A call of smbd on a captured share. Its end sends what was noted.
pub(super) struct Call {
    key: u64,
}

impl Call {
    /// `None` on a share that is not captured (`IPC$`, or after disconnect).
    ///
    /// # Safety
    /// `handle` is smbd's, valid for the callback.
    pub(super) unsafe fn enter(handle: *mut sys::vfs_handle_struct) -> Option<Self> {
        // SAFETY: the caller's promise.
        let key = unsafe { (*handle).data } as u64;
        Self::enter_key(key)
    }

    pub(super) fn enter_key(key: u64) -> Option<Self> {
        Self::begin(key, |_| ()).map(|(call, _)| call)
    }

    /// The same, and `work` at once: `None` beside the call after a panic in it.
    fn begin<R>(key: u64, work: impl FnOnce(&mut Capture) -> R) -> Option<(Self, Option<R>)> {
        let mut entered = false;
        let done = shares::with(key, |share| {
            share.capture.enter();
            entered = true;
            work(&mut share.capture)
        });
        entered.then_some((Self { key }, done))
    }

    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// `None` after a panic in `work`.
    pub(super) fn note<R>(&self, work: impl FnOnce(&mut Capture) -> R) -> Option<R> {
        shares::with(self.key, |share| work(&mut share.capture))
    }

    /// Ends the call with `work`. After a panic in it, it ends all the same.
    fn end_with(self, work: impl FnOnce(&mut Capture)) {
        let mut left = false;
        shares::with(self.key, |share| {
            work(&mut share.capture);
            left = true;
            share.capture.leave();
            event_loop::follow(share);
        });
        // Once, whatever panics.
        if left {
            std::mem::forget(self);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let errno = os::errno();
        shares::with(self.key, |share| {
            share.capture.leave();
            event_loop::follow(share);
        });
        os::set_errno(errno);
    }
}

/// Runs `next`, which changes nothing but by calls of its own.
///
/// # Safety
/// `handle` is smbd's, valid for the callback.
pub(super) unsafe fn as_one<R>(handle: *mut sys::vfs_handle_struct, next: impl FnOnce() -> R) -> R {
    // SAFETY: the caller's promise.
    let Some(call) = (unsafe { Call::enter(handle) }) else {
        return next();
    };
    let result = next();
    // Which keeps errno.
    drop(call);
    result
}

/// Runs `next`, which may change `what`, between `before` and `after`. `after` is not called when `before` panicked.
///
/// # Safety
/// `handle` is smbd's, valid for the callback.
pub(super) unsafe fn around<P, R: CResult>(
    handle: *mut sys::vfs_handle_struct,
    what: Change,
    before: impl FnOnce(&mut Capture) -> P,
    next: impl FnOnce() -> R,
    after: impl FnOnce(&mut Capture, P, &R, i32),
) -> R {
    // SAFETY: the caller's promise.
    let key = unsafe { (*handle).data } as u64;
    let begun = Call::begin(key, |capture| {
        capture.about_to_change(what);
        before(capture)
    });
    let Some((call, prepared)) = begun else {
        return next();
    };
    let result = next();
    let errno = os::errno();
    match prepared {
        Some(prepared) => call.end_with(|capture| after(capture, prepared, &result, errno)),
        None => drop(call),
    }
    os::set_errno(errno);
    result
}
