//! smbd's event loop watches a share's socket and wakes it at its deadline.

use super::call::Call;
use super::host;
use super::shares::{self, Share};
use super::waits;
use crate::client::ERROR;
use crate::sys;
use std::time::{Duration, Instant};

/// smbd's timers go by the wall clock: one that should have come so long ago waits for a time that was set back, and is set anew.
const LATE: Duration = Duration::from_secs(1);

/// Ends with [`Watch::end`]; smbd frees the C part with its handle otherwise.
pub(super) struct Watch {
    raw: *mut sys::vfsx_watch,
    /// The connection that is watched; 0 before the first.
    connection: u64,
    /// Whether smbd also looks for room in that socket.
    wants_room: bool,
    timer: Option<Instant>,
    /// When what is held is due, for which that timer is known to be early enough.
    in_time_for: Option<Instant>,
}

impl Watch {
    /// # Safety
    /// `handle` is smbd's, and the result ends before it.
    pub(super) unsafe fn new(handle: *mut sys::vfs_handle_struct, key: u64) -> Option<Self> {
        // SAFETY: the caller's promise.
        let raw = unsafe { sys::vfsx_shim_watch_new(handle, key) };
        (!raw.is_null()).then_some(Self {
            raw,
            connection: 0,
            wants_room: false,
            timer: None,
            in_time_for: None,
        })
    }

    pub(super) fn end(self) {
        // SAFETY: `raw` is valid until here, and `self` is gone after.
        unsafe { sys::vfsx_shim_watch_free(self.raw) };
    }
}

/// Brings the event loop in line with what the share waits for. After each call of smbd: mostly nothing has changed.
pub(super) fn follow(share: &mut Share) {
    if share.capture.waits() {
        waits::finish(&mut share.capture);
    }
    if !share.capture.client_mut().take_stirred() {
        return;
    }
    let watch = &mut share.watch;
    let (connection, socket, wants_room) = share.capture.client().watch();
    if watch.connection != connection {
        watch.connection = connection;
        // SAFETY: `raw` is valid as long as the share is registered.
        unsafe { sys::vfsx_shim_watch_no_socket(watch.raw) };
        watch.wants_room = false;
        share.capture.client_mut().close_ended();
        if let Some(socket) = socket {
            // SAFETY: as above; the socket stays open until it is no longer watched.
            let watched = unsafe { sys::vfsx_shim_watch_socket(watch.raw, socket) };
            complain_unless(watched);
            if !watched {
                // Tried again with the next call.
                watch.connection = 0;
                share.capture.client_mut().stir();
            }
        }
    }
    if watch.wants_room != wants_room {
        watch.wants_room = wants_room;
        // SAFETY: as above.
        unsafe { sys::vfsx_shim_watch_writable(watch.raw, wants_room) };
    }
    // With a timer for what is held, the whole deadline need not be looked for: all else that a call can bring is due later.
    let held_until = share.capture.client().held_until();
    if let (Some(until), Some(timer)) = (held_until, watch.timer) {
        if watch.in_time_for == held_until {
            return;
        }
        if timer <= until && until.duration_since(timer) < LATE {
            watch.in_time_for = held_until;
            return;
        }
    }
    set_timer(watch, share.capture.deadline());
}

/// A timer that comes too early finds nothing to do and is set anew.
fn set_timer(watch: &mut Watch, deadline: Option<Instant>) {
    let Some(deadline) = deadline else { return };
    let now = Instant::now();
    if let Some(timer) = watch.timer
        && timer <= deadline
        && now.saturating_duration_since(timer) < LATE
    {
        return;
    }
    let wait = deadline.saturating_duration_since(now);
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    // SAFETY: `raw` is valid as long as the share is registered.
    let set = unsafe { sys::vfsx_shim_watch_timer(watch.raw, micros) };
    watch.timer = set.then_some(deadline);
    watch.in_time_for = None;
    complain_unless(set);
}

fn complain_unless(ok: bool) {
    if !ok {
        host::log(ERROR, "no memory for an event; changes may be reported late");
    }
}

/// Called by the shim.
#[unsafe(no_mangle)]
extern "C" fn vfsx_rs_socket_ready(key: u64, readable: bool, writable: bool) {
    let Some(call) = Call::enter_key(key) else { return };
    call.note(|capture| {
        if readable {
            capture.readable();
        }
        if writable {
            capture.writable();
        }
    });
}

/// Called by the shim.
#[unsafe(no_mangle)]
extern "C" fn vfsx_rs_timer(key: u64) {
    let Some(call) = Call::enter_key(key) else { return };
    shares::with(key, |share| {
        share.watch.timer = None;
        share.capture.tick(Instant::now());
    });
    drop(call);
}
