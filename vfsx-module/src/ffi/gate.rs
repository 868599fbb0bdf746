//! Callbacks whose operation a handler may refuse: asked before anything is noted or done.

use super::host::{self, HOST};
use super::{samba, tree};
use crate::client::ERROR;
use crate::config::{self, HandlerConfig, OnFailure};
use crate::handler::{Answer, Handler, Nesting, Operation};
use crate::{os, sys};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Handle = *mut sys::vfs_handle_struct;

struct Gate {
    handler: Handler,
    /// Of the tree connect; a request may be another's.
    user: Vec<u8>,
    nesting: Nesting,
}

thread_local! {
    // Never dropped, as the shares.
    static GATES: ManuallyDrop<RefCell<BTreeMap<u64, Gate>>> = ManuallyDrop::default();
}

/// All that a share without the option costs. Of the main thread, like the gates: a thread's own memory takes a call each time.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// How a callback tells that its operation is refused.
pub(super) trait Refused {
    fn refused(errno: i32) -> Self;
}

impl Refused for c_int {
    fn refused(errno: i32) -> Self {
        os::set_errno(errno);
        -1
    }
}

impl Refused for isize {
    fn refused(errno: i32) -> Self {
        os::set_errno(errno);
        -1
    }
}

impl Refused for sys::NTSTATUS {
    fn refused(errno: i32) -> Self {
        // SAFETY: looks the number up in a table.
        unsafe { sys::map_nt_error_from_unix_common(errno) }
    }
}

/// A tree connect begins: with the option, asks. `Some(errno)` when it is refused.
///
/// # Safety
/// smbd's arguments of the connect callback.
pub(super) unsafe fn open(handle: Handle, key: u64, user: *const c_char) -> Option<i32> {
    // SAFETY: `params` and `connectpath` are set before connect; all is copied at once.
    let (snum, share, origpath, user) = unsafe {
        let snum = (*(*(*handle).conn).params).service;
        (
            snum,
            tree::share_name(snum),
            samba::share_directory(handle).to_vec(),
            samba::bytes(user).to_vec(),
        )
    };
    let config = configured(snum, &share)?;
    let gate = Gate {
        handler: Handler::new(config, HOST, share, origpath),
        user: user.clone(),
        nesting: Nesting::default(),
    };
    GATES.with(|gates| gates.borrow_mut().insert(key, gate));
    IN_USE.store(true, Ordering::Relaxed);
    let errno = ask(key, &user, &Operation::new("connect"));
    if errno.is_some() {
        remove(key);
    }
    errno
}

/// The tree connect ends, or does not come about.
pub(super) fn close(key: u64) {
    if let Some(mut gate) = remove(key)
        && catch_unwind(AssertUnwindSafe(|| gate.handler.finish(&gate.user))).is_err()
    {
        host::log(ERROR, "the handler was not told of the end of a tree connect");
    }
}

/// Runs `go` unless the handler refuses `operation`, which is made only when it is asked.
///
/// # Safety
/// `handle` is smbd's, valid for the callback.
pub(super) unsafe fn asked<R: Refused>(
    handle: Handle,
    operation: impl FnOnce() -> Operation,
    go: impl FnOnce() -> R,
) -> R {
    // SAFETY: the caller's promise.
    unsafe { asked_or(handle, operation, R::refused, go) }
}

/// The same, with what to do on a refusal.
///
/// # Safety
/// `handle` is smbd's, valid for the callback.
pub(super) unsafe fn asked_or<R>(
    handle: Handle,
    operation: impl FnOnce() -> Operation,
    refuse: impl FnOnce(i32) -> R,
    go: impl FnOnce() -> R,
) -> R {
    if !in_use() {
        return go();
    }
    // SAFETY: the caller's promise.
    let key = unsafe { (*handle).data } as u64;
    let Some(asks) = with(key, |gate| gate.nesting.enter()) else {
        return go();
    };
    if asks {
        let before = os::errno();
        let question = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the caller's promise.
            (unsafe { samba::user(handle) }, operation())
        }));
        let refused = match &question {
            Ok((user, operation)) => ask(key, user, operation),
            Err(_) => with(key, |gate| gate.handler.without_answer()).and_then(Answer::errno),
        };
        os::set_errno(before);
        if let Some(errno) = refused {
            leave(key);
            return refuse(errno);
        }
        with(key, |gate| gate.nesting.allowed());
    }
    let result = go();
    leave(key);
    result
}

/// Runs `go`, all of which is one operation to the client. `truncates`: it empties the file that it opens.
///
/// # Safety
/// `handle` is smbd's, valid for the callback.
pub(super) unsafe fn grouped<R>(handle: Handle, truncates: bool, go: impl FnOnce() -> R) -> R {
    if !in_use() {
        return go();
    }
    // SAFETY: the caller's promise.
    let key = unsafe { (*handle).data } as u64;
    let known = with(key, |gate| gate.nesting.enter_group(truncates)).is_some();
    let result = go();
    if known {
        leave(key);
    }
    result
}

/// Whether the client wants the file emptied that is being opened.
///
/// # Safety
/// `handle` is smbd's, valid for the callback.
pub(super) unsafe fn truncates(handle: Handle) -> bool {
    // SAFETY: the caller's promise.
    let key = unsafe { (*handle).data } as u64;
    with(key, |gate| gate.nesting.truncates()).unwrap_or(false)
}

/// Whether any share of this process has a handler.
pub(super) fn in_use() -> bool {
    IN_USE.load(Ordering::Relaxed)
}

/// `Some(errno)` when the handler refuses. A panic is a handler without an answer.
fn ask(key: u64, user: &[u8], operation: &Operation) -> Option<i32> {
    let answer = catch_unwind(AssertUnwindSafe(|| {
        with(key, |gate| gate.handler.ask(user, operation))
    }));
    let answer = answer.unwrap_or_else(|_| with(key, |gate| gate.handler.without_answer()));
    answer.and_then(Answer::errno)
}

/// No callback keeps errno safe behind this: nothing in it makes a system call.
fn leave(key: u64) {
    with(key, |gate| gate.nesting.leave());
}

/// `None` on a share without a handler. Must not be nested: smbd is not called in `work`.
fn with<R>(key: u64, work: impl FnOnce(&mut Gate) -> R) -> Option<R> {
    GATES.with(|gates| gates.borrow_mut().get_mut(&key).map(work))
}

fn remove(key: u64) -> Option<Gate> {
    GATES.with(|gates| {
        let mut gates = gates.borrow_mut();
        let gate = gates.remove(&key);
        IN_USE.store(!gates.is_empty(), Ordering::Relaxed);
        gate
    })
}

fn configured(snum: c_int, share: &str) -> Option<HandlerConfig> {
    let socket = tree::path(snum, c"handler", "");
    if socket.as_os_str().is_empty() {
        return None;
    }
    let default = config::DEFAULT_HANDLER_TIMEOUT.as_millis() as usize;
    let timeout = Duration::from_millis(tree::ulong(snum, c"handler timeout", default) as u64);
    let word = tree::path(snum, c"handler failure", "allow");
    let on_failure = OnFailure::parse(&word.to_string_lossy()).unwrap_or_else(|| {
        let text = format!(
            "share {share}: vfsx:handler failure = {} is neither allow nor deny: deny is used",
            word.display()
        );
        host::log(ERROR, &text);
        OnFailure::Deny
    });
    Some(HandlerConfig {
        socket,
        timeout: timeout.clamp(config::MIN_HANDLER_TIMEOUT, config::MAX_HANDLER_TIMEOUT),
        on_failure,
    })
}
