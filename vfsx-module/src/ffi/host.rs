//! What the module needs of smbd: its log, and root's rights.

use crate::client::{ERROR, Host};
use crate::{os, sys};
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const HOST: Host = Host { as_root, log };

/// One panic is news, the next thousand of the same bug would fill the disk.
static PANIC_LOGGED: AtomicBool = AtomicBool::new(false);

pub(super) fn init() {
    // SAFETY: no arguments; smbd's log is set up before it loads modules.
    unsafe { sys::vfsx_shim_log_init() };
    std::panic::set_hook(Box::new(|info| {
        // smbd's log is its main thread's. What becomes of a keeper that panics is logged there.
        if os::is_main_thread() && !PANIC_LOGGED.swap(true, Ordering::Relaxed) {
            let text = info.to_string().replace('\n', ": ");
            log(
                ERROR,
                &format!("{text}; the call goes on without capture, further panics are not logged"),
            );
        }
    }));
}

pub(super) fn log(level: i32, text: &str) {
    let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
    // SAFETY: ends with NUL, and is only read.
    unsafe { sys::vfsx_shim_log(level, text.as_ptr()) };
}

/// Programs other than smbd that load modules run as root and have no user stack.
fn as_root(work: &mut dyn FnMut()) {
    if os::effective_uid() == 0 {
        return work();
    }
    // SAFETY: on smbd's main thread; the pair is balanced below, also when `work` panics.
    unsafe { sys::become_root() };
    let result = catch_unwind(AssertUnwindSafe(work));
    // SAFETY: as above.
    unsafe { sys::unbecome_root() };
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}
